"""One conversation in memory."""

import asyncio
from typing import Literal

import attrs

from hub.delivery.channel import Channel
from hub.ids import Key
from hub.messages import State
from hub.sessions.admission import Admission
from hub.sessions.hosts import SessionHost
from hub.sessions.once import Once
from hub.sessions.outbox import Outbox
from hub.sessions.questions import Questions
from hub.sessions.run import ActiveRun
from hub.sessions.schedule import Schedule


@attrs.define(eq=False, repr=False, kw_only=True)
class LiveSession:
    """A conversation: its listeners, its outbox, its runs, and what lets chats in. *holders* keep it in memory."""

    channel: Channel
    host: SessionHost
    outbox: Outbox = attrs.field(init=False)
    schedule: Schedule = attrs.field(init=False)
    admission: Admission = attrs.field(init=False)
    holders: int = 0

    def __attrs_post_init__(self) -> None:
        channel, host = self.channel, self.host
        self.outbox = Outbox(
            key=channel.key,
            store=host.log.events,
            limits=host.limits,
            pace=host.pace,
            on_idle=lambda: host.tidy(channel.key),
        )
        self.schedule = Schedule(
            channel=channel, host=host, outbox=self.outbox, changed=lambda: host.session_changed(self)
        )
        once = Once(channel.key, host.log.runs)
        self.admission = Admission(channel=channel, host=host, outbox=self.outbox, schedule=self.schedule, once=once)

    @property
    def key(self) -> Key:
        return self.channel.key

    @property
    def id(self) -> str:
        """The id, as clients know it."""
        return self.channel.id

    @property
    def runs(self) -> dict[str, ActiveRun]:
        """The runs that go on, by id."""
        return self.schedule.running

    @property
    def queue(self) -> list[ActiveRun]:
        """The runs that wait, in order."""
        return self.schedule.waiting

    @property
    def silent(self) -> bool:
        """Whether nothing goes on or waits, and all that was said is in the log."""
        return self.outbox.is_empty and not (self.runs or self.queue or self.admission.once.coming)

    async def silenced(self) -> None:
        """Wait until it is silent; also for what comes meanwhile."""
        while not self.silent:
            runs = [*self.runs.values(), *self.queue]
            if runs:
                await self.schedule.finished(runs[0].id)
            elif self.admission.once.coming:
                await asyncio.wait(self.admission.once.coming)
            else:
                await self.outbox.wait_for_append()

    def unused(self) -> bool:
        """Return whether nothing needs it in memory: no subscriber, run, outbox, append in flight or waiter."""
        return self.silent and not (self.channel.subscriptions or self.holders)

    def find_questions(self, interrupt_id: str) -> Questions | None:
        """Return the questions among which this one is open, or None."""
        return next((run.questions for run in self.runs.values() if interrupt_id in run.questions.answerable_ids), None)

    def state(self) -> State:
        """Return what it is doing, as its listeners are told."""
        active = tuple(_short(run) for run in self.runs.values())
        queue = tuple(_short(run) for run in self.queue)
        open_ = tuple({"id": name, "runId": run.id} for run in self.runs.values() for name in run.questions.logged_ids)
        state: Literal["requires_action", "running", "queued", "idle"]
        state = "requires_action" if open_ else "running" if active else "queued" if queue else "idle"
        return State(sessionId=self.id, state=state, active=active, queue=queue, interrupts=open_ or None)


def _short(run: ActiveRun) -> dict[str, str]:
    record = run.record
    return {
        "runId": record.runId,
        "agentId": record.agentId,
        "messageId": record.messageId,
        "userMessageId": record.userMessageId,
    }

"""A session in memory: the parts that admit its chats, run its agents and log its events."""

import asyncio
from typing import Literal

import attrs

from hub.access.records import SessionRole
from hub.delivery.channel import Channel
from hub.ids import Key
from hub.messages import OpenQuestion, State
from hub.sessions.admission import Admission
from hub.sessions.hosts import SessionHost
from hub.sessions.outbox import Outbox
from hub.sessions.questions import Questions
from hub.sessions.run import ActiveRun
from hub.sessions.schedule import Schedule
from hub.sessions.single_flight import SingleFlight


@attrs.define(eq=False, repr=False, kw_only=True)
class LiveSession:
    """A session in memory. *use_count* is the number of tasks that use it: see SessionLoader.use().

    *grants* are the roles by the ids of principals, as the log has them now. They are empty while sign-in is off.
    """

    channel: Channel
    host: SessionHost
    grants: dict[str, SessionRole] = attrs.Factory(dict)
    grants_lock: asyncio.Lock = attrs.Factory(asyncio.Lock)  # held while a change of the grants is committed
    outbox: Outbox = attrs.field(init=False)
    schedule: Schedule = attrs.field(init=False)
    admission: Admission = attrs.field(init=False)
    use_count: int = 0
    _typing_times: dict[str, float] = attrs.Factory(dict)  # of the last notices that note_typing() has allowed

    def __attrs_post_init__(self) -> None:
        channel, host = self.channel, self.host
        self.outbox = Outbox(
            key=channel.key,
            store=host.log.events,
            limits=host.limits,
            pace=host.pace,
            chunk_ages=host.counters.chunk_ages,
            on_idle=lambda: host.unload_if_unused(channel.key),
        )
        self.schedule = Schedule(
            channel=channel, host=host, outbox=self.outbox, on_change=lambda: host.on_session_change(self)
        )
        self.admission = Admission(
            channel=channel,
            host=host,
            outbox=self.outbox,
            schedule=self.schedule,
            single_flight=SingleFlight(channel.key, host.log.runs),
        )

    @property
    def key(self) -> Key:
        return self.channel.key

    @property
    def id(self) -> str:
        """The id that clients know."""
        return self.channel.id

    @property
    def exists(self) -> bool:
        """True if the log has the session, or will have it, because a principal has claimed it."""
        return self.channel.epoch is not None or bool(self.grants)

    def claim(self, principal_id: str) -> None:
        """Make a principal the owner of this session, which the log does not have yet."""
        self.grants[principal_id] = "owner"
        self.outbox.owner = principal_id

    @property
    def active_runs(self) -> dict[str, ActiveRun]:
        """The active runs, by id."""
        return self.schedule.active_runs

    @property
    def queued_runs(self) -> list[ActiveRun]:
        """The queued runs, in order."""
        return self.schedule.queued_runs

    @property
    def is_idle(self) -> bool:
        """True if the session has no run, no pending event, and no command with a clientMsgId in admission."""
        return self.outbox.is_empty and not (self.active_runs or self.queued_runs or self.admission.single_flight.tasks)

    async def wait_until_idle(self) -> None:
        """Wait until the session is idle. Work that is added during the wait counts too."""
        while not self.is_idle:
            runs = [*self.active_runs.values(), *self.queued_runs]
            if runs:
                await self.schedule.wait_for_end(runs[0].id)
            elif self.admission.single_flight.tasks:
                await asyncio.wait(self.admission.single_flight.tasks)
            else:
                await self.outbox.wait_for_append()

    def is_unused(self) -> bool:
        """Return whether the session can be unloaded: it is idle, no one subscribes to it, and no task uses it."""
        return self.is_idle and not (self.channel.subscriptions or self.use_count)

    def find_questions(self, interrupt_id: str) -> Questions | None:
        """Return the Questions of the run that asked a question, or None if the question cannot be answered now."""
        return next(
            (run.questions for run in self.active_runs.values() if interrupt_id in run.questions.answerable_ids), None
        )

    def list_questions(self) -> tuple[OpenQuestion, ...]:
        """Return the open questions that the log holds."""
        return tuple(question for run in self.active_runs.values() for question in run.questions.list_visible())

    def note_typing(self, principal_id: str) -> bool:
        """Return whether a principal's `typing` notice is due: it says nothing new within `presence_seconds`."""
        now = asyncio.get_running_loop().time()
        start = now - self.host.limits.presence_seconds
        self._typing_times = {id: time for id, time in self._typing_times.items() if time > start}
        is_due = principal_id not in self._typing_times
        self._typing_times.setdefault(principal_id, now)
        return is_due

    def make_state(self) -> State:
        """Return the `state` notice of the session."""
        active = tuple(_describe(run) for run in self.active_runs.values())
        queue = tuple(_describe(run) for run in self.queued_runs)
        questions = tuple({"id": question.id, "runId": question.runId} for question in self.list_questions())
        state: Literal["requires_action", "running", "queued", "idle"]
        state = "requires_action" if questions else "running" if active else "queued" if queue else "idle"
        return State(sessionId=self.id, state=state, active=active, queue=queue, interrupts=questions or None)


def _describe(run: ActiveRun) -> dict[str, str]:
    record = run.record
    return {
        "runId": record.runId,
        "agentId": record.agentId,
        "messageId": record.messageId,
        "userMessageId": record.userMessageId,
    }

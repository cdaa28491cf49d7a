"""The runs of one session: which go on, which wait, and in which order they start."""

import asyncio
from collections.abc import Callable, Sequence

import attrs
from msgspec.structs import replace

from hub.delivery.channel import Channel
from hub.errors import HubError
from hub.hosting.contract import Past, Shelf
from hub.hosting.hosted import Agent
from hub.messages import RunStarted
from hub.sessions.hosts import SessionHost
from hub.sessions.outbox import Outbox, PendingEvent
from hub.sessions.past import past
from hub.sessions.run import ActiveRun, RunState
from hub.sessions.shelf import shelf
from hub.storage.records import RunRecord


@attrs.define(eq=False, repr=False, kw_only=True)
class Schedule:
    """The runs that go on, by id, and those that wait, in order.

    *turn* is held while a chat comes in, or something is taken back: no run is started meanwhile. *changed* is called
    when runs have come, started or ended, and when a question was kept or closed. While *draining* nothing more starts;
    what goes on may end until drain() is called.
    """

    channel: Channel
    host: SessionHost
    outbox: Outbox
    changed: Callable[[], None]
    running: dict[str, ActiveRun] = attrs.Factory(dict)
    waiting: list[ActiveRun] = attrs.Factory(list)
    turn: asyncio.Lock = attrs.Factory(asyncio.Lock)
    draining: bool = False
    _is_drained: bool = False
    shelf: Shelf = attrs.field(init=False)
    _ends: dict[str, asyncio.Event] = attrs.Factory(dict)

    def __attrs_post_init__(self) -> None:
        self.shelf = shelf(self.host.files, self.channel.key)

    # --- what its runs need of it (RunOwner) ------------------------------------------------------------------------

    async def read_history(self, run: ActiveRun) -> Sequence[Past]:
        waiting = [run.record, *(other.record for other in self.waiting)]
        return await past(self.host.log.sessions, self.channel.key, waiting, self.host.limits)

    def on_questions_change(self) -> None:
        self.changed()

    def on_run_end(self, run: ActiveRun) -> None:
        self.remove(run)
        self.changed()

    # --- order --------------------------------------------------------------------------------------------------------

    def has(self, run_id: str) -> bool:
        """Return whether a run goes on here, or waits."""
        return run_id in self.running or any(run.id == run_id for run in self.waiting)

    def must_wait(self, run: ActiveRun) -> bool:
        """Return whether a waiting run must wait for its agent's runs, or, if `waits_for_session`, for any run."""
        before = [*self.running.values(), *self.waiting[: self.waiting.index(run)]]
        return any(
            run.record.waits_for_session or other.record.waits_for_session or other.record.agentId == run.record.agentId
            for other in before
        )

    def make_run(self, record: RunRecord, agent: Agent | None) -> ActiveRun:
        """Return a run of this session that neither goes on nor waits yet."""
        return ActiveRun(record=record, agent=agent, host=self.host, owner=self)

    def start(self, run: ActiveRun, *first: PendingEvent) -> None:
        """Let a waiting run go on; its agent is called when `run_started` is in the log, in one commit with *first*."""
        self.waiting.remove(run)
        self.running[run.id] = run
        run.start()
        record = run.record = replace(run.record, state="started")
        started = PendingEvent(
            record.agentId,
            run.id,
            RunStarted(record.messageId, record.attempt),
            run_records=(record,),
            on_result=lambda seq: run.run_agent() if isinstance(seq, int) else None,
            is_refusable=bool(first),
        )
        self.outbox.put(*first, started)

    def wake(self) -> None:
        """Start what waits and may go, unless something is being taken back.

        What may go but for its agent's limit is tried again when the agent has a free slot.
        """
        if self.draining or self.turn.locked():
            return
        full = set()
        for run in list(self.waiting):
            if run.has_ended or self.must_wait(run):
                continue
            try:
                run.agent = self.host.agents.get(run.record.agentId)
            except HubError as gone:
                run.fail(gone)
                continue
            if run.agent.is_full:
                full.add(run.record.agentId)
            else:
                self.start(run)
        self.host.slots.set_queues(self, full)

    def remove(self, run: ActiveRun) -> None:
        """Forget a run, tell those who wait for its end, and start what waited for it."""
        self.running.pop(run.id, None)
        if run in self.waiting:
            self.waiting.remove(run)
        self._ended(run.id)
        self.wake()

    # --- the end ------------------------------------------------------------------------------------------------------

    async def finished(self, run_id: str) -> None:
        """Wait until a run's end is in the log and delivered, or the hub leaves it to the next start."""
        if self.has(run_id):
            await self._ends.setdefault(run_id, asyncio.Event()).wait()

    async def all_ended(self) -> None:
        """Wait as finished() does, until no run goes on any more."""
        while self.running:
            await self.finished(next(iter(self.running)))

    async def left(self, run_id: str) -> None:
        """Wait as finished() does, but not for a run that a drain leaves waiting."""
        if not (self._is_drained and run_id not in self.running):
            await self.finished(run_id)

    def drain(self) -> None:
        """End what goes on (`aborted`; a restartable run stays in the log as started); what waits stays waiting."""
        self.draining = self._is_drained = True
        for run in list(self.running.values()):
            is_going = run.state in (RunState.STARTING, RunState.RUNNING)
            if run.agent is not None and run.agent.marks.restartable and is_going:
                run.suspend()
                self.running.pop(run.id)
                self._ended(run.id)
            else:
                run.stop("aborted")
        for run in self.waiting:  # whoever waits for one of these would wait for the next start
            self._ended(run.id)

    def abandon(self) -> None:
        """Write the ends of stopped runs now, whether their work has ended or not."""
        for run in list(self.running.values()):
            run.abandon()

    def _ended(self, run_id: str) -> None:
        end = self._ends.pop(run_id, None)
        if end is not None:
            end.set()

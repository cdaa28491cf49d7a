"""The runs of one session: the active ones, the queued ones, and the order in which they start."""

import asyncio
from collections.abc import Callable, Sequence

import attrs
from msgspec.structs import replace

from hub.delivery.channel import Channel
from hub.errors import HubError
from hub.hosting.contract import FileAccess
from hub.hosting.hosted import Agent
from hub.messages import OpenQuestion, Past, RunStarted
from hub.sessions.file_access import make_file_access
from hub.sessions.hearing import Hearing
from hub.sessions.hosts import SessionHost
from hub.sessions.outbox import Outbox
from hub.sessions.past import read_past
from hub.sessions.pending import PendingEvent
from hub.sessions.run import ActiveRun
from hub.sessions.run_states import RunState
from hub.storage.records import RunRecord


@attrs.define(eq=False, repr=False, kw_only=True)
class Schedule:
    """The active runs by id, and the queued runs in order.

    *lock* is held while a chat is admitted or messages are removed: wake() starts no run then. *on_change* is called
    when a chat was logged or refused, when a run has ended, and when a question was logged, answered or withdrawn.
    While *is_draining* is set, no run starts; active runs may go on until drain(). *file_access* is the file access of
    the session's agents.
    """

    channel: Channel
    host: SessionHost
    outbox: Outbox
    on_change: Callable[[], None]
    active_runs: dict[str, ActiveRun] = attrs.Factory(dict)
    queued_runs: list[ActiveRun] = attrs.Factory(list)
    lock: asyncio.Lock = attrs.Factory(asyncio.Lock)
    is_draining: bool = False
    _is_drained: bool = False
    file_access: FileAccess = attrs.field(init=False)
    hearing: Hearing = attrs.field(init=False)
    _end_events: dict[str, asyncio.Event] = attrs.Factory(dict)  # by run
    _question_events: dict[str, asyncio.Event] = attrs.Factory(dict)  # by run; each is also set at the end of its run

    def __attrs_post_init__(self) -> None:
        self.file_access = make_file_access(self.host.files, self.channel.key)
        self.hearing = Hearing(channel=self.channel, host=self.host, list_runs=self.list_runs)

    # --- RunOwner ---------------------------------------------------------------------------------------------------

    async def read_history(self, run: ActiveRun) -> Sequence[Past]:
        records = [run.record, *(queued_run.record for queued_run in self.queued_runs)]
        takes_tools = run.agent is not None and run.agent.marks.tools
        return await read_past(self.host.log.sessions, self.channel.key, records, self.host.limits, takes_tools)

    def on_questions_change(self) -> None:
        self.hearing.note_questions()
        for run_id in [run_id for run_id in self._question_events if self.list_questions(run_id)]:
            self._question_events.pop(run_id).set()
        self.on_change()

    def on_run_end(self, run: ActiveRun) -> None:
        run.observer.note_logged_end()
        self.remove(run)
        self.on_change()

    # --- order --------------------------------------------------------------------------------------------------------

    def list_runs(self) -> list[ActiveRun]:
        """Return the active runs, and then the queued ones in order."""
        return [*self.active_runs.values(), *self.queued_runs]

    def has_run(self, run_id: str) -> bool:
        """Return whether a run is active or queued in this session."""
        return run_id in self.active_runs or self.is_queued(run_id)

    def is_queued(self, run_id: str) -> bool:
        """Return whether a run is queued in this session."""
        return any(run.id == run_id for run in self.queued_runs)

    def list_questions(self, run_id: str) -> list[OpenQuestion]:
        """Return the open questions of a run that the log holds."""
        run = self.active_runs.get(run_id)
        return run.questions.list_visible() if run is not None else []

    def must_wait(self, run: ActiveRun) -> bool:
        """Return whether a queued run must wait for the end of an earlier run.

        Runs of one agent wait for each other. A run with `waits_for_session` waits for every earlier run, and every
        later run waits for it.
        """
        earlier_runs = [*self.active_runs.values(), *self.queued_runs[: self.queued_runs.index(run)]]
        return any(
            run.record.waits_for_session
            or earlier_run.record.waits_for_session
            or earlier_run.record.agentId == run.record.agentId
            for earlier_run in earlier_runs
        )

    def make_run(self, record: RunRecord, agent: Agent | None) -> ActiveRun:
        """Return a new run of this session, neither active nor queued yet."""
        return ActiveRun(record=record, agent=agent, host=self.host, owner=self)

    def start(self, run: ActiveRun, *events: PendingEvent) -> None:
        """Start a queued run. One commit logs *events* and `run_started`; then the agent is called."""
        self.queued_runs.remove(run)
        self.active_runs[run.id] = run
        run.start()
        self.hearing.note_start(run)
        record = run.record = replace(run.record, state="started")
        run_started = PendingEvent(
            record.agentId,
            run.id,
            RunStarted(record.messageId, record.attempt, record.parentRunId),
            run_records=(record,),
            on_result=lambda seq: run.run_agent() if isinstance(seq, int) else None,
            is_refusable=bool(events),
        )
        self.outbox.put(*events, run_started)

    def wake(self) -> None:
        """Start all queued runs that can start. Do nothing if the lock is held or the hub is draining.

        A run whose agent is unknown or broken ends with that error. A run whose agent or hub is full waits: when there
        is a free slot, Slots calls wake() again.
        """
        if self.is_draining or self.lock.locked():
            return
        full_agent_ids = set()
        for run in list(self.queued_runs):
            if run.has_ended or self.must_wait(run):
                continue
            try:
                run.agent = self.host.agents.get_working(run.record.agentId)
            except HubError as error:
                run.fail(error)
                continue
            if self.host.slots.find_reached_limit(run.agent) is not None:
                full_agent_ids.add(run.record.agentId)
            else:
                self.start(run)
        self.host.slots.set_queues(self, full_agent_ids)

    def remove(self, run: ActiveRun) -> None:
        """Remove a run, wake the tasks that wait for its end, and start the runs that waited for it."""
        run.close_place()
        self.hearing.forget(run.id)
        self.active_runs.pop(run.id, None)
        if run in self.queued_runs:
            self.queued_runs.remove(run)
        self._wake_waiters(run.id)
        self.wake()

    # --- end ----------------------------------------------------------------------------------------------------------

    async def wait_for_end(self, run_id: str) -> None:
        """Wait until a run's end is logged and delivered, or a drain leaves the run to the next start of the hub."""
        if self.has_run(run_id):
            await self._end_events.setdefault(run_id, asyncio.Event()).wait()

    async def wait_for_all_ends(self) -> None:
        """Wait as wait_for_end() does, until no run is active."""
        while self.active_runs:
            await self.wait_for_end(next(iter(self.active_runs)))

    async def wait_for_end_or_drain(self, run_id: str) -> None:
        """Wait as wait_for_end() does, but after drain() do not wait for a queued run, because it stays queued."""
        if self._will_end(run_id):
            await self.wait_for_end(run_id)

    async def wait_for_end_or_question(self, run_id: str) -> Sequence[OpenQuestion]:
        """Wait as wait_for_end_or_drain() does, but not while the run waits for replies: return its open questions."""
        while not (questions := self.list_questions(run_id)) and self._will_end(run_id):
            await self._question_events.setdefault(run_id, asyncio.Event()).wait()  # a reply may overtake this task
        return questions

    def _will_end(self, run_id: str) -> bool:
        """Return whether a run will end in this process."""
        return run_id in self.active_runs or (not self._is_drained and self.is_queued(run_id))

    def drain(self) -> None:
        """End the active runs as `aborted`, but suspend restartable ones. Queued runs stay queued."""
        self.is_draining = self._is_drained = True
        self.hearing.end()
        for run in list(self.active_runs.values()):
            is_stoppable = run.state in (RunState.STARTING, RunState.RUNNING)
            if run.agent is not None and run.agent.marks.restartable and is_stoppable:
                run.suspend()
                self.active_runs.pop(run.id)
                self.hearing.forget(run.id)
                self._wake_waiters(run.id)
            else:
                run.stop("aborted")
        for run in self.queued_runs:  # they do not start in this process, so no task may wait for their ends
            self._wake_waiters(run.id)

    def abandon(self) -> None:
        """End all stopped runs now, although their code may still run."""
        for run in list(self.active_runs.values()):
            run.abandon()

    def _wake_waiters(self, run_id: str) -> None:
        for events in (self._end_events, self._question_events):
            if (event := events.pop(run_id, None)) is not None:
                event.set()

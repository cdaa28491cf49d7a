"""The life of one answer: calls an agent, stops it, and ends exactly once."""

import asyncio
from contextlib import aclosing
from enum import Enum, auto
from typing import Any, cast

import attrs

from hub.errors import AgentError, HubError
from hub.hosting.agent_task import AgentTask
from hub.hosting.hosted import Agent
from hub.hosting.output import call_agent
from hub.ids import id_of
from hub.messages import Fault, RunError, RunFinished, StopReason
from hub.sessions.answer_writer import AnswerWriter
from hub.sessions.hosts import RunOwner, SessionHost
from hub.sessions.outbox import PendingEvent
from hub.sessions.questions import Questions
from hub.sessions.view import view
from hub.storage.records import RunRecord

SLICE_SECONDS = 0.005  # a generator that never waits is given back to the loop this often


class RunState(Enum):
    """Where a run stands; see ActiveRun, where the edges are drawn."""

    QUEUED = auto()
    STARTING = auto()
    RUNNING = auto()
    ENDING = auto()
    ENDED = auto()


EDGES = {
    RunState.QUEUED: {RunState.STARTING, RunState.ENDED},
    RunState.STARTING: {RunState.RUNNING, RunState.ENDED},
    RunState.RUNNING: {RunState.ENDING, RunState.ENDED},
    RunState.ENDING: {RunState.ENDED},
    RunState.ENDED: set(),
}


@attrs.define(eq=False, repr=False, kw_only=True)
class ActiveRun:
    """One answer of one agent to one message. All methods are called in the loop.

        QUEUED ------ start(): `run_started` is given to the log --------> STARTING
        QUEUED ------ stop(), fail(), leave() ---------------------------> ENDED
        STARTING ---- go(): `run_started` is in the log -----------------> RUNNING
        STARTING ---- stop(), leave() -----------------------------------> ENDED
        RUNNING ----- stop(): the agent's code is cancelled -------------> ENDING
        RUNNING ----- the code has ended; leave() -----------------------> ENDED
        ENDING ------ the code has ended, or the grace is over; leave() -> ENDED

    An ENDED run says nothing more: its end is on its way to the log, or leave() left it to the next start. Its code may
    go on where it ignores its cancel. A run of an earlier process begins as QUEUED, too.
    """

    record: RunRecord
    agent: Agent | None
    host: SessionHost
    owner: RunOwner
    state: RunState = RunState.QUEUED
    stop_reason: StopReason | None = None
    questions: Questions = attrs.field(init=False)
    writer: AnswerWriter = attrs.field(init=False)
    _agent_task: AgentTask | None = None
    _refused: AgentError | None = None

    def __attrs_post_init__(self) -> None:
        record, host, owner = self.record, self.host, self.owner
        self.writer = AnswerWriter(
            agent=record.agentId,
            run=record.runId,
            user_message_id=record.userMessageId,
            message_id=record.messageId,
            outbox=owner.outbox,
            limits=host.limits,
            shelf=owner.shelf,
            new_id=host.seams.new_id,
        )
        self.questions = Questions(
            agent=record.agentId,
            run=record.runId,
            outbox=owner.outbox,
            limits=host.limits,
            between=self.writer.end_stream,
            changed=self._questions_changed,
        )

    @property
    def id(self) -> str:
        return self.record.runId

    @property
    def ended(self) -> bool:
        return self.state is RunState.ENDED

    @property
    def agent_task(self) -> AgentTask:
        """Return the task of the agent code; it exists from start() on."""
        assert self._agent_task is not None
        return self._agent_task

    @property
    def message_ids(self) -> tuple[str, ...]:
        """The ids of what it has said, as far as that is finished, and of its first message in any case."""
        return (self.record.messageId, *(message.messageId for message in self.writer.messages))

    # --- start and stop ---------------------------------------------------------------------------------------------

    def _enter(self, state: RunState) -> None:
        """Change the state: the one place where that is done."""
        assert state in EDGES[self.state], f"a run does not go from {self.state} to {state}"
        self.state = state

    def start(self) -> None:
        """Take a slot of the agent, until the code has ended or will not be called."""
        assert self.agent is not None
        self._enter(RunState.STARTING)
        self._agent_task = AgentTask(
            slot=self.host.slots.take(self.agent),
            ids={"session": id_of(self.record.key), "run": self.id, "agent": self.agent.id},
            limits=self.host.limits,
            stop=self.stop,
            # The agent waits for people or for the log: the silence is not its fault.
            is_excused=lambda: bool(self.questions.open or self.writer.pending_bytes),
            ended=self._worked,
            abandoned=self._abandoned,
        )

    def go(self) -> None:
        """Call the agent's code; its `run_started` is in the log."""
        if self.state is not RunState.STARTING:  # it was stopped, or left, meanwhile
            return
        self._enter(RunState.RUNNING)
        self.agent_task.start(self._work(self.agent_task))

    def stop(self, reason: StopReason) -> None:
        """End the run for *reason*, when its work has stopped or after the grace time; twice is once."""
        if self.state in (RunState.ENDING, RunState.ENDED):
            return
        if self.state is not RunState.RUNNING:
            self._end(reason)
            return
        self._enter(RunState.ENDING)
        self.stop_reason = reason
        self.questions.shut()
        self.agent_task.cancel()

    def leave(self) -> None:
        """Stop without an end: the run stays in the log as started, and runs again at the next start."""
        if not self.ended:
            self._enter(RunState.ENDED)
        self.writer.close()
        self.questions.leave()
        if self._agent_task is not None:
            self._agent_task.cancel()

    def abandon(self) -> None:
        """End a run that was stopped without its work; nothing where it has ended, or was not stopped."""
        if self.state is RunState.ENDING:
            self.agent_task.abandon()

    # --- the work ---------------------------------------------------------------------------------------------------

    async def _work(self, agent_task: AgentTask) -> None:
        # In one piece, though it is long: a token wakes each coroutine that is between the task and the agent.
        agent, deadlines = agent_task.agent, agent_task.deadlines
        limits, writer, since = self.host.limits, self.writer, 0.0
        try:
            past = await self.owner.history(self) if agent.needs_history else ()
        except HubError as error:  # the log's fault, not the agent's
            wait = error.about.get("retryAfterMs", 1000)
            self._refused = AgentError(error.message, error.code, retryable=True, retry_after_ms=wait)
            return
        run = view(self, past)
        time = asyncio.get_running_loop().time
        try:
            async with aclosing(cast(Any, call_agent(agent, run))) as given:
                async for piece in given:
                    if self.questions.open:
                        await self.questions.settled()
                    deadlines.last_output = now = time()
                    try:
                        writer.write_text(piece) if type(piece) is str else await writer.write(piece)
                    except AgentError as refused:
                        self._refused = agent_task.explain(refused, given)
                        return
                    if writer.is_closed:  # the run has ended without it: no more is taken
                        return
                    if writer.pending_bytes > limits.pending_bytes:
                        await writer.wait_for_capacity()
                    elif now - since > SLICE_SECONDS:
                        if not writer.has_yielded:
                            await asyncio.sleep(0)
                        since, writer.has_yielded = now, False
        except (SystemExit, KeyboardInterrupt) as exit:  # asyncio would let these end the hub
            raise RuntimeError(repr(exit)).with_traceback(exit.__traceback__) from None

    def _questions_changed(self) -> None:
        if self._agent_task is not None:
            self._agent_task.deadlines.note()
        self.owner.questions_changed()

    # --- the end ----------------------------------------------------------------------------------------------------

    def _worked(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if self.ended:
            return
        if self.stop_reason is not None:
            self._end(self.stop_reason)
        elif self._refused is not None:
            self._end("error", self._refused)
        elif error is not None:
            self._end("error", self.agent_task.explain(error))
        elif task.cancelled():
            self._end("error", self.agent_task.explain(AgentError(f"agent {self.record.agentId} cancelled itself")))
        else:
            self._end(self.writer.finish.reason)

    def _abandoned(self) -> None:
        if not self.ended:
            assert self.stop_reason is not None
            self._end(self.stop_reason)

    def fail(self, error: HubError | AgentError) -> None:
        """End a run that could not start."""
        self._end("error", AgentError(error.message, error.code))

    def _end(self, reason: StopReason, error: AgentError | None = None) -> None:
        has_begun = self.state is not RunState.QUEUED
        self._enter(RunState.ENDED)
        last_id = self.writer.end()
        if self._agent_task is not None and self._agent_task.task is None:
            self._agent_task.cancel()
        agent, items = self.record.agentId, []
        if error is not None:
            said = RunError(error.code, error.message, error.retryable, error.retry_after_ms)
            items.append(PendingEvent(agent, self.id, said))
        end = PendingEvent(agent, self.id, RunFinished(last_id, reason, self.writer.finish.usage))
        fault = None if error is None else Fault(error.code, error.message)
        # A chat that is cancelled in the queue is taken back: no answer has begun.
        end.messages = () if reason == "cancelled" and not has_begun else self.writer.make_history(reason, fault)
        end.ended_runs = (self.id,)
        end.on_result = lambda _: self.owner.over(self)
        items.append(end)
        self.questions.close(lambda closing: self.owner.outbox.put(*closing, *items))

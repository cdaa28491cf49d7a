"""The life of one answer: calls an agent, stops it, and ends exactly once."""

import asyncio
from contextlib import aclosing
from enum import Enum, auto
from typing import Any, cast

import attrs
import structlog

from hub.errors import AgentError, HubError
from hub.hosting.faults import explain
from hub.hosting.hosted import Agent
from hub.hosting.output import pieces
from hub.messages import RunError, RunFinished, StopReason
from hub.pools import running_agent
from hub.sessions.deadlines import Deadlines
from hub.sessions.hosts import RunOwner, SessionHost
from hub.sessions.outbox import Item
from hub.sessions.places import Place
from hub.sessions.questions import Questions
from hub.sessions.speech import Speech
from hub.sessions.view import view
from hub.storage.records import RunRecord

log = structlog.get_logger()

SLICE_SECONDS = 0.005  # a generator that never waits is given back to the loop this often


class RunState(Enum):
    """Where a run stands; see Run, where the edges are drawn."""

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
class Run:
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
    task: asyncio.Task[None] | None = None
    questions: Questions = attrs.field(init=False)
    speech: Speech = attrs.field(init=False)
    deadlines: Deadlines = attrs.field(init=False)
    _place: Place | None = None
    _refused: AgentError | None = None

    def __attrs_post_init__(self) -> None:
        record, host, owner = self.record, self.host, self.owner
        self.speech = Speech(
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
            between=self.speech.pause,
            changed=self._questions_changed,
        )
        # While people or the log are waited for, the agent is not what is silent.
        self.deadlines = Deadlines(stop=self.stop, is_excused=lambda: bool(self.questions.open or self.speech.pending))

    @property
    def id(self) -> str:
        return self.record.runId

    @property
    def ended(self) -> bool:
        return self.state is RunState.ENDED

    @property
    def message_ids(self) -> tuple[str, ...]:
        """The ids of what it has said, as far as that is finished, and of its first message in any case."""
        return (self.record.messageId, *(message.messageId for message in self.speech.texts))

    # --- start and stop ---------------------------------------------------------------------------------------------

    def _enter(self, state: RunState) -> None:
        """Change the state: the one place where that is done."""
        assert state in EDGES[self.state], f"a run does not go from {self.state} to {state}"
        self.state = state

    def start(self) -> None:
        """Take a place of the agent, until the code has ended or will not be called."""
        assert self.agent is not None
        self._enter(RunState.STARTING)
        self._place = self.host.places.take(self.agent)

    def go(self) -> None:
        """Call the agent's code; its `run_started` is in the log."""
        if self.state is not RunState.STARTING:  # it was stopped, or left, meanwhile
            return
        assert self.agent is not None
        self._enter(RunState.RUNNING)
        marks, limits = self.agent.marks, self.host.limits
        self.deadlines.start(marks.time_limit or limits.run_seconds, marks.silence_limit or limits.silence_seconds)
        self.task = asyncio.create_task(self._work(self.agent), name=f"run {self.id}")
        self.task.add_done_callback(self._worked)

    def stop(self, reason: StopReason) -> None:
        """End the run for *reason*, when its work has stopped or after the grace time; twice is once."""
        if self.state in (RunState.ENDING, RunState.ENDED):
            return
        if self.task is None:
            self._end(reason)
            return
        self._enter(RunState.ENDING)
        self.stop_reason = reason
        self.questions.shut()
        self.task.cancel()
        self.deadlines.start_grace(self.host.limits.grace_seconds, self.abandon)

    def leave(self) -> None:
        """Stop without an end: the run stays in the log as started, and runs again at the next start."""
        if not self.ended:
            self._enter(RunState.ENDED)
        self.speech.close()
        self.deadlines.clear()
        self.questions.leave()
        if self.task is not None:
            self.task.cancel()
        elif self._place is not None:
            self._place.release()

    def abandon(self) -> None:
        """End a run that was stopped without its work; nothing where it has ended, or was not stopped."""
        if self.state is not RunState.ENDING:
            return
        log.warning("agent ignores its cancel; its later output is dropped", agent=self.record.agentId, run=self.id)
        assert self.stop_reason is not None
        assert self.agent is not None and self.task is not None and self._place is not None
        self._end(self.stop_reason)
        if self.agent.work is None:
            # A thread goes on whatever its task does: it keeps its place, and is waited for.
            self._place.give_back()
            self.task.cancel()  # it may have swallowed one, and heed another

    # --- the work ---------------------------------------------------------------------------------------------------

    async def _work(self, agent: Agent) -> None:
        # In one piece, though it is long: a token wakes each coroutine that is between the task and the agent.
        limits, speech, deadlines, since = self.host.limits, self.speech, self.deadlines, 0.0
        try:
            past = await self.owner.history(self) if agent.remembers else ()
        except HubError as error:  # the log's fault, not the agent's
            wait = error.about.get("retryAfterMs", 1000)
            self._refused = AgentError(error.message, error.code, retryable=True, retry_after_ms=wait)
            return
        run = view(self, past)
        running_agent.set(agent.id)
        time = asyncio.get_running_loop().time
        try:
            async with aclosing(cast(Any, pieces(agent, run))) as given:
                async for piece in given:
                    if self.questions.open:
                        await self.questions.settled()
                    deadlines.heard = now = time()
                    try:
                        speech.say(piece) if type(piece) is str else await speech.take(piece)
                    except AgentError as refused:
                        self._refused = explain(agent, refused, given)
                        return
                    if speech.closed:  # the run has ended without it: no more is taken
                        return
                    if speech.pending > limits.pending_bytes:
                        await speech.until_room()
                    elif now - since > SLICE_SECONDS:
                        if not speech.turned:
                            await asyncio.sleep(0)
                        since, speech.turned = now, False
        except (SystemExit, KeyboardInterrupt) as exit:  # asyncio would let these end the hub
            raise RuntimeError(repr(exit)).with_traceback(exit.__traceback__) from None

    def _questions_changed(self) -> None:
        self.deadlines.note()
        self.owner.questions_changed()

    # --- the end ----------------------------------------------------------------------------------------------------

    def _worked(self, task: asyncio.Task[None]) -> None:
        assert self.agent is not None and self._place is not None
        self._place.release()
        error = None if task.cancelled() else task.exception()
        if self.ended:
            return
        if self.stop_reason is not None:
            self._end(self.stop_reason)
        elif self._refused is not None:
            self._end("error", self._refused)
        elif error is not None:
            self._end("error", explain(self.agent, error))
        elif task.cancelled():
            self._end("error", explain(self.agent, AgentError(f"agent {self.agent.id} cancelled itself")))
        else:
            self._end(self.speech.finish.reason)

    def fail(self, error: HubError | AgentError) -> None:
        """End a run that could not start."""
        self._end("error", AgentError(error.message, error.code))

    def _end(self, reason: StopReason, error: AgentError | None = None) -> None:
        self._enter(RunState.ENDED)
        last_id = self.speech.end()
        self.deadlines.clear()
        if self.task is None and self._place is not None:
            self._place.release()
        agent, items = self.record.agentId, []
        if error is not None:
            said = RunError(error.code, error.message, error.retryable, error.retry_after_ms)
            items.append(Item(agent, self.id, said))
        end = Item(agent, self.id, RunFinished(last_id, reason, self.speech.finish.usage))
        end.messages, end.ended = tuple(self.speech.texts), (self.id,)
        end.landed = lambda _: self.owner.over(self)
        items.append(end)
        self.questions.close(lambda closing: self.owner.outbox.put(*closing, *items))

"""One run: call the agent, stop it, and log exactly one end."""

import asyncio
from contextlib import aclosing
from typing import Any, cast

import attrs

from hub.access.records import UsageRecord
from hub.days import to_day
from hub.errors import AgentError, HubError
from hub.hosting.agent_task import AgentTask
from hub.hosting.call_recorder import CallRecorder
from hub.hosting.call_reporter import CallReporter
from hub.hosting.hosted import Agent
from hub.hosting.output import call_agent
from hub.ids import id_of, tenant_of
from hub.limits import Limits
from hub.messages import Fault, RunError, RunFinished, StopReason
from hub.sessions.answer_writer import AnswerWriter
from hub.sessions.hosts import RunOwner, RunPlace, SessionHost
from hub.sessions.pending import PendingEvent
from hub.sessions.questions import Questions
from hub.sessions.run_observer import RunObserver
from hub.sessions.run_states import STATE_EDGES, RunState
from hub.sessions.usage import count_agent_tokens, count_run_tokens, make_usage
from hub.sessions.view import make_view
from hub.storage.records import RunRecord

SLICE_SECONDS = 0.005  # if an agent streams without waiting, other tasks run after this time


def make_recorder(record: RunRecord, limits: Limits) -> CallRecorder:
    """Return a recorder for the tool calls of a run."""
    names = record.request.tool_names if record.request is not None else frozenset[str]()
    return CallRecorder(client_tools=names, max_bytes=limits.content_bytes)


@attrs.define(eq=False, repr=False, kw_only=True)
class ActiveRun:
    """One answer of one agent to one message. All methods are called in the loop.

        QUEUED ------ start(): `run_started` goes to the log ----------------> STARTING
        QUEUED ------ stop(), fail(), suspend() -----------------------------> ENDED
        STARTING ---- run_agent(): the log holds `run_started` --------------> RUNNING
        STARTING ---- stop(), suspend() -------------------------------------> ENDED
        RUNNING ----- stop(): the agent's code is cancelled -----------------> ENDING
        RUNNING ----- the code has ended; suspend() -------------------------> ENDED
        ENDING ------ the code has ended; the grace time is over; suspend() -> ENDED

    A run in ENDED writes nothing more: its end is on its way to the log, or suspend() left the run to the next start of
    the hub. The agent's code may still run if it ignores the cancellation. A run of an earlier process begins in
    QUEUED, too.

    *agent* may be None before start(), in a run of an earlier process. *stop_reason* is None unless the run has entered
    ENDING. *place* is None while sign-in is off. *usage* is what the end of the run adds to the usage of its principal.
    """

    record: RunRecord
    agent: Agent | None
    host: SessionHost
    owner: RunOwner
    state: RunState = RunState.QUEUED
    stop_reason: StopReason | None = None
    place: RunPlace | None = None
    usage: tuple[UsageRecord, ...] = ()
    observer: RunObserver = attrs.field(init=False)
    questions: Questions = attrs.field(init=False)
    writer: AnswerWriter = attrs.field(init=False)
    _agent_task: AgentTask | None = None
    _output_error: AgentError | None = None

    def __attrs_post_init__(self) -> None:
        record, host, owner = self.record, self.host, self.owner
        self.observer = RunObserver(record, host.counters.answers, host.tracing)
        self.writer = AnswerWriter(
            agent_id=record.agentId,
            run_id=record.runId,
            user_message_id=record.userMessageId,
            message_id=record.messageId,
            outbox=owner.outbox,
            limits=host.limits,
            file_access=owner.file_access,
            new_id=host.seams.new_id,
            calls=make_recorder(record, host.limits),
            on_first_output=self.observer.note_first_output,
            on_event=self.observer.note_event if host.tracing is not None else None,
        )
        self.questions = Questions(
            agent=record.agentId,
            run=record.runId,
            outbox=owner.outbox,
            limits=host.limits,
            end_stream=self.writer.end_stream,
            on_change=self._on_questions_change,
        )

    @property
    def id(self) -> str:
        return self.record.runId

    @property
    def has_ended(self) -> bool:
        return self.state is RunState.ENDED

    @property
    def agent_task(self) -> AgentTask:
        """The task of the agent's code. Use it only after start()."""
        assert self._agent_task is not None
        return self._agent_task

    @property
    def message_ids(self) -> tuple[str, ...]:
        """The id of the first message, and the ids of all finished messages."""
        return (self.record.messageId, *(message.messageId for message in self.writer.messages))

    # --- start and stop ---------------------------------------------------------------------------------------------

    def _enter(self, state: RunState) -> None:
        """Change the state. Every change of the state is made here."""
        assert state in STATE_EDGES[self.state], f"a run cannot go from {self.state} to {state}"
        self.state = state

    def start(self) -> None:
        """Take a slot of the agent. The AgentTask releases the slot."""
        assert self.agent is not None
        self._enter(RunState.STARTING)
        self._agent_task = AgentTask(
            slot=self.host.slots.take(self.agent),
            ids={"session": id_of(self.record.key), "run": self.id, "agent": self.agent.id},
            limits=self.host.limits,
            stop=self.stop,
            # While the agent waits for people or for the log, its silence does not count.
            is_excused=lambda: bool(self.questions.open_by_id or self.writer.pending_bytes),
            on_end=self._on_code_end,
            on_abandon=self._on_abandon,
            reporter=CallReporter(run_id=self.id, write=self.writer.write_call),
        )

    def run_agent(self) -> None:
        """Call the agent's code, after the log holds `run_started`."""
        if self.state is not RunState.STARTING:  # the run was stopped or suspended during the commit
            return
        self._enter(RunState.RUNNING)
        span = self.observer.note_call()
        self.agent_task.start(self._run_code(self.agent_task), span)

    def stop(self, reason: StopReason) -> None:
        """End the run for *reason*: at once if its code does not run, else when the code or the grace time has ended.

        A second call does nothing.
        """
        if self.state in (RunState.ENDING, RunState.ENDED):
            return
        if self.state is not RunState.RUNNING:
            self._end(reason)
            return
        self._enter(RunState.ENDING)
        self.stop_reason = reason
        self.questions.stop_accepting()
        self.agent_task.cancel()

    def suspend(self) -> None:
        """Stop the run without logging an end. If the log holds the run, the next start of the hub recovers it."""
        if not self.has_ended:
            self._enter(RunState.ENDED)
            self.observer.note_suspension()
        self.writer.close()
        self.questions.discard()
        if self._agent_task is not None:
            self._agent_task.cancel()

    def abandon(self) -> None:
        """End a stopped run now, although its code still runs. Do nothing if the run is not in ENDING."""
        if self.state is RunState.ENDING:
            self.agent_task.abandon()

    # --- the agent's code -------------------------------------------------------------------------------------------

    async def _run_code(self, agent_task: AgentTask) -> None:
        # One long function: for each token asyncio resumes every coroutine between the task and the agent, so each
        # further coroutine would cost time.
        agent, deadlines = agent_task.agent, agent_task.deadlines
        limits, writer, slice_start = self.host.limits, self.writer, 0.0
        try:
            past = await self.owner.read_history(self) if agent.needs_history else ()
        except HubError as error:  # the log failed, not the agent
            retry_ms = error.fields.get("retryAfterMs", 1000)
            self._output_error = AgentError(error.message, error.code, retryable=True, retry_after_ms=retry_ms)
            return
        run = make_view(self, past)
        time = asyncio.get_running_loop().time
        try:
            async with aclosing(cast(Any, call_agent(agent, run))) as outputs:
                async for output in outputs:
                    if self.questions.open_by_id:
                        await self.questions.wait_for_answers()
                    deadlines.last_output = now = time()
                    try:
                        writer.write_text(output) if type(output) is str else await writer.write(output)
                    except AgentError as error:
                        self._output_error = agent_task.log_and_convert(error, outputs)
                        return
                    if writer.is_closed:  # the run has ended: drop the rest of the output
                        return
                    if writer.pending_bytes > limits.pending_bytes:
                        await writer.wait_for_capacity()
                    elif now - slice_start > SLICE_SECONDS:
                        if not writer.has_yielded:
                            await asyncio.sleep(0)
                        slice_start, writer.has_yielded = now, False
        except (SystemExit, KeyboardInterrupt) as error:  # in asyncio these would end the hub
            raise RuntimeError(repr(error)).with_traceback(error.__traceback__) from None

    def _on_questions_change(self) -> None:
        if self._agent_task is not None:
            self._agent_task.deadlines.note_output()
        self.owner.on_questions_change()

    # --- end --------------------------------------------------------------------------------------------------------

    def _on_code_end(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if self.has_ended:
            return
        if self.stop_reason is not None:
            self._end(self.stop_reason)
        elif self._output_error is not None:
            self._end("error", self._output_error)
        elif error is not None:
            self._end("error", self.agent_task.log_and_convert(error))
        elif task.cancelled():
            self._end(
                "error", self.agent_task.log_and_convert(AgentError(f"agent {self.record.agentId} cancelled itself"))
            )
        else:
            self._end(self.writer.calls.choose_reason(self.writer.finish.reason))

    def _on_abandon(self) -> None:
        if not self.has_ended:
            assert self.stop_reason is not None
            self._end(self.stop_reason)

    def fail(self, error: HubError | AgentError) -> None:
        """End a queued run that cannot start."""
        self._end("error", AgentError(error.message, error.code))

    def _end(self, reason: StopReason, error: AgentError | None = None) -> None:
        has_started = self.state is not RunState.QUEUED
        self._enter(RunState.ENDED)
        last_id = self.writer.end()
        self.observer.note_end(reason, error, self.writer)
        if self._agent_task is not None and self._agent_task.task is None:
            self._agent_task.cancel()
        agent, events = self.record.agentId, []
        if error is not None:
            body = RunError(error.code, error.message, error.retryable, error.retry_after_ms)
            events.append(PendingEvent(agent, self.id, body))
        end = PendingEvent(agent, self.id, RunFinished(last_id, reason, self.writer.finish.usage))
        fault = None if error is None else Fault(error.code, error.message)
        # A run that is cancelled in the queue adds no answer to the history.
        end.messages = () if reason == "cancelled" and not has_started else self.writer.make_history(reason, fault)
        end.ended_runs = (self.id,)
        end.usage = self.usage = self._count_usage()
        end.on_result = lambda _: self.owner.on_run_end(self)
        events.append(end)
        self.questions.close(lambda closing_events: self.owner.outbox.put(*closing_events, *events))

    def _count_usage(self) -> tuple[UsageRecord, ...]:
        """Count the tokens of the run, and return the usage of its principal: nothing while sign-in is off."""
        texts = [message.content for message in self.writer.messages]
        calls = self._agent_task.meters.count() if self._agent_task is not None else {}
        tool_calls = self.writer.calls.list_open_calls()
        counts = count_run_tokens(self.record, texts, tool_calls, self.writer.finish.usage, calls)
        count_agent_tokens(self.host.counters.answers, counts)
        if self.place is None:
            return ()
        record = self.record
        day = to_day(self.host.seams.now())
        return make_usage(day, tenant_of(record.key), record.author.id, record.agentId, counts)

    def take_place(self, place: RunPlace | None) -> None:
        """Hold a place in the quotas until close_place()."""
        self.place = place
        if place is not None:
            place.is_used = True

    def close_place(self) -> None:
        """Give the place in the quotas back, after the log has the end of the run or has refused its chat."""
        if self.place is not None:
            self.place.close(self.usage)

"""Run answers outside of a session, such as the answers to `run.call`. Only the caller gets the text."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import attrs

from hub.errors import AgentError, HubError
from hub.hosting.agent_task import AgentTask
from hub.hosting.call_ids import CallIds
from hub.hosting.call_recorder import CallRecorder
from hub.hosting.call_reporter import CallReporter, report_call
from hub.hosting.contract import Call, Finish, Message, Reply, Run
from hub.hosting.faults import bad_output_error, clean_error, encode_text, too_long_error
from hub.hosting.metering import AnswerMeters, Meter, count_call_bytes, count_input_bytes
from hub.hosting.output import AGENT_EVENTS, call_agent, check_size, copy_event
from hub.hosting.slots import Slot
from hub.limits import Limits
from hub.messages import FINISH_REASONS, Body, Interrupt, StopReason, ToolCallResult
from hub.messages.requests import EMPTY_REQUEST

if TYPE_CHECKING:
    from hub.observe.otel import AnswerSpan

STOP_TEXTS: dict[StopReason, str] = {
    "aborted": "the hub is stopping",
    "cancelled": "the credential of the request is no longer valid",
}
STOP_REASONS: tuple[StopReason, ...] = ("aborted", "cancelled", "timeout")  # with which stop() is called
AnswerOutput = str | Finish | Body
MAX_UNREAD = 16  # outputs; at this number the agent's code waits for its reader (backpressure)


def make_call_function(caller: AgentTask) -> Callable[[Run, str, str], Call]:
    """Return the function behind `run.call` for the code that *caller* runs."""
    return lambda run, agent_id, message: Call(_stream_texts(caller, run, agent_id, message))


async def _stream_texts(caller: AgentTask, run: Run, agent_id: str, message: str) -> AsyncGenerator[str, None]:
    caller.check_can_call()
    try:
        slot = await caller.slot.slots.acquire(agent_id, caller.slot)
    except HubError as error:
        raise AgentError(error.message, error.code) from None
    if not caller.slot.is_used:  # the calling answer ended during the wait
        slot.release()
    caller.check_can_call()
    # The called agent uses the questions and files of the caller's run.
    run = attrs.evolve(run, agent=agent_id, message=message, history=(), parts=(), metadata={}, request=EMPTY_REQUEST)
    span = None
    if caller.span is not None:
        span = caller.span.start_call({**caller.ids, "agent": agent_id}, message)
    with report_call(caller.reporter, agent_id) as reporter:
        async with open_answer(slot, caller.limits, run, caller, span=span, reporter=reporter) as reader:
            async for output in reader:
                if isinstance(output, str):
                    yield output


@asynccontextmanager
async def open_answer(
    slot: Slot,
    limits: Limits,
    run: Run,
    caller: AgentTask | None = None,
    *,
    span: "AnswerSpan | None" = None,
    reporter: CallReporter | None = None,
    with_events: bool = False,
) -> AsyncIterator["OutputReader"]:
    """Run an agent in *slot*, and yield an OutputReader over its output. When the agent's code ends, the slot is free.

    *span* ends then, too; it is None while `otel` is off. *reporter* reports the calls of the agent's code.
    The iteration raises AgentError if the agent fails, with the error code `timeout` if it reaches a time limit.
    With *with_events*, the iteration also yields the agent's events. Leaving the context cancels the agent, and waits
    until its code has ended or the grace time is over.
    """
    reader = OutputReader(
        run=run,
        meter=Meter(run.agent, count_input_bytes(run.message, run.parts)),
        calls=CallRecorder(client_tools=run.request.tool_names, max_bytes=0),
        with_events=with_events,
        span=span,
    )
    meters = AnswerMeters() if caller is None else caller.meters
    reader.agent_task = agent_task = AgentTask(
        slot=slot,
        ids={"session": run.session, "run": run.id, "agent": run.agent},
        limits=limits,
        stop=reader.stop,
        is_excused=reader.is_excused,
        on_end=reader.on_end,
        on_abandon=reader.close,
        depth=caller.depth + 1 if caller is not None else 0,
        meters=meters,
        reporter=reporter,
    )
    calls = caller.calls if caller is not None else set()
    calls.add(agent_task)
    with meters.measure(reader.meter):
        agent_task.start(reader.run_code(), span)
        try:
            yield reader
        finally:
            agent_task.cancel()
            calls.discard(agent_task)
            await reader.has_ended.wait()


@attrs.define(eq=False, repr=False, kw_only=True)
class OutputReader:
    """An iterator over the texts of an agent's code, and its events if *with_events* is set. A Finish is the last item.

    The code waits while MAX_UNREAD outputs are unread. *has_ended* is set when the code has ended, or was abandoned.
    *calls* are the tool calls of the answer.
    """

    run: Run
    meter: Meter
    calls: CallRecorder
    with_events: bool
    span: "AnswerSpan | None" = None
    finish: Finish = Finish()
    agent_task: AgentTask = attrs.field(init=False)
    has_ended: asyncio.Event = attrs.Factory(asyncio.Event)
    _unread: deque[AnswerOutput] = attrs.Factory(deque)
    _has_output: asyncio.Event = attrs.Factory(asyncio.Event)
    _has_capacity: asyncio.Event = attrs.Factory(asyncio.Event)
    _open_questions: int = 0
    _total_bytes: int = 0
    _call_ids: CallIds = attrs.Factory(CallIds)
    _error: BaseException | None = None

    def __attrs_post_init__(self) -> None:
        self._has_capacity.set()

    def __aiter__(self) -> "OutputReader":
        return self

    async def __anext__(self) -> AnswerOutput:
        while not self._unread:
            if self.has_ended.is_set():
                raise self._error or StopAsyncIteration
            self._has_output.clear()
            await self._has_output.wait()
        output = self._unread.popleft()
        if not self._has_capacity.is_set():
            self.agent_task.deadlines.note_output()  # the agent was silent because the reader was slow
            self._has_capacity.set()
        return output

    # --- in the task of the code ------------------------------------------------------------------------------------

    async def run_code(self) -> None:
        """Run the agent's code, and queue its texts and events, and a Finish."""
        agent, deadlines = self.agent_task.agent, self.agent_task.deadlines
        run = attrs.evolve(self.run, call=make_call_function(self.agent_task), ask=self._ask)
        try:
            async with aclosing(cast(Any, call_agent(agent, run))) as outputs:
                async for output in outputs:
                    if self.has_ended.is_set():  # the code was abandoned: drop its further output
                        return
                    deadlines.note_output()
                    text = output.content if isinstance(output, Message) else output
                    if isinstance(text, str):
                        await self._queue_text(text)
                    elif isinstance(text, Finish):
                        self.finish, self.meter.usage = text, text.usage
                    elif type(output) in AGENT_EVENTS and self.with_events:
                        await self._queue_event(output)
                    elif type(output) in AGENT_EVENTS or output is None:
                        if self.span is not None:
                            self.span.note_event(output)
                        await asyncio.sleep(0)  # an agent that yields no text must not block the loop
                    else:
                        raise bad_output_error(agent.id, output)
            self.meter.output_bytes += count_call_bytes(self.calls.list_open_calls())
            await self._queue(attrs.evolve(self.finish, reason=self.calls.choose_reason(self.finish.reason)))
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # the last two would end the hub
            if isinstance(error, AgentError) and self.agent_task.depth:
                raise clean_error(error) from error  # the caller may handle it; the hub logs what the caller raises
            raise self.agent_task.log_and_convert(error) from error

    async def _queue_text(self, text: str) -> None:
        size = len(text) if text.isascii() else len(encode_text(self.run.agent, text))
        self.meter.output_bytes += size
        self._count_bytes(size)
        if self.span is not None:
            self.span.note_text(text)
        await self._queue(text)

    async def _queue_event(self, event: Body) -> None:
        body, size = copy_event(self.run.agent, event)
        self._count_bytes(size)
        if not isinstance(body, ToolCallResult):
            check_size(self.run.agent, size, body.type, self.agent_task.limits.content_bytes)
        body = self._call_ids.rename(body)
        self.calls.add(body, "")
        if self.span is not None:
            self.span.note_event(body)
        await self._queue(body)

    def _count_bytes(self, size: int) -> None:
        self._total_bytes += size
        if self._total_bytes > (limit := self.agent_task.limits.run_bytes):
            raise too_long_error(self.run.agent, limit)

    async def _queue(self, output: AnswerOutput) -> None:
        self._unread.append(output)
        self._has_output.set()
        if len(self._unread) >= MAX_UNREAD:
            self._has_capacity.clear()
            await self._has_capacity.wait()

    async def _ask(self, question: Interrupt) -> Reply:
        self._open_questions += 1
        try:
            return await self.run._ask(question)
        finally:
            self._open_questions -= 1
            self.agent_task.deadlines.note_output()

    # --- callbacks of AgentTask ---------------------------------------------------------------------------------------

    def is_excused(self) -> bool:
        """Return whether the agent waits for its reader, or for a reply to a question."""
        return bool(self._open_questions) or not self._has_capacity.is_set()

    def stop(self, reason: StopReason) -> None:
        """Cancel the agent's code. The iteration then raises an AgentError whose `code` is *reason*.

        A second call does nothing.
        """
        if self._error is None and not self.has_ended.is_set():
            text = STOP_TEXTS.get(reason, "it reached its time limit or its silence limit")
            self._error = AgentError(f"agent {self.run.agent} was stopped: {text}", reason, retryable=True)
            self.agent_task.cancel()

    def on_end(self, task: asyncio.Task[None]) -> None:
        """End the iteration, with an error if stop() was called, or if the code failed or cancelled itself."""
        error: BaseException | None = None if task.cancelled() else task.exception()
        if task.cancelled() and not self.agent_task.is_cancelled:
            error = self.agent_task.log_and_convert(AgentError(f"agent {self.run.agent} cancelled itself"))
        self._error = self._error or error
        self.close()

    def close(self) -> None:
        """End the iteration after the unread outputs."""
        self.has_ended.set()
        self._has_output.set()
        if self.span is not None:
            self._end_span(self.span)

    def _end_span(self, span: "AnswerSpan") -> None:
        """End the span as a run of a session would end."""
        code = getattr(self._error, "code", "agent_error") if self._error is not None else None
        if code is not None:
            reason = code if code in STOP_REASONS else "error"
        elif self.agent_task.is_cancelled:
            reason = "cancelled"
        else:
            chosen_reason = self.calls.choose_reason(self.finish.reason)
            reason = next((reason for reason in FINISH_REASONS if reason == chosen_reason), "end_turn")
        span.end(reason, code, self.finish.usage)

"""Make a span for each tool call of an answer."""

from collections.abc import Callable
from time import time_ns
from typing import Any

import attrs
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer

from hub.messages import ToolCallArgs, ToolCallEnd, ToolCallResult, ToolCallStart
from hub.observe import gen_ai
from hub.observe.span_values import BoundedText, clean_name, clean_text

MAX_TOOLS = 128  # spans of tools for one answer: an agent may yield any number of calls


@attrs.define(eq=False)
class _OpenCall:
    """A tool call without a result. *end_time* is the time (ns) at which its arguments were complete."""

    span: Span
    arguments: BoundedText = attrs.Factory(BoundedText)
    end_time: int | None = None


@attrs.define(eq=False, repr=False, kw_only=True)
class ToolSpans:
    """The spans of the tool calls of one answer, children of *context*. *left_out* counts the calls without a span.

    A span ends with the result of its call. A call without a result ends with its arguments, because the client or
    nobody executes it.
    """

    tracer: Tracer
    context: Context
    has_content: bool
    left_out: int = 0
    _count: int = 0
    _open_calls: dict[str, _OpenCall] = attrs.Factory(dict)

    def note(self, event: object) -> None:
        """Start or end a span if *event* is about a tool call. Its fields may have wrong types."""
        handle = TOOL_HANDLERS.get(type(event))
        if handle is not None and isinstance(getattr(event, "toolCallId", None), str):
            handle(self, event)

    def close(self) -> None:
        """End the open spans."""
        for call in self._open_calls.values():
            self._end(call)
        self._open_calls.clear()

    def start(self, event: ToolCallStart) -> None:
        """Start a span. A second call with the same id has none while the first one is open."""
        if event.toolCallId in self._open_calls or self._count >= MAX_TOOLS:
            self.left_out += 1
            return
        self._count += 1
        name, call_id = clean_name(event.toolCallName), clean_name(event.toolCallId)
        values = {gen_ai.TOOL_NAME: name, gen_ai.TOOL_CALL_ID: call_id}
        attributes = {gen_ai.OPERATION_NAME: gen_ai.EXECUTE_TOOL} | {key: text for key, text in values.items() if text}
        span_name = f"{gen_ai.EXECUTE_TOOL} {name}".rstrip()
        span = self.tracer.start_span(span_name, self.context, SpanKind.INTERNAL, attributes)
        self._open_calls[event.toolCallId] = _OpenCall(span)

    def add_arguments(self, event: ToolCallArgs) -> None:
        call = self._open_calls.get(event.toolCallId)
        if self.has_content and call is not None and isinstance(event.delta, str):
            call.arguments.add(event.delta)

    def note_end(self, event: ToolCallEnd) -> None:
        call = self._open_calls.get(event.toolCallId)
        if call is not None:
            call.end_time = time_ns()

    def finish(self, event: ToolCallResult) -> None:
        call = self._open_calls.pop(event.toolCallId, None)
        if call is None:
            return
        call.end_time = None
        if self.has_content and isinstance(event.content, str):
            call.span.set_attribute(gen_ai.TOOL_RESULT, clean_text(event.content))
        if event.isError is True:
            call.span.set_attribute(gen_ai.ERROR_TYPE, "tool_error")
            call.span.set_status(StatusCode.ERROR)
        self._end(call)

    def _end(self, call: _OpenCall) -> None:
        if self.has_content:
            call.span.set_attribute(gen_ai.TOOL_ARGUMENTS, call.arguments.join())
        call.span.end(call.end_time)


TOOL_HANDLERS: dict[type[object], Callable[[ToolSpans, Any], None]] = {
    ToolCallStart: ToolSpans.start,
    ToolCallArgs: ToolSpans.add_arguments,
    ToolCallEnd: ToolSpans.note_end,
    ToolCallResult: ToolSpans.finish,
}

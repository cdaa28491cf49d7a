"""Call the span processors of OpenTelemetry's SDK so that a broken one does no harm."""

from collections.abc import Callable
from time import monotonic

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, SynchronousMultiSpanProcessor

from hub.observe.rare_log import RareLog

FAILURE_LOG_SECONDS = 60.0


class GuardedProcessors(SynchronousMultiSpanProcessor):
    """The processor of the hub, and those that the packages of agents add to the process's provider.

    The SDK lets their errors through, to code that starts or ends a run. Here an error costs a rare line.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._log = RareLog(FAILURE_LOG_SECONDS)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._call_each(lambda processor: processor.on_start(span, parent_context=parent_context))

    def _on_ending(self, span: Span) -> None:
        self._call_each(lambda processor: processor._on_ending(span))

    def on_end(self, span: ReadableSpan) -> None:
        self._call_each(lambda processor: processor.on_end(span))

    def _call_each(self, call: Callable[[SpanProcessor], None]) -> None:
        for processor in self._span_processors:
            try:
                call(processor)
            except Exception as error:
                name, kind = type(processor).__qualname__, type(error).__name__
                self._log.warn(monotonic(), "a span processor failed", processor=name, error=kind)

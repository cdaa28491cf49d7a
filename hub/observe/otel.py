"""Make spans with the SDK of OpenTelemetry, and send them over HTTP (OTLP). Imported only while `otel` is on.

OpenTelemetry's own variables set the address, the headers, the sampler and the queue. The SDK sends from a thread of
its own. If its queue is full, it drops spans: nothing waits for a collector.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import attrs
import orjson
import structlog
from opentelemetry import context as current_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from hub.messages import Usage
from hub.observe import gen_ai
from hub.observe.rare_log import RareLog
from hub.observe.span_processors import GuardedProcessors
from hub.observe.span_values import BoundedText, clean_name, clean_text
from hub.observe.tool_spans import ToolSpans
from hub.observe.tracing import TraceOrigin, answer_span
from hub.settings import ConfigError

FLUSH_SECONDS = 1.0  # the longest wait for the collector when the hub stops
SENDING_LOG_SECONDS = 60.0
# These loggers repeat a record for each batch. A record may have the collector's address with its credentials.
SENDING_LOGGERS = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.trace.export",
)
HEADER_LOGGER = "opentelemetry.util.re"
PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROPAGATOR = TraceContextTextMapPropagator()
FAILURES = ("error", "timeout", "aborted")

log = structlog.get_logger()


def start_tracing(version: str, has_content: bool) -> "Tracing":
    """Start the thread that sends spans. Raises ConfigError if a variable of OpenTelemetry is wrong."""
    endpoint = _check_variables()
    header_filter = _HeaderFilter()
    logging.getLogger(HEADER_LOGGER).filters = [header_filter]
    try:
        exporter = OTLPSpanExporter()
        # The SDK would flush at the exit of the interpreter, for half a minute if the collector is dead.
        provider = TracerProvider(
            resource=_make_resource(version), shutdown_on_exit=False, active_span_processor=GuardedProcessors()
        )
        provider.add_span_processor(BatchSpanProcessor(exporter))
    except (ValueError, OSError) as error:  # such as a file of certificates that cannot be read
        raise ConfigError(f"a variable OTEL_... of OpenTelemetry is wrong: {error}") from None
    if header_filter.has_records:
        raise ConfigError("OTEL_EXPORTER_OTLP_HEADERS is wrong: write NAME=VALUE, with commas between several headers")
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(provider)  # for the spans of agents
    sending_filter = _SendingFilter(endpoint)
    for name in SENDING_LOGGERS:
        logging.getLogger(name).filters = [sending_filter]
    log.info("traces are sent", endpoint=endpoint, content=has_content)
    tracer = provider.get_tracer("hubbub", version)
    return Tracing(provider=provider, exporter=exporter, tracer=tracer, has_content=has_content)


def _check_variables() -> str:
    """Return the address of the collector, without credentials. Raises ConfigError."""
    for name in PROTOCOL_VARIABLES:
        if (value := os.environ.get(name, "").strip()) not in ("", "http/protobuf"):
            raise ConfigError(
                f"{name} is {value}, but the hub sends traces as http/protobuf: set {name} to that, and use the "
                "collector's port for HTTP, often 4318"
            )
    name = next((name for name in ENDPOINT_VARIABLES if os.environ.get(name)), "")
    url = urlsplit(os.environ[name] if name else "http://localhost:4318")
    host = url.netloc.rpartition("@")[2]
    if url.scheme not in ("http", "https") or not host:
        raise ConfigError(f"{name} must be an address such as http://localhost:4318")
    return f"{url.scheme}://{host}{url.path}"


def _make_resource(version: str) -> Resource:
    """Return the description of this service. OpenTelemetry's variables come first."""
    resource = Resource({"service.version": version}).merge(Resource.create())
    # The name that the SDK uses if no variable is set.
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "hubbub"}))
    return resource


class _HeaderFilter(logging.Filter):
    """Drops the records of the SDK about malformed headers: they have the whole header, often a key."""

    has_records = False

    def filter(self, record: logging.LogRecord) -> bool:
        self.has_records = True
        return False


class _SendingFilter(logging.Filter):
    """Replaces the records of the SDK about failures with a rare line of the hub."""

    def __init__(self, endpoint: str) -> None:
        super().__init__()
        self._endpoint, self._log = endpoint, RareLog(SENDING_LOG_SECONDS)

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop the record. Any thread may call this."""
        if record.levelno >= logging.ERROR or "Queue full" in str(record.msg):
            hint = "check that the collector runs, and that OTEL_EXPORTER_OTLP_ENDPOINT is its address"
            self._log.warn(monotonic(), "traces not sent", endpoint=self._endpoint, hint=hint)
        return False


@attrs.define(eq=False, repr=False, kw_only=True)
class Tracing:
    """Makes the spans of a hub. If *has_content* is False, no span has text of a message, an answer or a tool."""

    provider: TracerProvider
    exporter: OTLPSpanExporter
    tracer: trace.Tracer
    has_content: bool

    def start_run(
        self, ids: Mapping[str, str], message: object, origin: TraceOrigin | None, **attributes: str | float
    ) -> "AnswerSpan":
        """Start the span of a run. *ids* are those of log lines; a run outside a session has none for `session`."""
        parent, links = _read_origin(origin)
        return self.start_answer(ids, message, parent, links, attributes)

    def start_answer(
        self,
        ids: Mapping[str, str],
        message: object,
        parent: Context,
        links: Sequence[Link] = (),
        attributes: Mapping[str, str | float] = {},
    ) -> "AnswerSpan":
        """Start the span of a run, or of an answer that another answer called."""
        agent = ids["agent"]
        all_attributes: dict[str, Any] = {
            gen_ai.OPERATION_NAME: gen_ai.INVOKE_AGENT,
            gen_ai.AGENT_ID: agent,
            gen_ai.AGENT_NAME: agent,
            gen_ai.RUN_ID: ids["run"],
            **attributes,
        }
        if "session" in ids:
            all_attributes[gen_ai.CONVERSATION_ID] = ids["session"]
        if self.has_content and isinstance(message, str):
            all_attributes[gen_ai.INPUT_MESSAGES] = _format_message("user", clean_text(message))
        span = self.tracer.start_span(
            f"{gen_ai.INVOKE_AGENT} {agent}", parent, SpanKind.INTERNAL, all_attributes, links
        )
        context = trace.set_span_in_context(span, parent)
        tools = ToolSpans(tracer=self.tracer, context=context, has_content=self.has_content)
        return AnswerSpan(tracing=self, span=span, context=context, tools=tools)

    async def close(self) -> None:
        """Send the spans that wait, for at most FLUSH_SECONDS. Spans that end later are dropped."""
        loop, is_flushed = asyncio.get_running_loop(), asyncio.Event()

        def flush() -> None:
            self.provider.shutdown()
            with suppress(RuntimeError):  # the loop is closed: the hub did not wait
                loop.call_soon_threadsafe(is_flushed.set)

        threading.Thread(target=flush, name="hub-traces", daemon=True).start()
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await is_flushed.wait()
        except TimeoutError:
            self.exporter.shutdown()  # type: ignore[no-untyped-call]  # no further try


@attrs.define(eq=False, repr=False, kw_only=True)
class AnswerSpan:
    """The span of a run, or of an answer that another answer called. *context* has it as the current span."""

    tracing: Tracing
    span: Span
    context: Context
    tools: ToolSpans
    _text: BoundedText = attrs.Factory(BoundedText)
    _has_ended: bool = False

    def enter(self) -> None:
        """Make this the current span of the calling context, for the hub and for code that uses OpenTelemetry."""
        answer_span.set(self)
        current_context.attach(self.context)

    def start_call(self, ids: Mapping[str, str], message: object) -> "AnswerSpan":
        """Start the span of an answer that the code of this answer calls."""
        return self.tracing.start_answer(ids, message, self._find_parent())

    def start_model_request(self, model: str, host: str | None, port: int | None) -> "ModelSpan":
        """Start the span of a request to a model."""
        parent = self._find_parent()
        attributes: dict[str, str | int] = {
            gen_ai.OPERATION_NAME: gen_ai.CHAT,
            gen_ai.PROVIDER_NAME: "openai",  # the form of the request, not who answers it
            gen_ai.REQUEST_MODEL: model,
            gen_ai.SERVER_ADDRESS: host or "",
            gen_ai.SERVER_PORT: port or 0,
        }
        span = self.tracing.tracer.start_span(f"{gen_ai.CHAT} {model}", parent, SpanKind.CLIENT, attributes)
        return ModelSpan(span, trace.set_span_in_context(span, parent))

    def _find_parent(self) -> Context:
        """Return the context for a child: the current one if it belongs to this trace.

        The code of an agent may have opened spans of its own. It may also run in a task that another run has created.
        """
        current = trace.get_current_span().get_span_context()
        is_own = current.trace_id == self.span.get_span_context().trace_id
        return current_context.get_current() if is_own else self.context

    def note_first_output(self, seconds: float) -> None:
        """Note that the clients have the first output, *seconds* after the call of the agent."""
        self.span.set_attribute(gen_ai.FIRST_OUTPUT_SECONDS, seconds)

    def note_text(self, text: str) -> None:
        """Note a text of the answer."""
        if self.tracing.has_content:
            self._text.add(text)

    def note_event(self, event: object) -> None:
        """Note an event that the agent yielded. Its fields may have wrong types."""
        self.tools.note(event)

    def end(self, reason: str, error_code: object = None, usage: object = None) -> None:
        """End the span, and the spans of its tools, for a stop reason. A second call does nothing."""
        if self._has_ended:
            return
        self._has_ended = True
        self.tools.close()
        span = self.span
        span.set_attributes(_count_tokens(usage))
        span.set_attribute(gen_ai.FINISH_REASONS_LIST, [reason])
        if self.tools.left_out:
            span.set_attribute(gen_ai.TOOLS_LEFT_OUT, self.tools.left_out)
        if self.tracing.has_content:
            span.set_attribute(gen_ai.OUTPUT_MESSAGES, _format_message("assistant", self._text.join(), reason))
        if reason in FAILURES:
            _fail(span, clean_name(error_code) or reason)
        span.end()


@attrs.define(eq=False, repr=False)
class ModelSpan:
    """The span of one request to a model."""

    span: Span
    context: Context
    _has_ended: bool = False

    def write_headers(self, headers: MutableMapping[str, str]) -> None:
        """Add the headers that name this span to those of a request."""
        PROPAGATOR.inject(headers, self.context)

    def note_finish(self, reason: str, usage: object) -> None:
        """Note that the model has ended its answer, and why."""
        self.span.set_attributes({gen_ai.FINISH_REASONS_LIST: [reason], **_count_tokens(usage)})

    def end(self, error_code: str | None = None) -> None:
        """End the span. A second call does nothing."""
        if self._has_ended:
            return
        self._has_ended = True
        if error_code is not None:
            _fail(self.span, clean_name(error_code) or "error")
        self.span.end()


def _read_origin(origin: TraceOrigin | None) -> tuple[Context, Sequence[Link]]:
    """Return the parent of a run and its links. The empty context makes a new trace, whatever is current here."""
    if origin is None:
        return Context(), ()
    headers = {"traceparent": origin.traceparent, "tracestate": origin.tracestate}
    context = PROPAGATOR.extract(headers, Context())
    if origin.is_parent:
        return context, ()
    return Context(), (Link(trace.get_current_span(context).get_span_context()),)


def _count_tokens(usage: object) -> dict[str, int]:
    """Return the attributes of the counts that are known. OTLP has integers of 64 bits; an agent may report others."""
    if not isinstance(usage, Usage):
        return {}
    counts = {gen_ai.INPUT_TOKENS: usage.inputTokens, gen_ai.OUTPUT_TOKENS: usage.outputTokens}
    return {name: count for name, count in counts.items() if type(count) is int and 0 <= count < 2**53}


def _format_message(role: str, text: str, reason: str | None = None) -> str:
    """Return a list of one message as JSON, in the form of OpenTelemetry's conventions."""
    message: dict[str, Any] = {"role": role, "parts": [{"type": "text", "content": text}]}
    if reason is not None:
        message["finish_reason"] = reason
    return orjson.dumps([message]).decode()


def _fail(span: Span, error_type: str) -> None:
    """Mark a span as failed. The text of an error is content, so it is left out."""
    span.set_attribute(gen_ai.ERROR_TYPE, error_type)
    span.set_status(StatusCode.ERROR)

"""Trace runs, without the packages of OpenTelemetry. While `otel` is off, a run costs nothing more.

hub.observe.otel has the other parts. Its spans are None while `otel` is off.
"""

import re
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

from hub.errors import AgentError
from hub.extras import make_install_command
from hub.settings import ConfigError, Settings

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

    from hub.observe.otel import AnswerSpan, ModelSpan, Tracing

# W3C Trace Context, section 3.2.2: later versions may have more fields; version ff and ids of zeros are invalid.
TRACEPARENT_PATTERN = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:(?<!00-.{52})-[\x21-\x7e]{0,200})?"
)
MAX_TRACESTATE_LENGTH = 512  # characters; section 3.3.1.5 asks for this much


class TraceOrigin(NamedTuple):
    """The trace of the request that asks for a run, as its headers name it.

    If *is_parent* is False, the run has a trace of its own with a link to the request.
    """

    traceparent: str
    tracestate: str = ""
    is_parent: bool = True


# The origin of the runs that this context creates. It is set only while `otel` is on.
trace_origin: ContextVar[TraceOrigin | None] = ContextVar("trace_origin", default=None)
# The span of the answer whose code runs in this context.
answer_span: "ContextVar[AnswerSpan | None]" = ContextVar("span", default=None)


def read_trace_origin(headers: "CIMultiDictProxy[str]", is_parent: bool) -> TraceOrigin | None:
    """Return the origin that the headers of a request name, or None if there is none or it is malformed."""
    parents = headers.getall("traceparent", ())
    if len(parents) != 1 or TRACEPARENT_PATTERN.fullmatch(parents[0]) is None:
        return None
    state = ",".join(headers.getall("tracestate", ()))
    is_usable = len(state) <= MAX_TRACESTATE_LENGTH and state.isascii() and state.isprintable()
    return TraceOrigin(parents[0], state if is_usable else "", is_parent)


def open_tracing(settings: Settings, version: str) -> "Tracing | None":
    """Return what makes the spans of a hub, or None while `otel` is off. The caller closes it.

    Raises ConfigError if packages are missing, or if a variable of OpenTelemetry is wrong.
    """
    if not settings.otel:
        return None
    try:
        from hub.observe import otel
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise ConfigError(f"otel needs OpenTelemetry: run {make_install_command('otel')}") from None
    return otel.start_tracing(version, has_content=settings.otel_content)


@contextmanager
def trace_model_request(
    model: str, host: str | None, port: int | None, headers: MutableMapping[str, str]
) -> Iterator["ModelSpan | None"]:
    """Trace one request to a model, as a child of the run whose code calls this, and add `traceparent` to *headers*.

    Yield None and add nothing while `otel` is off.
    """
    answer = answer_span.get()
    if answer is None:
        yield None
        return
    span = answer.start_model_request(model, host, port)
    span.write_headers(headers)
    try:
        yield span
    except AgentError as error:
        span.end(error.code)
        raise
    except Exception:
        span.end("internal")
        raise
    finally:
        span.end()

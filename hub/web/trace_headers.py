"""Reads the trace of a request from its headers (W3C Trace Context)."""

from collections.abc import Awaitable

from aiohttp import web
from aiohttp.typedefs import Handler

from hub.observe.tracing import read_trace_origin, trace_origin
from hub.web.websocket import serve_websocket


@web.middleware
def trace_middleware(request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
    """Let the runs that a request asks for belong to its trace. Use this middleware only while `otel` is on.

    A WebSocket may ask for many runs over days, so each of them has a trace of its own with a link to the handshake.
    """
    is_parent = request.match_info.handler is not serve_websocket
    # Requests of one connection may share a context, so a request without a trace must set None.
    trace_origin.set(read_trace_origin(request.headers, is_parent))
    return handler(request)  # returned, not awaited: saves one Python frame for the lifetime of a WebSocket

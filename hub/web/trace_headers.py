"""Reads the trace of a request from its headers (W3C Trace Context)."""

from aiohttp import web
from aiohttp.typedefs import Handler

from hub.observe.tracing import read_trace_origin, trace_origin
from hub.web.websocket import serve_websocket


@web.middleware
async def trace_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let the runs that a request asks for belong to its trace. Use this middleware only while `otel` is on.

    A WebSocket may ask for many runs over days, so each of them has a trace of its own with a link to the handshake.
    """
    is_parent = request.match_info.handler is not serve_websocket
    token = trace_origin.set(read_trace_origin(request.headers, is_parent))
    try:
        return await handler(request)
    finally:
        trace_origin.reset(token)  # the next request of this connection may run in the same context

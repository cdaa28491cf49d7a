"""A client that listens over HTTP: the catch-up of the WebSocket, written as server-sent events."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Annotated

import structlog
from aiohttp import HttpVersion11, web
from msgspec import Meta

from hub.delivery.connection import Connection
from hub.errors import BadId, HubError
from hub.ids import ID_PATTERN
from hub.messages import Error
from hub.protocols import WireProtocol
from hub.protocols.sse import PING, SSE
from hub.web.clients import NODE, connect, disconnect

log = structlog.get_logger()

LOOK_SECONDS = 0.5  # how often it is looked whether a client still hears: aiohttp tells no handler that it went
PLACE = re.compile(rf"({ID_PATTERN}):([0-9]{{1,15}})")
LastEvent = Annotated[str, Meta(description="the id of the last event that came, EPOCH:SEQ: what follows it is wanted")]
HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would hold tokens back
}


def wants_stream(request: web.Request) -> bool:
    return "text/event-stream" in request.headers.get("Accept", "")


def last_event(request: web.Request) -> tuple[str, int] | None:
    """Return the (epoch, seq) that a client hands back; raises BadId."""
    given = request.headers.get("Last-Event-ID") or request.query.get("lastEventId")
    if not given:
        return None
    found = PLACE.fullmatch(given)
    if found is None:
        raise BadId("Last-Event-ID is no EPOCH:SEQ: hand back the id of the last event, or none")
    return found[1], int(found[2])


async def stream(
    request: web.Request,
    begin: Callable[[Connection], Awaitable[None]],
    end: Callable[[], Awaitable[object]] | None = None,
    protocol: WireProtocol = SSE,
) -> web.StreamResponse:
    """Serve one listener until it goes, the hub does, or *end* has come and all before it is written.

    *begin* subscribes the connection; *protocol* gives chunks of HTTP.
    """
    node = request.app[NODE]
    response = await _opened(request)

    async def ping() -> None:
        _ping(connection)

    connection = connect(node, request, protocol, ping)
    try:
        await _serve(connection, begin, end)
    except HubError as refusal:  # the log cannot be read now, or the session goes: the client comes back by itself
        log.warning("a stream failed", connection=connection.id, reason=refusal.message)
        connection.answer(Error(code=refusal.code, message=refusal.message))
    finally:
        await disconnect(node, connection, lambda: _close(response, node.settings.limits.close_seconds))
    return response


async def _opened(request: web.Request) -> web.StreamResponse:
    if request.version < HttpVersion11:
        raise web.HTTPVersionNotSupported()
    response = web.StreamResponse(headers=HEADERS)
    response.enable_chunked_encoding()
    response.force_close()  # its connection ends with it: what was written past aiohttp is not followed by more
    await response.prepare(request)
    return response


def _ping(connection: Connection) -> None:
    connection.write(PING)
    connection.heard, connection.pinged = asyncio.get_running_loop().time(), None  # no pong comes to a ping here


async def _close(response: web.StreamResponse, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await response.write_eof()
    except (TimeoutError, ConnectionError):
        pass


async def _serve(
    connection: Connection,
    begin: Callable[[Connection], Awaitable[None]],
    end: Callable[[], Awaitable[object]] | None,
) -> None:
    await begin(connection)
    ending = asyncio.ensure_future(end()) if end is not None else asyncio.get_running_loop().create_future()
    try:
        while connection.hears:
            await asyncio.wait([ending], timeout=LOOK_SECONDS)
            if ending.done():
                ending.result()
                await connection.caught_up()
                return
    finally:
        ending.cancel()

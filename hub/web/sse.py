"""A client that listens over HTTP: what it hears is written as server-sent events."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Annotated

import structlog
from aiohttp import web
from msgspec import Meta

from hub.commands.client import ClientHandle, attach
from hub.errors import BadId, HubError
from hub.ids import ID_PATTERN
from hub.messages import Error
from hub.protocols.sse import PING, RunStream, open_sse_protocol
from hub.web.doorkeeper import principal_of
from hub.web.routes import HUB_KEY, refuse_http_1_0

log = structlog.get_logger()

EVENT_ID = re.compile(rf"({ID_PATTERN}):([0-9]{{1,15}})")
LastEventId = Annotated[
    str, Meta(description="the id of the last event that came, EPOCH:SEQ: what follows it is wanted")
]
STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would hold tokens back
}


def wants_stream(request: web.Request) -> bool:
    return "text/event-stream" in request.headers.get("Accept", "")


def read_last_event_id(request: web.Request) -> tuple[str, int] | None:
    """Return the (epoch, seq) that a client hands back; raises BadId."""
    text = request.headers.get("Last-Event-ID") or request.query.get("lastEventId")
    if not text:
        return None
    match = EVENT_ID.fullmatch(text)
    if match is None:
        raise BadId("Last-Event-ID is no EPOCH:SEQ: hand back the id of the last event, or none")
    return match[1], int(match[2])


class EventStream:
    """One listener, as an async context: open() begins the response, and leaving the context closes it.

    It is made before the hub is asked for anything: HTTP/1.0 is refused. What the hub refuses before open() is raised,
    and can still be told by its status; after it, it is an event.
    """

    def __init__(self, request: web.Request) -> None:
        refuse_http_1_0(request)
        self._request = request
        self.response = web.StreamResponse(headers=STREAM_HEADERS)
        self._client: ClientHandle | None = None

    async def __aenter__(self) -> "EventStream":
        return self

    async def open(self, run: RunStream | None = None) -> ClientHandle:
        """Begin the response, and return its client: it gets only that run, or (None) all as server-sent events."""
        request, response = self._request, self.response
        size = request.app[HUB_KEY].limits.out_frame_bytes
        if run is not None:
            run.out_frame_bytes = size
        protocol = open_sse_protocol(size) if run is None else run
        response.enable_chunked_encoding()
        response.force_close()  # its connection ends with it: what was written past aiohttp is not followed by more
        await response.prepare(request)
        self._client = attach(request.app[HUB_KEY], principal_of(request), protocol, request.transport, self._ping)
        return self._client

    async def serve(self, end: Callable[[], Awaitable[object]] | None = None) -> None:
        """Wait until the client goes, the hub does, or *end* has come and all before it is written."""
        client = self._client
        assert client is not None
        gone = asyncio.create_task(client.wait_until_unsubscribed())
        ending = asyncio.ensure_future(end()) if end is not None else gone
        try:
            await asyncio.wait([gone, ending], return_when=asyncio.FIRST_COMPLETED)
            if end is not None and ending.done():
                ending.result()
                await client.wait_until_caught_up()
        finally:
            ending.cancel()
            gone.cancel()

    async def serve_run(self, run_id: str) -> None:
        """Wait as serve() does; the end is that of a run."""
        client = self._client
        assert client is not None
        await self.serve(lambda: client.wait_for_run(run_id))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._client is None:
            return False
        is_told = isinstance(error, HubError)
        try:
            if isinstance(error, HubError):  # the log cannot be read, or the session goes: the client comes back
                log.warning("a stream failed", connection=self._client.id, reason=error.message)
                self._client.answer(Error(code=error.code, message=error.message))
        finally:
            await self._client.close(self._farewell)
        return is_told

    async def _ping(self) -> None:
        if self._client is not None:
            self._client.write(PING)
            self._client.record_activity()  # no pong comes to a ping here

    async def _farewell(self) -> None:
        try:
            async with asyncio.timeout(self._request.app[HUB_KEY].limits.close_seconds):
                await self.response.write_eof()
        except (TimeoutError, ConnectionError):
            pass

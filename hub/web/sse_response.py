"""A response of server-sent events that its handler writes itself, for answers that are in no session."""

import asyncio
from types import TracebackType

import attrs
from aiohttp import web

from hub.protocols.sse import PING
from hub.web.routes import limits_of
from hub.web.sse import STREAM_HEADERS


@attrs.define(eq=False, repr=False)
class SseResponse:
    """The response, as an async context that sends its head on entry.

    After `ping_seconds` without an event, it sends a comment: Node.js gives up after 300 seconds of silence, and many
    proxies after 60.
    """

    request: web.Request
    response: web.StreamResponse = attrs.field(init=False, factory=lambda: web.StreamResponse(headers=STREAM_HEADERS))
    _last_write: float = 0.0
    _timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> "SseResponse":
        self.response.enable_chunked_encoding()
        await self.response.prepare(self.request)
        self._last_write = asyncio.get_running_loop().time()
        self._schedule_ping()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def write(self, data: bytes) -> None:
        """Write with backpressure.

        If the client does not read for `stuck_seconds`, abort the connection and raise ConnectionError.
        """
        self._last_write = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(limits_of(self.request).stuck_seconds):
                await self.response.write(data)
        except TimeoutError:
            if self.request.transport is not None:
                self.request.transport.abort()
            raise ConnectionResetError("the client reads nothing") from None

    def _schedule_ping(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(self._last_write + limits_of(self.request).ping_seconds, self._ping)

    def _ping(self) -> None:
        """Send a comment if it is time. aiohttp writes each chunk of the body at once, so none is cut in two."""
        loop, transport = asyncio.get_running_loop(), self.request.transport
        if transport is None or transport.is_closing():
            return
        if loop.time() - self._last_write >= limits_of(self.request).ping_seconds:
            self._last_write = loop.time()
            if not transport.get_write_buffer_size():  # else the client gets bytes, or does not read
                transport.write(PING)
        self._schedule_ping()

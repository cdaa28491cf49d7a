"""Detects that the client of a request disconnects. aiohttp does not report this to a handler."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

from aiohttp import web


class _LossWatch(asyncio.Protocol):
    """Forwards all calls of a transport to aiohttp's protocol, and calls *on_loss* when the connection is lost."""

    def __init__(self, protocol: Any, on_loss: Callable[[], None]) -> None:
        self.protocol, self.on_loss = protocol, on_loss

    def data_received(self, data: bytes) -> None:
        self.protocol.data_received(data)

    def eof_received(self) -> bool | None:
        return cast("bool | None", self.protocol.eof_received())

    def pause_writing(self) -> None:
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        self.protocol.resume_writing()

    def connection_lost(self, reason: Exception | None) -> None:
        self.protocol.connection_lost(reason)
        self.on_loss()


@contextmanager
def watch_connection(request: web.BaseRequest, on_loss: Callable[[], None]) -> Iterator[None]:
    """Call *on_loss* one time if the client disconnects inside this context.

    If the client has disconnected before, call *on_loss* at the start of the context.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        on_loss()
        yield
        return
    protocol = transport.get_protocol()
    watch = _LossWatch(protocol, on_loss)
    transport.set_protocol(watch)
    try:
        yield
    finally:
        if not transport.is_closing() and transport.get_protocol() is watch:
            transport.set_protocol(protocol)  # for the next request of the connection
        watch.on_loss = lambda: None


@asynccontextmanager
async def while_connected(request: web.BaseRequest) -> AsyncIterator[None]:
    """Cancel the code in this context when the client disconnects. The context then raises ConnectionResetError."""

    def stop() -> None:
        if not scope.expired():
            scope.reschedule(asyncio.get_running_loop().time())

    try:
        async with asyncio.timeout(None) as scope:
            with watch_connection(request, stop):
                yield
    except TimeoutError:
        if scope.expired():
            raise ConnectionResetError("the client has disconnected") from None
        raise

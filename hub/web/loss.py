"""Notices that the client of a request disconnects. aiohttp does not report this to a handler."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from aiohttp import web


class _LossWatch(asyncio.Protocol):
    """Forwards all calls of a transport to aiohttp's protocol, and calls *on_loss* when the connection is lost."""

    def __init__(self, inner: Any, on_loss: Callable[[], None]) -> None:
        self.inner, self.on_loss = inner, on_loss

    def data_received(self, data: bytes) -> None:
        self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        return cast("bool | None", self.inner.eof_received())

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()

    def connection_lost(self, reason: Exception | None) -> None:
        self.inner.connection_lost(reason)
        self.on_loss()


@contextmanager
def watch_connection(request: web.BaseRequest, on_loss: Callable[[], None]) -> Iterator[None]:
    """Call *on_loss* once if the client disconnects inside this context, or at once if it is already gone."""
    wire = request.transport
    if wire is None or wire.is_closing():
        on_loss()
        yield
        return
    inner = wire.get_protocol()
    watch = _LossWatch(inner, on_loss)
    wire.set_protocol(watch)
    try:
        yield
    finally:
        if not wire.is_closing() and wire.get_protocol() is watch:
            wire.set_protocol(inner)  # for the next request of the connection
        watch.on_loss = lambda: None

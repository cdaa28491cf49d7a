"""The loss of a request's client: aiohttp does not tell a handler that its client has gone."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from aiohttp import web


class _LossWatch(asyncio.Protocol):
    """Stands between a transport and *inner*, aiohttp's protocol, and calls *lost* when the connection is lost."""

    def __init__(self, inner: Any, lost: Callable[[], None]) -> None:
        self.inner, self.lost = inner, lost

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
        self.lost()


@contextmanager
def watch_connection(request: web.BaseRequest, lost: Callable[[], None]) -> Iterator[None]:
    """Call *lost* once when the client goes while this context lasts, or at once where it has gone already."""
    wire = request.transport
    if wire is None or wire.is_closing():
        lost()
        yield
        return
    inner = wire.get_protocol()
    watch = _LossWatch(inner, lost)
    wire.set_protocol(watch)
    try:
        yield
    finally:
        if not wire.is_closing() and wire.get_protocol() is watch:
            wire.set_protocol(inner)  # for the next request of the connection
        watch.lost = lambda: None

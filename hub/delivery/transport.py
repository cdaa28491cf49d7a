"""A client's socket: the only file that knows descriptors, direct writes and the high-water mark.

A direct write gives a frame to the socket by its descriptor, past asyncio's transport, and saves 1.6 us a frame. It
cannot overtake bytes that the transport buffers: with a write limit of 0 the transport calls pause_writing as soon as
it buffers a byte, and resume_writing when it holds none, and between the two nothing is written directly. It cannot
reach another client either: the transport calls connection_lost before it closes the descriptor. asyncio and uvloop do
so in their `_call_connection_lost`; are_direct_writes_safe() sees whether the running loop does.
"""

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from os import write
from typing import Any, cast

import attrs

from hub.delivery.channel import Descriptors, Subscription

PROBE_SECONDS = 5.0


def unheard() -> None:
    """Do nothing when the route of a connection changes: the default."""


@attrs.define(eq=False, repr=False, kw_only=True)
class Transport:
    """What a connection writes to; nothing here waits but drained().

    *descriptor* is the socket's, -1 where nothing may go past the transport; *way* is the same, but -1 also while the
    transport buffers anything. *rerouted* is called when *way* has changed. Once it is lost nothing is written any
    more, but what the peer had sent before is still read. *written* counts the bytes that were taken.
    """

    wire: asyncio.Transport
    ping: Callable[[], Awaitable[None]]
    high_water: int
    rerouted: Callable[[], None] = unheard
    descriptor: int = -1
    way: int = -1
    is_lost: bool = False
    written: int = 0
    _progress: int = 0
    _moved: float = attrs.Factory(lambda: asyncio.get_running_loop().time())
    _room: asyncio.Future[None] | None = None  # made when waited for: an idle connection is to be small

    def send(self, data: bytes) -> bool:
        """Give bytes to the transport; return whether it took them. One that is lost takes none."""
        if self.is_lost:
            return False
        try:
            self.wire.write(data)
        except Exception:  # uvloop raises where the socket is lost and says so next
            self.cut()
            return False
        self.written += len(data)
        return True

    def unsent(self) -> int:
        """Return the bytes that the transport buffers."""
        return self.wire.get_write_buffer_size()

    def is_full(self) -> bool:
        """Return whether it buffers more than the high-water mark."""
        return self.unsent() > self.high_water

    def is_stuck(self, now: float, seconds: float) -> bool:
        """Return whether its unsent bytes have not moved for *seconds*; call it every second or so."""
        unsent = self.unsent()
        progress = self.written - unsent
        if not unsent or progress != self._progress:
            self._progress, self._moved = progress, now
            return False
        return now - self._moved > seconds

    async def drained(self) -> None:
        """Wait until it is below the high-water mark, or lost, or wake() was called."""
        self._room = self._room or asyncio.get_running_loop().create_future()
        await asyncio.wait([self._room])

    def wake(self) -> None:
        """Let drained() return."""
        waiter, self._room = self._room, None
        if waiter is not None:
            waiter.set_result(None)

    def stall(self) -> None:
        """Go through the transport from now on: it buffers something."""
        self._go(-1)

    def flow(self) -> None:
        """Go straight to the socket again: the transport buffers nothing more."""
        if not self.is_lost:
            self._go(self.descriptor)
            self.wake()

    def cut(self) -> None:
        """Write nothing any more: the transport is lost, and closes its descriptor next."""
        self.is_lost = True
        self._go(-1)
        self.wake()

    def _go(self, way: int) -> None:
        self.way = way
        self.rerouted()

    def close(self, seconds: float) -> None:
        """Close the socket when it has taken what is buffered; free it after *seconds* in any case."""
        self.wire.close()
        asyncio.get_running_loop().call_later(seconds, self.wire.abort)

    def abort(self) -> None:
        """Free the socket at once."""
        self.wire.abort()


def write_all(descriptors: Descriptors, data: bytes) -> list[tuple[Subscription, int]]:
    """Write to each socket directly; return those that did not take it all, with the bytes that each took.

    -1 stands for a socket that is lost. What is not written yet is for the transport to take, by send().
    """
    size, late = len(data), []
    for sub, descriptor in descriptors.items():
        try:
            sent = write(descriptor, data) if descriptor >= 0 else 0
        except BlockingIOError:
            sent = 0
        except OSError:  # lost, and its handler has not run yet: this connection only, the others hear on
            sent = -1
        if sent != size:
            late.append((sub, sent))
    return late


def watch(transport: Transport, direct: bool) -> None:
    """Let a Transport know what becomes of its wire; where *direct*, write past it wherever that is possible.

    It is not on Windows, where a socket has no file descriptor, and not with TLS.
    """
    wire = transport.wire
    wire.set_protocol(Watch(wire.get_protocol(), transport))
    if not direct or sys.platform == "win32" or wire.get_extra_info("sslcontext") is not None:
        wire.set_write_buffer_limits(high=transport.high_water)
        return
    wire.set_write_buffer_limits(high=0)
    transport.descriptor = wire.get_extra_info("socket").fileno()
    if not wire.get_write_buffer_size():
        transport.flow()


class Watch(asyncio.Protocol):
    """Stands between a wire and *inner*, aiohttp's protocol, and tells the Transport what it must know.

    aiohttp is told no pause: its pings and ends would wait for a client that does not read. Nothing grows by that, as
    such a client is not listened to (Connection.readable).
    """

    __slots__ = ("inner", "transport")

    def __init__(self, inner: Any, transport: Transport) -> None:
        self.inner, self.transport = inner, transport

    def data_received(self, data: bytes) -> None:
        self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        return cast("bool | None", self.inner.eof_received())

    def pause_writing(self) -> None:
        self.transport.stall()

    def resume_writing(self) -> None:
        self.transport.flow()
        if self.inner.writing_paused:  # since before the connection was there
            self.inner.resume_writing()

    def connection_lost(self, reason: Exception | None) -> None:
        self.transport.cut()
        self.inner.connection_lost(reason)


class _Probe(asyncio.Protocol):
    """Notes what a transport says of itself, in order."""

    writing_paused = False

    def __init__(self) -> None:
        self.news: asyncio.Queue[str] = asyncio.Queue()
        self.is_open_at_the_end = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.wire = cast(asyncio.Transport, transport)
        self.wire.set_write_buffer_limits(high=0)

    def pause_writing(self) -> None:
        self.news.put_nowait("paused")

    def resume_writing(self) -> None:
        self.news.put_nowait("resumed")

    def connection_lost(self, reason: Exception | None) -> None:
        self.is_open_at_the_end = self.wire.get_extra_info("socket").fileno() >= 0
        self.news.put_nowait("lost")


async def are_direct_writes_safe() -> bool:
    """Return whether the running loop's transports keep the promises that direct writes stand on."""
    if sys.platform == "win32":
        return False
    loop, (near, far) = asyncio.get_running_loop(), socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    with far:
        _, probe = await loop.create_connection(_Probe, sock=near)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                return await _keeps_promises(probe, far)
        except TimeoutError:
            return False
        finally:
            probe.wire.abort()


async def _keeps_promises(probe: _Probe, far: socket.socket) -> bool:
    """Fill the wire until it buffers one byte or more, drain it, and lose it."""
    loop = asyncio.get_running_loop()
    while not probe.wire.get_write_buffer_size():
        probe.wire.write(bytes(65536))
    is_paused = not probe.news.empty() and probe.news.get_nowait() == "paused"
    while probe.wire.get_write_buffer_size():
        await loop.sock_recv(far, 1 << 20)
    is_resumed = await probe.news.get() == "resumed"
    probe.wire.abort()
    return is_paused and is_resumed and await probe.news.get() == "lost" and probe.is_open_at_the_end

"""Test whether direct writes to sockets are safe with the running loop: see hub.delivery.transport for the rules."""

import asyncio
import socket
import sys
from typing import cast

PROBE_SECONDS = 5.0


class CallbackRecorder(asyncio.Protocol):
    """Records the names of a transport's callbacks, in order.

    *is_open_when_lost* is True if the socket still had its descriptor when connection_lost() was called.
    """

    def __init__(self) -> None:
        self.callbacks: asyncio.Queue[str] = asyncio.Queue()
        self.is_open_when_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.asyncio_transport = cast(asyncio.Transport, transport)
        self.asyncio_transport.set_write_buffer_limits(high=0)

    def pause_writing(self) -> None:
        self.callbacks.put_nowait("pause_writing")

    def resume_writing(self) -> None:
        self.callbacks.put_nowait("resume_writing")

    def connection_lost(self, reason: Exception | None) -> None:
        self.is_open_when_lost = self.asyncio_transport.get_extra_info("socket").fileno() >= 0
        self.callbacks.put_nowait("connection_lost")


async def are_direct_writes_safe() -> bool:
    """Return True if the transports of the running loop obey the rules for direct writes.

    Returns False on Windows, and if the test takes longer than PROBE_SECONDS.
    """
    if sys.platform == "win32":
        return False
    loop, (probe_socket, peer_socket) = asyncio.get_running_loop(), socket.socketpair()
    probe_socket.setblocking(False)
    peer_socket.setblocking(False)
    with peer_socket:
        _, recorder = await loop.create_connection(CallbackRecorder, sock=probe_socket)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                return await _has_expected_callbacks(recorder, peer_socket)
        except TimeoutError:
            return False
        finally:
            recorder.asyncio_transport.abort()


async def _has_expected_callbacks(recorder: CallbackRecorder, peer_socket: socket.socket) -> bool:
    """Return True if a transport calls the expected callbacks.

    Fill the transport until it buffers a byte, drain it, and abort it. Check the callbacks after each step.
    """
    loop, transport = asyncio.get_running_loop(), recorder.asyncio_transport
    while not transport.get_write_buffer_size():
        transport.write(bytes(65536))
    # The first rule: write() has called pause_writing(), and the empty buffer leads to resume_writing().
    is_paused = not recorder.callbacks.empty() and recorder.callbacks.get_nowait() == "pause_writing"
    while transport.get_write_buffer_size():
        await loop.sock_recv(peer_socket, 1 << 20)
    is_resumed = await recorder.callbacks.get() == "resume_writing"
    transport.abort()  # the second rule: connection_lost() is called while the descriptor is still open
    is_lost = await recorder.callbacks.get() == "connection_lost"
    return is_paused and is_resumed and is_lost and recorder.is_open_when_lost

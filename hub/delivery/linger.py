"""The lingering close: after the hub's close frame, read and drop what the peer still sends.

A socket that is closed while bytes of the peer are unread, or still on their way, is reset. Then the operating system
of the peer discards what the peer has not read yet, so the close frame is lost.
"""

import asyncio
from struct import unpack

import attrs

from hub.delivery.transport import FlowControlProtocol
from hub.limits import Limits

CLOSE_FRAME_HEAD = 0x88
HEAD_BYTES = 6  # of a close frame of a client: two bytes, and the mask
MAX_CONTROL_BYTES = 125  # of the payload of a control frame (RFC 6455, 5.5)


@attrs.define(eq=False, repr=False, kw_only=True)
class Linger(asyncio.Protocol):
    """The protocol of a connection after the hub's close frame: it passes all on to *protocol*, and counts the bytes.

    It closes the transport when the peer has sent nothing for `close_seconds`, and aborts it after `linger_bytes` or
    `linger_seconds`: with TLS, a transport that closes still reads what the peer sends. aiohttp drops what comes after
    a violation of the protocol, so there may be no frames any more. Then a close frame at the end of the received bytes
    counts as the answer of the peer. *loss* has a result when the connection is lost.
    """

    protocol: FlowControlProtocol
    transport: asyncio.Transport
    code: int
    limits: Limits
    is_unreadable: bool = False
    loss: "asyncio.Future[None]" = attrs.Factory(lambda: asyncio.get_running_loop().create_future())
    _end: bytes = b""
    _received_bytes: int = 0
    _receive_time: float = 0.0
    _end_time: float = 0.0
    _timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Take over the connection."""
        now = asyncio.get_running_loop().time()
        self._receive_time, self._end_time = now, now + self.limits.linger_seconds
        self.transport.set_protocol(self)
        self._check_time()

    def drop_all(self) -> None:
        """Expect no frame any more, after a violation of the protocol. Read on if aiohttp has paused the reading."""
        self.is_unreadable = True
        if not self.transport.is_closing():
            self.transport.resume_reading()
            self._close_if_answered()

    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        self._receive_time = asyncio.get_running_loop().time()
        self._end = (self._end + data[-HEAD_BYTES - MAX_CONTROL_BYTES :])[-HEAD_BYTES - MAX_CONTROL_BYTES :]
        self.protocol.data_received(data)
        if self._received_bytes > self.limits.linger_bytes:
            self.transport.abort()
        elif self.is_unreadable:
            self._close_if_answered()

    def eof_received(self) -> bool | None:
        return self.protocol.eof_received()

    def pause_writing(self) -> None:
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        self.protocol.resume_writing()

    def connection_lost(self, reason: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.loss.done():
            self.loss.set_result(None)
        self.protocol.connection_lost(reason)

    def _check_time(self) -> None:
        loop = asyncio.get_running_loop()
        now, silence_end = loop.time(), self._receive_time + self.limits.close_seconds
        if now >= self._end_time:
            self.transport.abort()
        elif now >= silence_end:
            self._close()
        else:
            self._timer = loop.call_at(min(silence_end, self._end_time), self._check_time)

    def _close_if_answered(self) -> None:
        if is_answer(self._end, self.code):
            self._close()

    def _close(self) -> None:
        """Close the transport after the buffered bytes are sent, at the latest after `close_seconds`."""
        if self._timer is not None:
            self._timer.cancel()
        if not self.transport.is_closing():
            self.transport.close()
            self._timer = asyncio.get_running_loop().call_later(self.limits.close_seconds, self.transport.abort)


def is_answer(end: bytes, code: int) -> bool:
    """Return whether the bytes end with the close frame of a client that answers the close code *code*.

    Some clients answer with 1000. Any other payload may be a part of a larger frame.
    """
    for head in range(max(0, len(end) - HEAD_BYTES - MAX_CONTROL_BYTES), len(end) - HEAD_BYTES - 1):
        size = len(end) - head - HEAD_BYTES
        if end[head] == CLOSE_FRAME_HEAD and end[head + 1] == 0x80 | size:
            (mask,) = unpack("!H", end[head + 2 : head + 4])
            (masked_code,) = unpack("!H", end[head + HEAD_BYTES : head + HEAD_BYTES + 2])
            if masked_code ^ mask in (code, 1000):
                return True
    return False

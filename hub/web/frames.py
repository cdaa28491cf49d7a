"""Reads the frames of one WebSocket: returns data frames and answers control frames."""

import asyncio
from collections import deque
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from aiohttp import WebSocketError, WSCloseCode, WSMsgType, web

from hub.commands.client import ClientHandle
from hub.commands.queues import MIN_COMMAND_BYTES
from hub.limits import format_size
from hub.protocols import close_frame

FIRST_UNDEFINED_CLOSE_CODE = 5000  # RFC 6455, 7.4.2 defines no close code from here on


class WebSocket(web.WebSocketResponse[Any]):
    """A WebSocket whose connection aiohttp never closes: the hub does."""

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        """Do nothing. aiohttp calls this after a bad frame, and would reset the connection while the peer sends."""
        return False


def send_close_frame(client: ClientHandle, code: int, reason: str = "", *, is_answer: bool = False) -> None:
    """Send the close frame of the hub, its last frame, without waiting. A second call does nothing.

    From then on, the hub drops what the peer sends (see Linger), unless the frame answers a close frame of the peer.
    """
    if client.has_ended:
        return
    transport = client.connection.transport
    client.has_ended = True
    client.stop_delivery()
    if not transport.is_lost:
        client.note_close(code)
        transport.send(close_frame(code, reason))
    if not (is_answer or transport.is_lost):
        client.start_linger(code)


def close_reply_code(code: int) -> int:
    """Return the close code that answers the close code of a peer.

    The answer is the same code (RFC 6455, 5.5.1), 1000 if the peer sent no code, or 1002 if its code is forbidden.
    """
    if not code:
        return WSCloseCode.OK
    # aiohttp itself rejects a close frame with any other forbidden code.
    is_forbidden = code == WSCloseCode.ABNORMAL_CLOSURE or code >= FIRST_UNDEFINED_CLOSE_CODE
    return WSCloseCode.PROTOCOL_ERROR if is_forbidden else code


class SocketReader:
    """Reads one data frame at a time. Waits while the client does not read the frames of the hub (backpressure)."""

    __slots__ = (
        "_buffer",
        "_buffered_bytes",
        "_client",
        "_is_at_end",
        "_is_reading_ahead",
        "_task",
        "_ws",
        "is_closed",
    )

    def __init__(self, client: ClientHandle, ws: WebSocket) -> None:
        self._client, self._ws = client, ws
        self.is_closed = False  # the close frame of the peer has come
        self._is_reading_ahead = self._is_at_end = False
        self._buffer: deque[bytes | None] | None = None  # created by read_ahead(): few connections need it
        self._buffered_bytes = 0
        self._task: asyncio.Task[None] | None = None

    def next(self) -> Awaitable[bytes | None]:
        """Return the content of the next data frame, or None if the socket is closed or the connection is lost."""
        self._is_reading_ahead = False
        return self._read() if self._task is None and not self._buffer else self._next_buffered_frame()

    def read_ahead(self) -> None:
        """Until next() is called, answer control frames, and buffer data frames up to `command_bytes`."""
        self._is_reading_ahead = True
        if self._buffer is None:
            self._buffer = deque()
        is_over = bool(self._buffer) and self._buffer[-1] is None
        if not is_over and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._fill(self._buffer))

    async def stop(self) -> None:
        """End the task of read_ahead()."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _next_buffered_frame(self) -> bytes | None:
        if not self._buffer and self._task is not None:
            task, self._task = self._task, None
            await task  # next() has ended the reading ahead, so the task returns after one more frame
        if not self._buffer:
            return await self._read()
        self._client.record_activity()
        data = self._buffer.popleft()
        self._buffered_bytes -= _counted_bytes(data)
        return data

    async def _fill(self, buffer: deque[bytes | None]) -> None:
        while self._is_reading_ahead and self._buffered_bytes < self._client.hub.limits.command_bytes:
            data = await self._read()
            buffer.append(data)
            self._buffered_bytes += _counted_bytes(data)
            if data is None:
                return
        if self._is_reading_ahead:
            self._client.suspend_heartbeat()

    async def wait_for_close(self) -> None:
        """After send_close_frame(), read until the close frame of the peer, or until the connection is lost.

        Linger limits the wait: at its end, it closes the transport.
        """
        while not self._is_at_end:
            await self._read()
        linger = self._client.linger
        if linger is not None and not self.is_closed:
            await asyncio.wait([linger.loss])

    async def _read(self) -> bytes | None:
        client, ws = self._client, self._ws
        while not client.is_closed or client.has_ended:
            await client.wait_until_drained()
            message = await ws.receive()
            client.record_activity()
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                if client.has_ended:
                    continue
                if message.type is WSMsgType.TEXT and not _is_utf8(message.data):
                    send_close_frame(client, WSCloseCode.INVALID_TEXT, "a text frame is not valid UTF-8")
                    return None
                return bytes(message.data)
            if message.type is WSMsgType.PING:
                if not client.has_ended:  # no frame may follow the close frame
                    with suppress(ConnectionError):  # the client has disconnected: `while` checks is_closed next
                        await ws.pong(message.data)
            elif message.type is not WSMsgType.PONG:
                self._end(message.type, message.data)
                return None
        return None

    def _end(self, kind: WSMsgType, data: Any) -> None:
        """Answer the close frame of the peer, or close the socket for a frame that violates the protocol."""
        self._is_at_end = True
        if kind is WSMsgType.CLOSE:
            self.is_closed = True
            send_close_frame(self._client, close_reply_code(data), is_answer=True)
        elif kind is WSMsgType.ERROR:
            if isinstance(data, WebSocketError):
                send_close_frame(self._client, data.code, self._explain(data.code))
            data.__traceback__ = None  # it refers to the socket, and the socket to the error
            if self._client.linger is not None:
                self._client.linger.drop_all()

    def _explain(self, code: int) -> str:
        if code == WSCloseCode.MESSAGE_TOO_BIG:
            return f"a message may have at most {format_size(self._client.hub.limits.frame_bytes)}"
        return "a frame violates the WebSocket protocol" if code == WSCloseCode.PROTOCOL_ERROR else ""


def _is_utf8(data: bytes) -> bool:
    """Return whether a text frame is valid UTF-8 (RFC 6455, 8.1). decode_text=False turns off aiohttp's check."""
    try:
        return data.isascii() or bool(data.decode())
    except UnicodeDecodeError:
        return False


def _counted_bytes(data: bytes | None) -> int:
    return max(len(data or b""), MIN_COMMAND_BYTES)

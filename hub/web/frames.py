"""The frames of one socket: those with data are handed on, control frames are answered here."""

import asyncio
from collections import deque
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from hub.commands.client import ClientHandle
from hub.commands.queues import MIN_COMMAND_BYTES

WebSocket = web.WebSocketResponse[Any]
FIRST_UNDEFINED_CLOSE_CODE = 5000  # close codes from here on mean nothing (RFC 6455, 7.4.2)


async def close_websocket(ws: WebSocket, code: int, seconds: float, reason: bytes = b"") -> None:
    """Close with a handshake, bounded: aiohttp's close() waits for ever for a peer that does not read."""
    if ws.closed:
        return
    try:
        async with asyncio.timeout(seconds):
            await ws.close(code=code, message=reason)
    except (TimeoutError, ConnectionError):
        pass  # the caller aborts the transport


def close_reply_code(code: int) -> int:
    """Return the code that answers a peer's close: its own (RFC 6455, 5.5.1), unless that may not be in a frame."""
    if not code:
        return WSCloseCode.OK
    # aiohttp refuses all others that may not.
    is_forbidden = code == WSCloseCode.ABNORMAL_CLOSURE or code >= FIRST_UNDEFINED_CLOSE_CODE
    return WSCloseCode.PROTOCOL_ERROR if is_forbidden else code


class SocketReader:
    """Reads a socket, one frame with data at a time, while its client is there and reads what it gets."""

    __slots__ = ("_ahead", "_client", "_held", "_held_bytes", "_is_paused", "_ws")

    def __init__(self, client: ClientHandle, ws: WebSocket) -> None:
        self._client, self._ws = client, ws
        self._is_paused = False
        self._held: deque[bytes | None] | None = None  # made by read_ahead(): an idle connection is to be small
        self._held_bytes = 0
        self._ahead: asyncio.Task[None] | None = None

    def next(self) -> Awaitable[bytes | None]:
        """Return what the next frame with data holds, or None at the end: the socket is closed then, or lost."""
        self._is_paused = False
        return self._read() if self._ahead is None and not self._held else self._next_held()

    def read_ahead(self) -> None:
        """Answer control frames until next() is called, and hold frames with data for it, up to `command_bytes`."""
        self._is_paused = True
        if self._held is None:
            self._held = deque()
        is_over = bool(self._held) and self._held[-1] is None
        if not is_over and (self._ahead is None or self._ahead.done()):
            self._ahead = asyncio.create_task(self._hold(self._held))

    async def stop(self) -> None:
        """End the task of read_ahead()."""
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.gather(self._ahead, return_exceptions=True)

    async def _next_held(self) -> bytes | None:
        if not self._held and self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            await ahead  # it ends with its next frame
        if not self._held:
            return await self._read()
        self._client.record_activity()
        data = self._held.popleft()
        self._held_bytes -= _weight(data)
        return data

    async def _hold(self, held: deque[bytes | None]) -> None:
        while self._is_paused and self._held_bytes < self._client.hub.limits.command_bytes:
            data = await self._read()
            held.append(data)
            self._held_bytes += _weight(data)
            if data is None:
                return
        if self._is_paused:
            self._client.suspend_heartbeat()

    async def _read(self) -> bytes | None:
        client, ws = self._client, self._ws
        while not client.is_closed:
            await client.wait_until_drained()
            message = await ws.receive()
            client.record_activity()
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                if message.type is WSMsgType.TEXT and not _is_utf8(message.data):
                    await self._close(WSCloseCode.INVALID_TEXT, b"a text frame must be UTF-8")
                    return None
                return bytes(message.data)
            if message.type is WSMsgType.PING:
                with suppress(ConnectionError):  # the client is lost: the next look says so
                    await ws.pong(message.data)
            elif message.type is not WSMsgType.PONG:
                if message.type is WSMsgType.CLOSE:
                    await self._close(close_reply_code(message.data))
                return None
        return None

    async def _close(self, code: int, reason: bytes = b"") -> None:
        self._client.stop_delivery()  # nothing is delivered after the close frame
        await close_websocket(self._ws, code, self._client.hub.limits.close_seconds, reason)


def _is_utf8(data: bytes) -> bool:
    """Check what decode_text=False leaves unchecked (RFC 6455, 8.1)."""
    try:
        return data.isascii() or bool(data.decode())
    except UnicodeDecodeError:
        return False


def _weight(data: bytes | None) -> int:
    return max(len(data or b""), MIN_COMMAND_BYTES)

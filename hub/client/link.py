"""The client's WebSocket connection. After a loss it reconnects, unless the close code forbids this."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Literal

import aiohttp
import attrs
import orjson

from hub.client.addresses import DEFAULT_URL
from hub.client.failures import Closed, Refusal
from hub.client.frames import FrameReader
from hub.client.tokens import TokenSource
from hub.limits import MiB, format_size
from hub.messages import Error, Event, Notice, Welcome
from hub.messages.codes import CLOSE_TEXTS, NO_TOKEN, WRONG_TOKEN, is_final

LinkState = Literal["connecting", "live", "waiting", "closed"]
OPEN_SECONDS = 10.0  # for the handshake, and again for the welcome
PONG_SECONDS = 10.0
CLOSE_SECONDS = 2.0
FIRST_DELAY, LONGEST_DELAY = 0.25, 15.0
MAX_UNSENT_BYTES = 16 * MiB  # client_js/link.js has the same limit
ABNORMAL_CLOSURE = 1006
WEBSOCKET_OPTIONS: dict[str, Any] = {
    "protocols": ("hubbub.v1",),
    "timeout": aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS),
    "max_msg_size": 0,  # no limit: a reset has up to a hundred messages
    "decode_text": False,
}


class LinkLost(Exception):
    """A callback of the link raises this to drop the connection. The link reconnects, unless *code* is final."""

    def __init__(self, reason: str, code: int = ABNORMAL_CLOSURE) -> None:
        super().__init__(reason)
        self.code = code


def retry_delay(attempt: int, uniform: Callable[[float, float], float] = random.uniform) -> float:
    """Return the seconds to wait after an attempt. The first *attempt* is 0.

    The delay is random (full jitter), below a limit that grows from 250 ms to 15 s.
    """
    return uniform(0, min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(attempt, 10)))


@attrs.define(eq=False, repr=False, kw_only=True)
class Link:
    """One connection at a time. *on_welcome* gets each welcome, *on_message* all other messages.

    *on_loss* is called at the end of each connection, and when the link has closed. The task of run() calls these three
    functions, and they do not wait. states() reports a new state after they have returned.
    """

    url: str
    headers: Mapping[str, str]
    tokens: TokenSource
    on_welcome: Callable[[Welcome], None]
    on_message: Callable[[Event | Notice], None]
    on_loss: Callable[[], None]
    state: LinkState = "connecting"
    code: int | None = None  # the code of the last close, or the HTTP status of a refused handshake
    reason: str = ""
    attempt: int = 0  # the number of the present attempt since the last connection with progress
    has_progress: bool = False  # a callback sets this after a useful message: the next delay is short again
    retry_after: float = 0.0  # the shortest delay in seconds that the hub allows before the next attempt
    _out: asyncio.Queue[bytes] = attrs.Factory(asyncio.Queue)
    _unsent_bytes: int = 0  # in _out
    _frames: FrameReader = attrs.Factory(FrameReader)
    _frame_bytes: int = 0  # the longest frame that the hub accepts, from its welcome
    _state_change: asyncio.Event = attrs.Factory(asyncio.Event)

    def send(self, **frame: Any) -> None:
        """Queue a frame for the present connection. Without a connection, drop the frame.

        Raises Refusal (`too_large`) if the frame is longer than the hub's limit: the hub would close the connection.
        """
        data = orjson.dumps(frame)
        if self.state == "live":
            if len(data) > self._frame_bytes:
                limit = format_size(self._frame_bytes)
                raise Refusal("too_large", f"the {frame['type']} is larger than {limit}, which is the hub's limit")
            self._put(data)

    def _put(self, data: bytes) -> None:
        self._out.put_nowait(data)
        self._unsent_bytes += len(data)

    def refuse_if_full(self) -> None:
        """Raise Refusal (`busy`) if the connection takes frames more slowly than the program sends them."""
        if self._unsent_bytes >= MAX_UNSENT_BYTES:
            size = format_size(MAX_UNSENT_BYTES)
            raise Refusal("busy", f"{size} of commands are not sent yet: wait for their answers", retryable=True)

    async def states(self) -> AsyncIterator[LinkState]:
        """Yield the present state and each change, up to `closed`.

        Of several changes, a slow reader gets only the last one.
        """
        while True:
            state, change = self.state, self._state_change
            yield state
            if state == "closed":
                return
            await change.wait()

    async def wait_until_live(self, patience: float | None = None) -> None:
        """Wait for a connection. Raises Closed.

        With *patience*, also return without a connection, as soon as an attempt fails after these seconds.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        while self.state != "live":
            if self.state == "closed":
                raise self.closed_error()
            is_late = patience is not None and loop.time() - start >= patience
            if is_late and self.attempt and self.state == "waiting":
                return
            await self._state_change.wait()

    def _set_state(self, state: LinkState) -> None:
        self.state = state
        change, self._state_change = self._state_change, asyncio.Event()
        change.set()

    def closed_error(self) -> Closed:
        """Return the error for a link that will not connect again."""
        text = CLOSE_TEXTS.get(self.code or 0, self.reason)
        reason = f" with {self.code}{': ' + text if text else ''}" if self.code else ""
        return Closed("closed", f"the connection to the hub is closed{reason}")

    async def run(self) -> None:
        """Connect, and reconnect after each loss, until a close code or an HTTP status forbids this.

        Cancel the task to close the link.
        """
        try:
            async with aiohttp.ClientSession(headers=self.headers) as http:
                while True:
                    self.retry_after = 0.0
                    if not await self._run_connection(http):
                        return
                    self.attempt = 0 if self.has_progress else self.attempt
                    self.has_progress = False
                    self._set_state("waiting")
                    delay = max(retry_delay(self.attempt), self.retry_after)
                    self.attempt += 1
                    await asyncio.sleep(delay)
                    self._set_state("connecting")
        except asyncio.CancelledError:
            self.code, self.reason = 1000, ""
            raise
        finally:
            self._set_state("closed")
            self.on_loss()

    async def _run_connection(self, http: aiohttp.ClientSession) -> bool:
        """Run one connection until its end. Return whether the link may reconnect."""
        try:
            async with asyncio.timeout(OPEN_SECONDS):  # aiohttp would wait five minutes for a peer that never answers
                await self.tokens.renew()
                ws = await http.ws_connect(self.url, headers=self.tokens.headers, **WEBSOCKET_OPTIONS)
        except aiohttp.WSServerHandshakeError as error:
            return self._on_handshake_error(error)
        except (aiohttp.ClientError, OSError, TimeoutError, UnicodeError) as error:  # UnicodeError: a bad host name
            self.code, self.reason = ABNORMAL_CLOSURE, str(error) or "no answer"
            return True
        self._out, self._unsent_bytes, self._frames = asyncio.Queue(), 0, FrameReader()
        if self.tokens.current is None:
            self._put(b'{"type":"hello"}')  # without it, the hub would wait 10 s before it asks for a token
        writer = asyncio.create_task(self._write(ws, self._out))
        try:
            self.code, self.reason = await self._read(ws)
            self.state = "waiting"  # send() drops frames from now on; run() notifies states() afterwards
            self.on_loss()  # not if the task is cancelled: run() calls on_loss() when the link has closed
        finally:
            self.state = "waiting"
            await self._close_socket(ws, writer)
        return not is_final(self.code)

    def _on_handshake_error(self, error: aiohttp.WSServerHandshakeError) -> bool:
        """Store the reason of a refused handshake. Return whether the link may try again."""
        self.code, self.reason = error.status, error.message
        if error.status < 400 or error.status == 404:
            self.reason = f"no WebSocket of a hub is at this address: write one such as {DEFAULT_URL}"
        elif error.status == 401 and self.tokens.current is not None:
            self.reason = CLOSE_TEXTS[WRONG_TOKEN]
        seconds = error.headers.get("Retry-After", "") if error.headers else ""
        self.retry_after = float(seconds) if seconds.isdecimal() else 0.0
        return error.status == 429 or error.status >= 500

    async def _close_socket(self, ws: aiohttp.ClientWebSocketResponse[bool], writer: asyncio.Task[None]) -> None:
        writer.cancel()
        await asyncio.wait([writer])
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await ws.close()
        except TimeoutError:
            pass  # aiohttp aborts the socket when its drain is cancelled

    async def _write(self, ws: aiohttp.ClientWebSocketResponse[bool], out: asyncio.Queue[bytes]) -> None:
        """Send the queued frames.

        Only this task sends, because a cancelled send breaks the socket for all later frames.
        """
        try:
            while True:
                data = await out.get()
                await ws.send_str(data.decode())
                if out is self._out:
                    self._unsent_bytes -= len(data)
        except (aiohttp.ClientError, OSError):
            pass  # the reading task gets the same error

    async def _read(self, ws: aiohttp.ClientWebSocketResponse[bool]) -> tuple[int, str]:
        """Read until the end of the connection. Return the close code and reason.

        After a heartbeat interval without a frame, send a ping. If no frame follows in time, the connection is lost.
        """
        heartbeat, is_pinged = OPEN_SECONDS, True
        while True:
            try:
                async with asyncio.timeout(min(heartbeat, PONG_SECONDS) if is_pinged else heartbeat):
                    message = await ws.receive()
            except TimeoutError:
                if is_pinged:
                    return ABNORMAL_CLOSURE, "the hub is silent"
                self.send(type="ping")
                is_pinged = True
                continue
            if message.type is aiohttp.WSMsgType.CLOSE:
                return message.data or 1005, message.extra or ""
            if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                return ABNORMAL_CLOSURE, ""
            is_pinged = False
            try:
                heartbeat = self._handle(message.data) or heartbeat
            except (LinkLost, ValueError) as error:
                return getattr(error, "code", ABNORMAL_CLOSURE), str(error)

    def _handle(self, data: bytes) -> float | None:
        """Pass a frame to its callback. Return the heartbeat in seconds if the frame is the welcome, else None.

        A hub without sign-in welcomes a client twice: at the handshake, and after its `hello`.
        """
        message = self._frames.read(data)
        if isinstance(message, Welcome):
            if self.state == "live":
                return None
            self.state, self._frame_bytes = "live", message.limits.get("frameBytes", sys.maxsize)
            self.on_welcome(message)
            self._set_state("live")
            return message.heartbeatMs / 1000
        if isinstance(message, Error) and message.code == "unauthenticated" and self.state != "live":
            raise LinkLost(message.message, NO_TOKEN)
        if message is not None:
            self.on_message(message)
        return None

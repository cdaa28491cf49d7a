"""The client's socket: made again whenever it is lost, for as long as the close code allows."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Literal

import aiohttp
import attrs
import orjson

from hub.client.failures import Closed, Refusal
from hub.client.frames import Frames
from hub.limits import size_text
from hub.messages import Event, Notice, Welcome
from hub.messages.codes import is_final

State = Literal["connecting", "live", "waiting", "closed"]
OPEN_SECONDS = 10.0  # for a handshake, and for the welcome after it
PONG_SECONDS = 10.0
CLOSE_SECONDS = 2.0
FIRST_DELAY, LONGEST_DELAY = 0.25, 15.0
LOST = 1006
OPTIONS: dict[str, Any] = {
    "protocols": ("hubbub.v1",),
    "timeout": aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS),
    "max_msg_size": 0,  # a reset brings a hundred messages
    "decode_text": False,
}


class LinkLost(Exception):
    """Raised by who listens, to give up this one connection; it is made again."""


def delay(failures: int, chance: Callable[[float, float], float] = random.uniform) -> float:
    """Return the seconds to wait after so many failures in a row: full jitter, from 250 ms to 15 s at most."""
    return chance(0, min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(failures, 10)))


@attrs.define(eq=False, kw_only=True)
class Link:
    """One connection at a time. *opened* is called at each welcome, *heard* for all else, *lost* when it is gone.

    All three are called in the task that runs `run`, and do not wait. A state is told after they have returned.
    """

    url: str
    headers: Mapping[str, str]
    opened: Callable[[Welcome], None]
    heard: Callable[[Event | Notice], None]
    lost: Callable[[], None]
    state: State = "connecting"
    code: int | None = None  # of the last close; an HTTP status where the handshake was refused
    reason: str = ""
    failures: int = 0
    progress: bool = False  # set by who hears something of use: the next wait is short again
    retry_after: float = 0.0
    _out: asyncio.Queue[bytes] = attrs.Factory(asyncio.Queue)
    _frames: Frames = attrs.Factory(Frames)
    _frame_bytes: int = 0  # that the hub takes; known from its welcome
    _changed: asyncio.Event = attrs.Factory(asyncio.Event)

    def send(self, **frame: Any) -> None:
        """Send a frame over the present connection; without one it is lost, as it would be on the way.

        Raises Refusal (`too_large`) for a frame for which the hub would close the connection.
        """
        data = orjson.dumps(frame)
        if self.state == "live":
            if len(data) > self._frame_bytes:
                most = size_text(self._frame_bytes)
                raise Refusal("too_large", f"the {frame['type']} is larger than {most}, the most that the hub takes")
            self._out.put_nowait(data)

    async def states(self) -> AsyncIterator[State]:
        """Yield the state and each later one to its end; who is slow sees the last of several."""
        while True:
            state, changed = self.state, self._changed
            yield state
            if state == "closed":
                return
            await changed.wait()

    async def until_live(self, patience: float | None = None) -> None:
        """Wait for a connection; raises Closed. With *patience*, returns too where a try fails after these seconds."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while self.state != "live":
            if self.state == "closed":
                raise self.closed()
            late = patience is not None and loop.time() - began >= patience
            if late and self.failures and self.state == "waiting":
                return
            await self._changed.wait()

    def _enter(self, state: State) -> None:
        self.state = state
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def closed(self) -> Closed:
        """Return why there will be no further connection."""
        why = f" with {self.code}{': ' + self.reason if self.reason else ''}" if self.code else ""
        return Closed("closed", f"the connection to the hub is closed{why}")

    async def run(self) -> None:
        """Connect, again and again; ends when a close code forbids it. Cancel it to close."""
        try:
            async with aiohttp.ClientSession(headers=self.headers) as http:
                while True:
                    self.retry_after = 0.0
                    if not await self._once(http):
                        return
                    self.failures = 0 if self.progress else self.failures
                    self.progress = False
                    self._enter("waiting")
                    wait = max(delay(self.failures), self.retry_after)
                    self.failures += 1
                    await asyncio.sleep(wait)
                    self._enter("connecting")
        except asyncio.CancelledError:
            self.code, self.reason = 1000, ""
            raise
        finally:
            self._enter("closed")
            self.lost()

    async def _once(self, http: aiohttp.ClientSession) -> bool:
        """Hold one connection until it is lost; say whether there may be another."""
        try:
            async with asyncio.timeout(OPEN_SECONDS):  # aiohttp would wait five minutes for a peer that never answers
                ws = await http.ws_connect(self.url, **OPTIONS)
        except aiohttp.WSServerHandshakeError as refused:
            return self._refused(refused)
        except (aiohttp.ClientError, OSError, TimeoutError, UnicodeError) as error:  # the last for a bad host name
            self.code, self.reason = LOST, str(error) or "no answer"
            return True
        self._out, self._frames = asyncio.Queue(), Frames()
        writer = asyncio.create_task(self._write(ws, self._out))
        try:
            self.code, self.reason = await self._read(ws)
        finally:
            self.state = "waiting"  # nothing is sent any more; watchers hear of it from run()
            self.lost()
            await self._end(ws, writer)
        return not is_final(self.code)

    def _refused(self, refused: aiohttp.WSServerHandshakeError) -> bool:
        self.code, self.reason = refused.status, refused.message
        after = refused.headers.get("Retry-After", "") if refused.headers else ""
        self.retry_after = float(after) if after.isdigit() else 0.0
        return refused.status == 429 or refused.status >= 500

    async def _end(self, ws: aiohttp.ClientWebSocketResponse[bool], writer: asyncio.Task[None]) -> None:
        writer.cancel()
        await asyncio.wait([writer])
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await ws.close()
        except TimeoutError:
            pass  # cancelled in its drain it drops the socket

    async def _write(self, ws: aiohttp.ClientWebSocketResponse[bool], out: asyncio.Queue[bytes]) -> None:
        """Send what is queued; the only task that sends, for one cancelled in mid-send spoils the socket for all."""
        try:
            while True:
                await ws.send_str((await out.get()).decode())
        except (aiohttp.ClientError, OSError):
            pass  # the reader meets the same end

    async def _read(self, ws: aiohttp.ClientWebSocketResponse[bool]) -> tuple[int, str]:
        """Read to the end, and return its code and reason. A peer that is silent is asked, and then given up."""
        silence, asked = OPEN_SECONDS, True
        while True:
            try:
                async with asyncio.timeout(min(silence, PONG_SECONDS) if asked else silence):
                    message = await ws.receive()
            except TimeoutError:
                if asked:
                    return LOST, "the hub is silent"
                self.send(type="ping")
                asked = True
                continue
            if message.type is aiohttp.WSMsgType.CLOSE:
                return message.data or 1005, message.extra or ""
            if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                return LOST, ""
            asked = False
            try:
                silence = self._hear(message.data) or silence
            except (LinkLost, ValueError) as why:
                return LOST, str(why)

    def _hear(self, data: bytes) -> float | None:
        """Pass a frame on; return the hub's heartbeat in seconds where it was the welcome."""
        said = self._frames.read(data)
        if isinstance(said, Welcome):
            self.state, self._frame_bytes = "live", said.limits.get("frameBytes", sys.maxsize)
            self.opened(said)
            self._enter("live")
            return said.heartbeatMs / 1000
        if said is not None:
            self.heard(said)
        return None

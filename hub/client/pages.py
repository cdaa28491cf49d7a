"""The log of a session, read over HTTP by who is behind."""

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal
from urllib.parse import quote

import aiohttp
import attrs

from hub.client.failures import ConnectionCut, Refusal
from hub.client.frames import read_event
from hub.client.link import Link, delay
from hub.messages import Event, Reset

PAGE_SECONDS = 30.0
History = Callable[[str, int], Awaitable[tuple[dict[str, Any], ...]]]


@attrs.frozen
class Pages:
    """Reads pages of events, beside the WebSocket at *url*; *history* gives the messages that go with a reset."""

    url: str
    headers: Mapping[str, str]
    link: Link
    history: History

    async def read(self, session_id: str, after: int, epoch: str | None) -> tuple[Event, ...] | Reset:
        """Return what follows a cursor, unmerged; tries until the hub answers. Raises Refusal, Closed."""
        for failures in itertools.count():
            await self.link.until_live()
            try:
                status, said = await self._get(session_id, after)
                if status == 200:
                    return await self._checked(session_id, after, epoch, said)
                if status < 500 and status != 429:
                    raise Refusal(str(said.get("code")), str(said.get("error")))
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError, ConnectionCut):
                pass  # the hub is away, or not well
            await asyncio.sleep(delay(failures))
        raise AssertionError("counting does not end")

    async def _get(self, session_id: str, after: int) -> tuple[int, Any]:
        base = re.sub("^ws", "http", self.url.partition("?")[0].removesuffix("/ws"))
        url = f"{base}/sessions/{quote(session_id)}/events"
        timeout = aiohttp.ClientTimeout(total=PAGE_SECONDS)
        async with aiohttp.ClientSession(headers=self.headers, timeout=timeout) as http:
            async with http.get(url, params={"afterSeq": after}) as response:
                return response.status, await response.json()

    async def _checked(self, session_id: str, after: int, epoch: str | None, said: Any) -> tuple[Event, ...] | Reset:
        reason: Literal["epoch_changed", "too_old", "past_head"]
        if epoch not in (None, said["epoch"]):
            reason = "epoch_changed"
        elif after > said["seq"]:
            reason = "past_head"
        elif after < said["floor"]:
            reason = "too_old"
        else:
            return tuple(read_event(frame) for frame in said["data"])
        messages = await self.history(session_id, 100)
        return Reset(sessionId=session_id, reason=reason, epoch=said["epoch"], messages=messages)

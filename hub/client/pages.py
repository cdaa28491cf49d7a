"""Reads pages of a session's log over HTTP, for readers that are behind."""

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
from hub.client.link import Link, retry_delay
from hub.messages import Event, Reset

PAGE_SECONDS = 30.0
ReadHistory = Callable[[str, int], Awaitable[tuple[dict[str, Any], ...]]]


@attrs.frozen(repr=False)
class PageReader:
    """Reads pages of events over HTTP from the hub at *url*; *history* reads the messages for a Reset."""

    url: str
    headers: Mapping[str, str]
    link: Link
    history: ReadHistory

    async def read(self, session_id: str, after: int, epoch: str | None) -> tuple[Event, ...] | Reset:
        """Return a page of the unmerged events after a cursor, or a Reset if the cursor is invalid.

        Retries with backoff until the hub returns the page or refuses the request. Raises Refusal, Closed.
        """
        for attempt in itertools.count():
            await self.link.wait_until_live()
            try:
                token = self.link.tokens.current
                status, body = await self._get(session_id, after)
                if status == 200:
                    return await self._parse(session_id, after, epoch, body)
                has_new_token = status == 401 and await self.link.tokens.replace(token)
                if status < 500 and status != 429 and not has_new_token:
                    raise _refusal(status, body)
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, ConnectionCut):
                pass  # no hub answers, or it fails, or the connection was lost: try again
            await asyncio.sleep(retry_delay(attempt))
        raise AssertionError("itertools.count() does not end")

    async def _get(self, session_id: str, after: int) -> tuple[int, dict[str, Any]]:
        """Return the status and the JSON object of the response; {} if it has no JSON object."""
        base = re.sub("^ws", "http", self.url.partition("?")[0].removesuffix("/ws"))
        url = f"{base}/sessions/{quote(session_id)}/events"
        timeout = aiohttp.ClientTimeout(total=PAGE_SECONDS)
        async with aiohttp.ClientSession(headers=self.headers, timeout=timeout) as http:
            options: dict[str, Any] = {"params": {"afterSeq": after}, "headers": self.link.tokens.headers}
            async with http.get(url, **options) as response:
                body = await response.json() if response.content_type == "application/json" else None
                return response.status, body if isinstance(body, dict) else {}

    async def _parse(
        self, session_id: str, after: int, epoch: str | None, body: dict[str, Any]
    ) -> tuple[Event, ...] | Reset:
        reason: Literal["epoch_changed", "too_old", "past_head"]
        if epoch not in (None, body["epoch"]):
            reason = "epoch_changed"
        elif after > body["seq"]:
            reason = "past_head"
        elif after < body["floor"]:
            reason = "too_old"
        else:
            return tuple(read_event(frame) for frame in body["data"])
        messages = await self.history(session_id, 100)
        return Reset(sessionId=session_id, reason=reason, epoch=body["epoch"], messages=messages)


def _refusal(status: int, body: dict[str, Any]) -> Refusal:
    """Return the error of the hub, or an error of this client for a response of a proxy or another server."""
    if "code" in body:
        return Refusal(str(body["code"]), str(body.get("error")))
    text = f"the hub's address refuses to read the log (HTTP {status}), and the response is not from a hub"
    return Refusal(f"http_{status}", f"{text}: check the proxy in front of the hub")

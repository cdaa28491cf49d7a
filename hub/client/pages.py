"""Reads pages of a session's log over HTTP, for readers that are behind."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any, Literal
from urllib.parse import quote

import attrs

from hub.client.failures import ConnectionCut, Refusal
from hub.client.frames import read_event
from hub.client.http import HttpApi
from hub.client.link import Link, retry_delay
from hub.messages import Event, Reset

ReadHistory = Callable[[str, int], Awaitable[tuple[dict[str, Any], ...]]]


@attrs.frozen(repr=False)
class PageReader:
    """Reads pages of events over HTTP; *history* reads the messages for a Reset."""

    http: HttpApi
    link: Link
    history: ReadHistory

    async def read(self, session_id: str, after: int, epoch: str | None) -> tuple[Event, ...] | Reset:
        """Return a page of the unmerged events after a cursor, or a Reset if the cursor is invalid.

        Retries with backoff until the hub returns the page or refuses the request. Raises Refusal, Closed.
        """
        path = f"/sessions/{quote(session_id)}/events"
        for attempt in itertools.count():
            await self.link.wait_until_live()
            try:
                body = await self.http.request_json("GET", path, params={"afterSeq": after})
                return await self._parse(session_id, after, epoch, body)
            except Refusal as refusal:
                if not refusal.retryable:
                    raise
            except (ConnectionCut, ValueError, KeyError):
                pass  # no hub answers, or it fails, or the connection was lost: try again
            await asyncio.sleep(retry_delay(attempt))
        raise AssertionError("itertools.count() does not end")

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

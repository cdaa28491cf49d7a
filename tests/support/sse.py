"""HTTP clients: one sends requests, the other receives server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import attrs
from support.hub import Hub
from support.waiting import PATIENCE, eventually


@attrs.frozen
class ServerEvent:
    """One server-sent event."""

    id: str | None
    kind: str
    data: dict[str, Any]


class Stream:
    """A stream of server-sent events. next() returns None for a comment."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.events: list[ServerEvent] = []

    async def next(self) -> ServerEvent | None:
        """Return the next event. Raises EOFError at the end of the stream."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(PATIENCE):
            while line := (await self.response.content.readline()).decode().rstrip("\n"):
                name, _, value = line.partition(": ")
                fields[name] = value
        if not fields:
            raise EOFError
        if "data" not in fields:
            return None
        event = ServerEvent(fields.get("id"), fields["event"], json.loads(fields["data"]))
        self.events.append(event)
        return event

    async def until(self, matches: Callable[[ServerEvent], bool]) -> ServerEvent:
        """Read until an event matches, and return that event."""
        while (event := await self.next()) is None or not matches(event):
            pass
        return event

    async def until_kind(self, kind: str) -> ServerEvent:
        return await self.until(lambda event: event.kind == kind)

    async def rest(self) -> None:
        """Read to the end of the stream."""
        try:
            while True:
                await self.next()
        except EOFError:
            pass

    def text(self) -> str:
        return "".join(event.data["content"] for event in self.events if event.kind in ("stream", "message"))


@asynccontextmanager
async def open_stream(http: aiohttp.ClientSession, path: str, **headers: str) -> AsyncIterator[Stream]:
    async with http.get(path, headers={"Accept": "text/event-stream"} | headers) as response:
        assert response.status == 200 and response.content_type == "text/event-stream"
        yield Stream(response)


async def call(
    http: aiohttp.ClientSession, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, Any]:
    """Return the status and the parsed JSON body of the response; None if the body is empty."""
    async with http.request(method, path, json=body, headers=headers) as response:
        return response.status, await response.json() if await response.read() else None


async def post(http: aiohttp.ClientSession, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    return await call(http, "POST", path, body, **headers)


async def get(http: aiohttp.ClientSession, path: str) -> tuple[int, Any]:
    return await call(http, "GET", path)


async def wait_until_all_left(hub: Hub) -> None:
    """Wait until the hub has no connection, and no session in memory."""
    await eventually(lambda: not (hub.node.registry.connections or hub.node.sessions))

"""Clients over HTTP: one that asks, and one that listens to server-sent events."""

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
class Said:
    """One server-sent event."""

    id: str | None
    kind: str
    data: dict[str, Any]


class Stream:
    """What a listener hears; a comment is None."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.heard: list[Said] = []

    async def next(self) -> Said | None:
        """Return the next event; raises EOFError at the end of the stream."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(PATIENCE):
            while line := (await self.response.content.readline()).decode().rstrip("\n"):
                name, _, value = line.partition(": ")
                fields[name] = value
        if not fields:
            raise EOFError
        if "data" not in fields:
            return None
        said = Said(fields.get("id"), fields["event"], json.loads(fields["data"]))
        self.heard.append(said)
        return said

    async def until(self, wanted: Callable[[Said], bool]) -> Said:
        while (said := await self.next()) is None or not wanted(said):
            pass
        return said

    async def until_kind(self, kind: str) -> Said:
        return await self.until(lambda said: said.kind == kind)

    async def rest(self) -> None:
        try:
            while True:
                await self.next()
        except EOFError:
            pass

    def text(self) -> str:
        return "".join(said.data["content"] for said in self.heard if said.kind in ("stream", "message"))


@asynccontextmanager
async def listening(http: aiohttp.ClientSession, path: str, **headers: str) -> AsyncIterator[Stream]:
    async with http.get(path, headers={"Accept": "text/event-stream"} | headers) as response:
        assert response.status == 200 and response.content_type == "text/event-stream"
        yield Stream(response)


async def call(
    http: aiohttp.ClientSession, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, Any]:
    """Return the status and the JSON of an answer; None where it has no body."""
    async with http.request(method, path, json=body, headers=headers) as response:
        return response.status, await response.json() if await response.read() else None


async def post(http: aiohttp.ClientSession, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    return await call(http, "POST", path, body, **headers)


async def get(http: aiohttp.ClientSession, path: str) -> tuple[int, Any]:
    return await call(http, "GET", path)


async def nobody_left(hub: Hub) -> None:
    await eventually(lambda: not (hub.node.registry.connections or hub.node.sessions))

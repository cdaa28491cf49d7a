"""How the terminal finds a hub, and asks it over HTTP."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from hub.cli.failures import CommandFailed
from hub.client import Client, Closed, Unreachable, connect


def base(url: str) -> str:
    """Return the HTTP address of a hub that was named by it, or by its WebSocket's."""
    plain = re.sub("^ws", "http", url if "://" in url else f"http://{url}").partition("?")[0].rstrip("/")
    return plain.removesuffix("/api/v1/ws").removesuffix("/api/v1")


def socket(url: str) -> str:
    return re.sub("^http", "ws", base(url)) + "/api/v1/ws"


def away(url: str) -> CommandFailed:
    return CommandFailed(
        f"no hub answers at {base(url)}: start one with `make run` or `hubbub serve`, or name it: --url"
    )


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Client]:
    """Connect, with one try: who sits before a terminal wants to know."""
    client = connect(socket(url), patience=0)
    try:
        await client.__aenter__()
    except Unreachable:
        raise away(url) from None
    except (Closed, aiohttp.InvalidURL) as refused:
        raise CommandFailed(f"{base(url)} lets nobody in here: {refused}") from None
    try:
        yield client
    finally:
        await client.close()


async def get(url: str, path: str, **query: Any) -> Any:
    """Return what a route of docs/api.md answers; raises CommandFailed with the hub's own words."""
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http:
            async with http.get(f"{base(url)}/api/v1{path}", params=query) as response:
                said = await response.json()
                if response.status != 200:
                    raise CommandFailed(str(said.get("error", response.reason)))
                return said
    except (aiohttp.ClientConnectionError, TimeoutError):
        raise away(url) from None
    except (aiohttp.ClientError, ValueError) as error:
        raise CommandFailed(f"{base(url)} does not speak as a hub does: {error}") from None

"""watch_connection() calls a function when the client's connection is lost."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from support.waiting import PATIENCE

from hub.web.loss import watch_connection

Serve = Callable[[Any], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Return a function that serves a handler, and returns its address."""
    runners: list[web.ServerRunner] = []

    async def start(handler: Any) -> str:
        runner = web.ServerRunner(web.Server(handler))
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{site.port}/"

    yield start
    for runner in runners:
        await runner.cleanup()


async def test_each_watch_is_called_once_when_the_client_disconnects(serve: Serve) -> None:
    losses: list[str] = []
    started, lost, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def note() -> None:
        losses.append("lost")
        lost.set()

    async def handler(request: web.BaseRequest) -> web.Response:
        with watch_connection(request, note):
            started.set()
            await lost.wait()
            assert request.transport is None  # aiohttp handled the loss first
            with watch_connection(request, note):  # the connection is lost already
                pass
        ended.set()
        return web.Response()

    url = await serve(handler)
    async with aiohttp.ClientSession() as http:
        request_task = asyncio.create_task(http.get(url))
        await asyncio.wait_for(started.wait(), PATIENCE)
        request_task.cancel()
        await asyncio.wait_for(ended.wait(), PATIENCE)
    assert losses == ["lost"] * 2


async def test_a_watched_connection_serves_later_requests(serve: Serve) -> None:
    """After the watch, the connection has its old protocol, and its end calls nothing."""
    protocols, losses = [], []

    async def handler(request: web.BaseRequest) -> web.Response:
        assert request.transport is not None
        with watch_connection(request, lambda: losses.append("lost")):
            await asyncio.sleep(0)
        protocols.append(request.transport.get_protocol())
        return web.Response(text="x" * 100_000)

    url = await serve(handler)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as http:
        for _ in range(3):
            async with http.get(url) as answer:
                assert len(await answer.text()) == 100_000
    assert len(set(protocols)) == 1 and type(protocols[0]).__module__.startswith("aiohttp.") and not losses


async def test_a_connection_lost_after_the_watch_calls_nothing(serve: Serve) -> None:
    """The context ends between the close and the loss of the connection."""
    losses = []

    async def handler(request: web.BaseRequest) -> web.Response:
        assert request.transport is not None
        with watch_connection(request, lambda: losses.append("lost")):
            request.transport.close()
        return web.Response()

    url = await serve(handler)
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await http.get(url)
    assert not losses

"""A handler is told that its client has gone, by the loss of the connection itself."""

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
    """Serve one handler, and return its address."""
    runners: list[web.ServerRunner] = []

    async def served(handler: Any) -> str:
        runner = web.ServerRunner(web.Server(handler))
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{site.port}/"

    yield served
    for runner in runners:
        await runner.cleanup()


async def test_a_client_that_goes_is_noticed_once(serve: Serve) -> None:
    losses: list[str] = []
    begun, lost, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def note() -> None:
        losses.append("lost")
        lost.set()

    async def handler(request: web.BaseRequest) -> web.Response:
        with watch_connection(request, note):
            begun.set()
            await lost.wait()
            assert request.transport is None  # aiohttp was told first
            with watch_connection(request, note):  # it has gone already
                pass
        ended.set()
        return web.Response()

    url = await serve(handler)
    async with aiohttp.ClientSession() as http:
        asking = asyncio.create_task(http.get(url))
        await asyncio.wait_for(begun.wait(), PATIENCE)
        asking.cancel()
        await asyncio.wait_for(ended.wait(), PATIENCE)
    assert losses == ["lost"] * 2


async def test_a_connection_that_goes_on_is_as_it_was(serve: Serve) -> None:
    """The next request on it is served, with a body of its own, and nobody is told when it is closed."""
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


async def test_a_client_that_goes_when_nobody_watches_any_more_is_nobodys_loss(serve: Serve) -> None:
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

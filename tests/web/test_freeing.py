"""The objects of a connection are freed when it ends, without the garbage collector."""

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from support.hub import Hub
from support.sse import open_stream
from support.waiting import eventually

from hub.web.websocket import SOCKETS_KEY


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("how", ["closes", "is lost"])
async def test_a_closed_websocket_is_freed(hub: Hub, no_collector: None, how: str) -> None:
    """Both the socket and its connection. The collector would free old objects only after 50 million new ones."""
    await hub.start(close_seconds=0.1)
    client = await hub.connect("?sessionId=s1")
    references: list[weakref.ref[Any]] = [
        *map(weakref.ref, hub.node.registry.connections),
        *map(weakref.ref, hub.app[SOCKETS_KEY].values()),
    ]
    assert len(references) == 2
    if how == "is lost":
        transport = client.ws.get_extra_info("transport") or client.ws._writer.transport
        transport.abort()
    else:
        await client.close()
    await eventually(lambda: [reference() for reference in references] == [None, None])


async def test_a_closed_event_stream_is_freed(hub: Hub, no_collector: None) -> None:
    await hub.start(close_seconds=0.1)
    async with aiohttp.ClientSession() as http:
        async with open_stream(http, f"{hub.url}/api/v1/sessions/s1/events"):
            await eventually(lambda: hub.node.registry.connections)
            (reference,) = map(weakref.ref, hub.node.registry.connections)
    await eventually(lambda: reference() is None)

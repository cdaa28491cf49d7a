"""Calls that other calls overtake, and commits whose results come late."""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

from support.hub import Hub

from hub.errors import HubError


@contextmanager
def pause(store: Any, name: str) -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """Pause the calls of a method of the log: yield the event of the first call, and the event that ends the pause."""
    called, released, method = asyncio.Event(), asyncio.Event(), getattr(store, name)

    async def wait(*args: Any) -> Any:
        called.set()
        await released.wait()
        return await method(*args)

    setattr(store, name, wait)
    try:
        yield called, released
    finally:
        setattr(store, name, method)


@contextmanager
def hold_results(hub: Hub) -> Iterator[None]:
    """Hold back the results of commits, until the context ends: the log has the events, and the hub delivers none."""
    writer = hub.node.log._threads.writer  # type: ignore[attr-defined]
    deliver, held = writer.deliver, list[Any]()
    writer.deliver = held.append
    try:
        yield
    finally:
        writer.deliver = deliver
        for results in held:
            deliver(results)


async def error_of(work: Awaitable[object]) -> HubError | None:
    try:
        await work
    except HubError as error:
        return error
    return None

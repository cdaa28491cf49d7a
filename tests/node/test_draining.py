"""A node that ends its work is woken by what it waits for: no wait here ends by the clock."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import aiohttp
import pytest
from support.hub import Client, Hub
from support.waiting import PATIENCE, eventually

from hub.errors import StorageUnavailable
from hub.node.draining import finish_runs, flush_all
from hub.storage.log import AppendCallback
from hub.storage.records import Append

NEVER = 1e9  # seconds
AGAIN = """
from hub import agent
import asyncio

@agent(restartable=True)
async def again(message: str):
    yield "one "
    await asyncio.Event().wait()
"""
# Goes on until the file of its message is there, though it is cancelled once.
DEAF = """
import asyncio, pathlib

async def deaf(message: str):
    yield "one "
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        while not pathlib.Path(message).exists():
            await asyncio.sleep(0.01)
"""


class HeldLog:
    """The hub's log, whose appends are held back until they are let through or refused."""

    def __init__(self, hub: Hub) -> None:
        self.log, self.whole = hub.node.log.events, hub.node.log.events.append
        self.appends: list[tuple[Append, AppendCallback]] = []
        self.log.append = lambda append, done: self.appends.append((append, done))  # type: ignore[method-assign]

    def let_go(self) -> None:
        self.log.append = self.whole  # type: ignore[method-assign]
        for append, done in self.appends:
            self.whole(append, done)


async def answering(hub: Hub, sessions: int = 1) -> Client:
    """Return a client that hears `gated` answer in so many sessions, until the file `gate` is there."""
    client = await hub.connect(extended=True)
    for number in range(sessions):
        gate = str(hub.folder / "gate")
        await client.send(type="chat", agentId="gated", sessionId=f"s{number}", message=gate)
        await client.until_type("stream")
    return client


async def begun(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Return a task that waits, after it had every chance to end."""
    task = asyncio.create_task(work)
    assert await still_waits(task)
    return task


async def still_waits(task: asyncio.Task[None]) -> bool:
    for _ in range(20):
        await asyncio.sleep(0)
    return not task.done()


async def test_a_drain_waits_for_the_last_running_answer(hub: Hub) -> None:
    """In each session, and where no session keeps it."""
    await hub.start()
    client = await answering(hub, sessions=3)
    body = {"model": "gated", "messages": [{"role": "user", "content": str(hub.folder / "kept-nowhere")}]}
    async with aiohttp.ClientSession() as http:
        asking = asyncio.create_task(http.post(f"{hub.url}/v1/chat/completions", json=body).__aenter__())
        await eventually(lambda: hub.node.completions)
        hub.node.drain()
        finishing = await begun(finish_runs(hub.node, NEVER, asyncio.Event()))
        (hub.folder / "gate").touch()
        ends = [await client.until_done() for _ in range(3)]
        assert {end["stopReason"] for end in ends} == {"end_turn"} and await still_waits(finishing)
        (hub.folder / "kept-nowhere").touch()
        async with asyncio.timeout(PATIENCE):
            assert (await asking).status == 200
            await finishing
    assert not hub.node.completions


@pytest.mark.parametrize("stream", [False, True])
async def test_a_completion_without_a_session_is_told_that_the_hub_stops(hub: Hub, stream: bool) -> None:
    """By the status, or in the stream before its `[DONE]`."""
    await hub.start()
    gate = str(hub.folder / "never")
    body = {"model": "gated", "messages": [{"role": "user", "content": gate}], "stream": stream}

    async def ask() -> tuple[int, str]:
        async with http.post(f"{hub.url}/v1/chat/completions", json=body) as answer:
            if stream:
                await answer.content.readline()
            heard.set()
            return answer.status, await answer.text()

    async with aiohttp.ClientSession() as http, asyncio.timeout(PATIENCE):
        heard = asyncio.Event()
        asking = asyncio.create_task(ask())
        await (heard.wait() if stream else eventually(lambda: hub.node.completions))
        hub.node.drain()
        await finish_runs(hub.node, 0, asyncio.Event())
        await flush_all(hub.node, PATIENCE)
        assert not hub.node.completions
        status, text = await asking
    assert status == (200 if stream else 503) and '"code":"aborted"' in text.replace(" ", "")
    assert text.endswith("data: [DONE]\n\n") == stream


async def test_a_second_signal_ends_the_wait(hub: Hub) -> None:
    """What goes on is aborted."""
    await hub.start()
    client = await answering(hub)
    hub.node.drain()
    hurry = asyncio.Event()
    finishing = await begun(finish_runs(hub.node, NEVER, hurry))
    hurry.set()
    await asyncio.wait_for(finishing, PATIENCE)
    assert (await client.until_done())["stopReason"] == "aborted"


async def test_a_drain_does_not_wait_for_a_run_whose_chat_is_refused(hub: Hub) -> None:
    """It has no end."""
    await hub.start()
    held = HeldLog(hub)
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="gated", sessionId="s1", message="x")
    await eventually(lambda: held.appends)
    hub.node.drain()
    finishing = await begun(finish_runs(hub.node, NEVER, asyncio.Event()))
    held.appends.pop()[1](StorageUnavailable("disk full"))
    await asyncio.wait_for(finishing, PATIENCE)
    held.let_go()


async def test_a_drain_waits_until_the_end_of_a_stopped_run_is_logged(hub: Hub) -> None:
    """Though nothing of it is on its way yet, as its code goes on."""
    hub.agent("deaf.py", DEAF)
    await hub.start(grace_seconds=NEVER)
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="deaf", sessionId="s0", message=str(hub.folder / "gate"))
    await client.until_type("stream")
    hub.node.drain()
    hurry = asyncio.Event()
    hurry.set()
    await finish_runs(hub.node, NEVER, hurry)
    writing = await begun(flush_all(hub.node, NEVER))
    (hub.folder / "gate").touch()
    await asyncio.wait_for(writing, PATIENCE)
    assert (await client.until_done())["stopReason"] == "aborted"


@pytest.mark.parametrize("agent", ["gated", "again"])
async def test_a_drain_waits_until_all_text_is_logged(hub: Hub, agent: str) -> None:
    """The end of an aborted run, and the last text of one that the next start runs again, which has no end."""
    hub.agent("again.py", AGAIN)
    await hub.start()
    held = HeldLog(hub)
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId=agent, sessionId="s0", message="never")
    await eventually(lambda: held.appends)
    held.whole(*held.appends.pop())
    await eventually(lambda: held.appends)  # its first text
    hub.node.drain()
    hurry = asyncio.Event()
    hurry.set()
    await finish_runs(hub.node, NEVER, hurry)
    writing = await begun(flush_all(hub.node, NEVER))
    held.let_go()
    await asyncio.wait_for(writing, PATIENCE)
    assert all(session.is_idle for session in hub.node.sessions.values())

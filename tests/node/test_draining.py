"""A draining node is woken by events: no wait in these tests ends by a timeout."""

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
# Ignores its first cancellation, and waits until the file of its message exists.
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


class DelayedLog:
    """Delays all appends to the hub's log until the test passes them on or refuses them."""

    def __init__(self, hub: Hub) -> None:
        self.log, self.original_append = hub.node.log.events, hub.node.log.events.append
        self.appends: list[tuple[Append, AppendCallback]] = []
        self.log.append = lambda append, done: self.appends.append((append, done))  # type: ignore[method-assign]

    def pass_on(self) -> None:
        self.log.append = self.original_append  # type: ignore[method-assign]
        for append, done in self.appends:
            self.original_append(append, done)


async def start_answers(hub: Hub, sessions: int = 1) -> Client:
    """Return a client with a running answer of `gated` in each of *sessions*; the answers wait for the file `gate`."""
    client = await hub.connect(extended=True)
    for number in range(sessions):
        gate = str(hub.folder / "gate")
        await client.send(type="chat", agentId="gated", sessionId=f"s{number}", message=gate)
        await client.until_type("stream")
    return client


async def start_waiting(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Start a task, and check that it waits."""
    task = asyncio.create_task(work)
    assert await still_waits(task)
    return task


async def still_waits(task: asyncio.Task[None]) -> bool:
    for _ in range(20):
        await asyncio.sleep(0)
    return not task.done()


async def test_a_drain_waits_for_all_running_answers(hub: Hub) -> None:
    """It waits for answers in sessions and for a completion without a session."""
    await hub.start()
    client = await start_answers(hub, sessions=3)
    body = {"model": "gated", "messages": [{"role": "user", "content": str(hub.folder / "completion-gate")}]}
    async with aiohttp.ClientSession() as http:
        asking = asyncio.create_task(http.post(f"{hub.url}/v1/chat/completions", json=body).__aenter__())
        await eventually(lambda: hub.node.completions)
        hub.node.drain()
        finishing = await start_waiting(finish_runs(hub.node, NEVER, asyncio.Event()))
        (hub.folder / "gate").touch()
        ends = [await client.until_done() for _ in range(3)]
        assert {end["stopReason"] for end in ends} == {"end_turn"} and await still_waits(finishing)
        (hub.folder / "completion-gate").touch()
        async with asyncio.timeout(PATIENCE):
            assert (await asking).status == 200
            await finishing
    assert not hub.node.completions


@pytest.mark.parametrize("stream", [False, True])
async def test_a_completion_without_a_session_gets_an_error_when_the_hub_stops(hub: Hub, stream: bool) -> None:
    """The error is the response, or the last event before `[DONE]`."""
    await hub.start()
    gate = str(hub.folder / "never")
    body = {"model": "gated", "messages": [{"role": "user", "content": gate}], "stream": stream}

    async def ask() -> tuple[int, str]:
        async with http.post(f"{hub.url}/v1/chat/completions", json=body) as answer:
            if stream:
                await answer.content.readline()
            has_started.set()
            return answer.status, await answer.text()

    async with aiohttp.ClientSession() as http, asyncio.timeout(PATIENCE):
        has_started = asyncio.Event()
        asking = asyncio.create_task(ask())
        await (has_started.wait() if stream else eventually(lambda: hub.node.completions))
        hub.node.drain()
        await finish_runs(hub.node, 0, asyncio.Event())
        await flush_all(hub.node, PATIENCE)
        assert not hub.node.completions
        status, text = await asking
    assert status == (200 if stream else 503) and '"code":"aborted"' in text.replace(" ", "")
    assert text.endswith("data: [DONE]\n\n") == stream


async def test_a_second_signal_ends_the_drain(hub: Hub) -> None:
    """Running answers are aborted."""
    await hub.start()
    client = await start_answers(hub)
    hub.node.drain()
    second_signal = asyncio.Event()
    finishing = await start_waiting(finish_runs(hub.node, NEVER, second_signal))
    second_signal.set()
    await asyncio.wait_for(finishing, PATIENCE)
    assert (await client.until_done())["stopReason"] == "aborted"


async def test_a_drain_does_not_wait_for_a_run_whose_chat_is_refused(hub: Hub) -> None:
    """That run never gets an end."""
    await hub.start()
    delayed_log = DelayedLog(hub)
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="gated", sessionId="s1", message="x")
    await eventually(lambda: delayed_log.appends)
    hub.node.drain()
    finishing = await start_waiting(finish_runs(hub.node, NEVER, asyncio.Event()))
    delayed_log.appends.pop()[1](StorageUnavailable("disk full"))
    await asyncio.wait_for(finishing, PATIENCE)
    delayed_log.pass_on()


async def test_a_drain_waits_until_the_end_of_a_stopped_run_is_logged(hub: Hub) -> None:
    """The flush waits although nothing is queued yet, because the agent still runs."""
    hub.agent("deaf.py", DEAF)
    await hub.start(grace_seconds=NEVER)
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="deaf", sessionId="s0", message=str(hub.folder / "gate"))
    await client.until_type("stream")
    hub.node.drain()
    second_signal = asyncio.Event()
    second_signal.set()
    await finish_runs(hub.node, NEVER, second_signal)
    writing = await start_waiting(flush_all(hub.node, NEVER))
    (hub.folder / "gate").touch()
    await asyncio.wait_for(writing, PATIENCE)
    assert (await client.until_done())["stopReason"] == "aborted"


@pytest.mark.parametrize("agent", ["gated", "again"])
async def test_a_drain_waits_until_all_text_is_logged(hub: Hub, agent: str) -> None:
    """It waits for the end of an aborted run, and for the last text of a run that the next start repeats."""
    hub.agent("again.py", AGAIN)
    await hub.start()
    delayed_log = DelayedLog(hub)
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId=agent, sessionId="s0", message="never")
    await eventually(lambda: delayed_log.appends)
    delayed_log.original_append(*delayed_log.appends.pop())
    await eventually(lambda: delayed_log.appends)  # the first chunk
    hub.node.drain()
    second_signal = asyncio.Event()
    second_signal.set()
    await finish_runs(hub.node, NEVER, second_signal)
    writing = await start_waiting(flush_all(hub.node, NEVER))
    delayed_log.pass_on()
    await asyncio.wait_for(writing, PATIENCE)
    assert all(session.is_idle for session in hub.node.sessions.values())

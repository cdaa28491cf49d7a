"""Clients that do not read do not disturb other clients, and do not fill the memory of the hub."""

import asyncio
from typing import Any

import aiohttp
import attrs
from support.hub import Client, Hub
from support.process import HubProcess
from support.sockets import small_window
from support.waiting import eventually

from hub.ids import Key

MiB = 1024 * 1024
# Yields COUNT numbered lines of BYTES bytes each, with short pauses. The message is "COUNT BYTES".
FLOOD = """
import asyncio

async def flood(message: str):
    count, size = map(int, message.split())
    for number in range(count):
        yield f"{number}:".ljust(size - 1, "x") + "\\n"
        if number % 16 == 0:
            await asyncio.sleep(0.005)
"""


def flood_text(count: int, size: int) -> str:
    return "".join(f"{number}:".ljust(size - 1, "x") + "\n" for number in range(count))


async def stopped_reader(hub: Hub | HubProcess, query: str) -> Client:
    """Connect a client with a small receive buffer that reads nothing until next() is called."""
    http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=small_window))
    return Client(http, await http.ws_connect(f"{hub.url}/api/v1/ws{query}", max_msg_size=0))


async def test_a_client_that_does_not_read_does_not_disturb_the_others(tmp_path_factory: Any) -> None:
    """50 clients get exactly 4 MiB each while one reads nothing. The hub's memory grows by less than 48 MiB."""
    hub = HubProcess(tmp_path_factory.mktemp("hub"))
    hub.agent("flood.py", FLOOD)
    await hub.start()
    http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    try:
        stuck = await stopped_reader(hub, "?sessionId=s1")
        fast = [
            Client(http, await http.ws_connect(f"{hub.url}/api/v1/ws?sessionId=s1", max_msg_size=0)) for _ in range(50)
        ]
        before = hub.memory()
        await fast[0].send(type="chat", agentId="flood", sessionId="s1", message="4096 1024")
        await asyncio.gather(*(client.until_done() for client in fast))
        growth = hub.memory() - before
        wanted = flood_text(4096, 1024)
        assert all(client.text() == wanted for client in fast)
        assert growth < 48 * MiB, growth
        assert not stuck.frames
        await stuck.close()
    finally:
        await http.close()
        await hub.kill()


async def flood(hub: Hub, count: int, size: int) -> tuple[Client, Client, int]:
    """Send a flood to a fast client and to a stopped one; return both, and the maximum of unsent bytes."""
    hub.agent("flood.py", FLOOD)
    await hub.start()
    slow = await stopped_reader(hub, "?sessionId=s1")
    (connection,) = hub.node.registry.connections
    fast = await hub.connect("?sessionId=s1")
    hub.clients.append(slow)
    await fast.send(type="chat", agentId="flood", sessionId="s1", message=f"{count} {size}")
    most = 0
    while not (await fast.next())["done"]:
        most = max(most, connection.transport.get_unsent_bytes())
    assert fast.text() == flood_text(count, size)
    return fast, slow, most


async def test_a_client_that_reads_again_in_time_gets_all_text_in_fewer_frames(hub: Hub) -> None:
    """The waiting events stay in the log, not in memory, and the hub merges them into fewer frames."""
    hub.limits = attrs.evolve(hub.limits, stuck_seconds=60.0)
    fast, slow, most = await flood(hub, 4096, 1024)
    assert 0 < most < hub.limits.high_water_bytes + 2 * hub.limits.page_bytes
    await slow.until_done()
    assert slow.text() == flood_text(4096, 1024)
    assert len(slow.frames) < len(fast.frames)
    seqs = [frame["seq"] for frame in slow.frames]
    assert seqs == sorted(set(seqs)) and slow.frames[-1] == fast.frames[-1]


async def test_a_stuck_client_is_aborted_and_can_resume(hub: Hub) -> None:
    """The socket closes without a close frame. The text before it and the text after the resume are complete."""
    hub.limits = attrs.evolve(hub.limits, stuck_seconds=1.0)
    _, slow, _ = await flood(hub, 4096, 1024)
    await eventually(lambda: len(hub.node.registry.connections) <= 1)
    assert await slow.wait_closed() in (None, 1006)
    assert flood_text(4096, 1024).startswith(slow.text()) and len(slow.text()) < 4096 * 1024
    last = slow.frames[-1] if slow.frames else {"seq": 0, "epoch": hub.node.sessions[Key("s1")].channel.epoch}
    resumed = await hub.connect(f"?sessionId=s1&afterSeq={last['seq']}&epoch={last['epoch']}")
    await resumed.until_done()
    assert slow.text() + resumed.text() == flood_text(4096, 1024)

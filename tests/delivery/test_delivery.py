"""How often a session is flushed, and how the silent are found."""

import asyncio
import contextlib
import os
import socket
import struct

import aiohttp
import orjson
import pytest
from support.crowd import say, start_three_listeners
from support.hub import Hub
from support.sockets import PING, frames, read_until
from support.waiting import PATIENCE

from hub.delivery.connection import Connection
from hub.ids import Key
from hub.protocols import text_frame

STEADY = """
import asyncio

async def steady(message: str):
    for n in range(30):
        yield f"{n} "
        await asyncio.sleep(0.002)
"""


async def test_the_first_chunk_of_a_pause_goes_at_once(hub: Hub) -> None:
    """Even where a session may be flushed once in a hundred seconds only."""
    hub.options = {"frames_per_second": 0.01}
    await hub.start()
    client = await hub.connect()
    await client.send(type="chat", agentId="gated", sessionId="s1", message=str(hub.folder / "gate"))
    assert (await client.next())["content"] == "one "
    (hub.folder / "gate").touch()
    await client.until_done()
    assert client.text() == "one two"


async def test_what_comes_faster_than_the_frames_is_merged(hub: Hub) -> None:
    """One chunk at once, the rest together with the end: a run's end waits for no frame."""
    hub.agent("steady.py", STEADY)
    hub.options = {"frames_per_second": 0.01}
    await hub.start()
    client = await hub.connect()
    await client.send(type="chat", agentId="steady", message="go")
    await client.until_done()
    assert client.text() == "".join(f"{n} " for n in range(30))
    assert [f["content"] for f in client.frames if f["content"]] == ["0 ", "".join(f"{n} " for n in range(1, 30))]


async def test_without_a_frame_rate_every_commit_is_heard(hub: Hub) -> None:
    """frames_per_second = 0 takes the limit away: merging is only what a commit in flight makes."""
    hub.agent("steady.py", STEADY)
    hub.options = {"frames_per_second": 0}
    await hub.start()
    client = await hub.connect()
    await client.send(type="chat", agentId="steady", message="go")
    await client.until_done()
    assert len(client.frames) > 3 and client.text() == "".join(f"{n} " for n in range(30))


async def test_one_event_is_encoded_once_however_many_hear_it(hub: Hub) -> None:
    """The same bytes go to all clients of a protocol."""
    await hub.start()
    clients = [await hub.connect("?sessionId=s1") for _ in range(5)]
    clients += [await hub.connect("?sessionId=s1", extended=True) for _ in range(5)]
    await hub.wait_until_live("s1", 10)
    protocols = list(hub.node.sessions[Key("s1")].channel.live_descriptors)
    assert sorted(protocol.name for protocol in protocols) == ["hubbub.v1", "plain"]
    await clients[0].send(type="chat", agentId="echo", sessionId="s1", message="x")
    for client in clients:
        await client.until_done()
        assert client.text() == "x "


def fill(connection: Connection) -> None:
    """Write until the transport holds what the socket does not take."""
    while not connection.transport.get_unsent_bytes():
        connection.write(text_frame(orjson.dumps({"content": "x" * 4000})))


async def test_what_goes_straight_to_a_socket_overtakes_nothing(hub: Hub) -> None:
    """A socket that was full has room again before its transport knows: what comes then waits behind what it keeps."""
    sock, connection, channel = await start_three_listeners(hub)
    with sock:
        fill(connection)
        got = sock.recv(1 << 20)  # in one step with what follows: the loop cannot write meanwhile
        say(hub, channel, "last")
        *fillers, last = frames(got + await read_until(sock))
    for other in hub.clients:
        assert (await other.next())["content"] == "last"
    assert last["content"] == "last" and {frame["content"] for frame in fillers} == {"x" * 4000}


async def test_one_who_has_read_all_is_written_to_straight_again(hub: Hub) -> None:
    sock, connection, channel = await start_three_listeners(hub)
    with sock:
        fill(connection)
        (ways,) = channel.live_descriptors.values()
        assert sorted(ways.values())[0] == -1 and sorted(ways.values())[1] > 0
        say(hub, channel, "last")
        await read_until(sock)
        assert (
            set(ways.values()) == {sub.connection.transport.socket_descriptor for sub in ways}
            and connection.transport.write_descriptor == connection.transport.socket_descriptor
        )


async def test_nobody_is_written_to_by_a_descriptor_that_is_closed(hub: Hub) -> None:
    """It may be another client's by then: the way is shut before, in the same turn of the loop."""
    sock, connection, channel = await start_three_listeners(hub)
    (ways,) = channel.live_descriptors.values()
    sock.close()
    async with asyncio.timeout(PATIENCE):
        while connection in hub.node.registry.connections:
            for way in ways.values():
                if way >= 0:
                    os.fstat(way)  # fails where it is closed
            await asyncio.sleep(0)


async def test_a_socket_that_takes_nothing_just_now_is_not_lost(hub: Hub) -> None:
    """Its transport keeps what came, and waits for room."""
    sock, connection, channel = await start_three_listeners(hub)
    with sock:
        filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += os.write(connection.transport.socket_descriptor, PING * 50_000)
        assert filled % len(PING) == 0 and connection.transport.get_unsent_bytes() == 0
        say(hub, channel, "last")
        assert not connection.is_closed and connection.transport.get_unsent_bytes() > 0
        got = await read_until(sock)
    assert got[:filled] == PING * (filled // len(PING)) and len(list(frames(got[filled:]))) == 1


@pytest.mark.parametrize("full", [False, True])
async def test_who_was_cut_off_hears_nothing_more(hub: Hub, full: bool) -> None:
    """Also where the socket is still open, and has room: what it was owed is gone, and a frame may be cut in two."""
    sock, connection, channel = await start_three_listeners(hub)
    with sock:
        if full:
            fill(connection)
            sock.recv(1 << 20)
        connection.abort()
        say(hub, channel, "last")
        assert b"last" not in await read_until(sock)
    for other in hub.clients:
        assert (await other.next())["content"] == "last"


async def test_one_whose_socket_is_reset_is_lost_alone(hub: Hub) -> None:
    """The others hear what comes with it, and after it."""
    sock, connection, channel = await start_three_listeners(hub)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    for text in ("first", "last"):
        say(hub, channel, text)
    assert connection.is_closed
    for other in hub.clients:
        assert [(await other.next())["content"] for _ in range(2)] == ["first", "last"]


async def test_a_silent_client_is_pinged_and_one_that_does_not_answer_is_dropped(hub: Hub) -> None:
    """One that answers the hub's pings stays."""
    await hub.start(ping_seconds=0.1, pong_seconds=0.1)
    deaf = await hub.connect(autoping=False)
    alive = await hub.connect("?sessionId=s1")
    listening = asyncio.create_task(alive.next())
    async with asyncio.timeout(PATIENCE):
        while (await deaf.ws.receive()).type is aiohttp.WSMsgType.PING:
            pass
    assert len(hub.node.registry.connections) == 1
    other = await hub.connect()
    await other.send(type="chat", agentId="echo", sessionId="s1", message="x")
    async with asyncio.timeout(PATIENCE):
        assert (await listening)["content"] == "x "

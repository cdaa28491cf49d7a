"""Frames are merged up to the frame rate, written directly to sockets, and silent clients are found by pings."""

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
from support.waiting import PATIENCE, eventually

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


# Yields five words, and waits after each of them for the file with its number in the folder that the message names.
STEPS = """
import asyncio, pathlib

async def steps(message: str):
    for n in range(5):
        yield f"{n} "
        while not pathlib.Path(message, str(n)).exists():
            await asyncio.sleep(0.001)
"""


async def test_the_first_chunk_after_a_pause_is_sent_at_once(hub: Hub) -> None:
    """Even if the frame rate allows only one frame in a hundred seconds."""
    hub.options = {"frames_per_second": 0.01}
    await hub.start()
    client = await hub.connect()
    await client.send(type="chat", agentId="gated", sessionId="s1", message=str(hub.folder / "gate"))
    assert (await client.next())["content"] == "one "
    (hub.folder / "gate").touch()
    await client.until_done()
    assert client.text() == "one two"


async def test_chunks_that_come_faster_than_the_frame_rate_are_merged(hub: Hub) -> None:
    """The first chunk is sent at once, the rest with the end of the run. The end does not wait for a frame."""
    hub.agent("steady.py", STEADY)
    hub.options = {"frames_per_second": 0.01}
    await hub.start()
    client = await hub.connect()
    await client.send(type="chat", agentId="steady", message="go")
    await client.until_done()
    assert client.text() == "".join(f"{n} " for n in range(30))
    assert [f["content"] for f in client.frames if f["content"]] == ["0 ", "".join(f"{n} " for n in range(1, 30))]


async def test_without_a_frame_rate_every_commit_is_sent_as_a_frame(hub: Hub) -> None:
    """frames_per_second = 0 removes the limit: only chunks that come during a commit are merged."""
    hub.agent("steps.py", STEPS)
    hub.options = {"frames_per_second": 0}
    await hub.start()
    client = await hub.connect()
    await client.send(type="chat", agentId="steps", message=str(hub.folder))
    for number in range(5):
        assert (await client.next())["content"] == f"{number} "
        (hub.folder / str(number)).touch()
    assert (await client.next())["done"]


async def test_an_event_is_encoded_once_for_all_clients_of_a_protocol(hub: Hub) -> None:
    """All clients of a protocol get the same bytes."""
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
    """Write until the socket is full, and the transport buffers the rest."""
    while not connection.transport.get_unsent_bytes():
        connection.write(text_frame(orjson.dumps({"content": "x" * 4000})))


async def test_a_direct_write_does_not_overtake_buffered_frames(hub: Hub) -> None:
    """A full socket drains before its transport notices. A new frame then still waits behind the buffered frames."""
    sock, connection, channel = await start_three_listeners(hub)
    with sock:
        fill(connection)
        data = sock.recv(1 << 20)  # no await between this line and say(): the loop cannot write meanwhile
        say(hub, channel, "last")
        *fillers, last = frames(data + await read_until(sock))
    for other in hub.clients:
        assert (await other.next())["content"] == "last"
    assert last["content"] == "last" and {frame["content"] for frame in fillers} == {"x" * 4000}


async def test_direct_writes_resume_after_the_client_has_read_all_data(hub: Hub) -> None:
    sock, connection, channel = await start_three_listeners(hub)
    with sock:
        fill(connection)
        (descriptors,) = channel.live_descriptors.values()
        assert sorted(descriptors.values())[0] == -1 and sorted(descriptors.values())[1] > 0
        say(hub, channel, "last")
        await read_until(sock)
        assert (
            set(descriptors.values()) == {sub.connection.transport.socket_descriptor for sub in descriptors}
            and connection.transport.write_descriptor == connection.transport.socket_descriptor
        )


async def test_the_hub_never_writes_to_a_closed_descriptor(hub: Hub) -> None:
    """The number could belong to another client by then. The hub forgets it in the step that closes the socket."""
    sock, connection, channel = await start_three_listeners(hub)
    (descriptors,) = channel.live_descriptors.values()
    sock.close()
    async with asyncio.timeout(PATIENCE):
        while connection in hub.node.registry.connections:
            for descriptor in descriptors.values():
                if descriptor >= 0:
                    os.fstat(descriptor)  # fails if the descriptor is closed
            await asyncio.sleep(0)


async def test_a_full_socket_is_not_closed(hub: Hub) -> None:
    """The transport buffers the new frame, and waits until the socket is writable."""
    sock, connection, channel = await start_three_listeners(hub)
    with sock:
        filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += os.write(connection.transport.socket_descriptor, PING * 50_000)
        assert filled % len(PING) == 0 and connection.transport.get_unsent_bytes() == 0
        say(hub, channel, "last")
        assert not connection.is_closed and connection.transport.get_unsent_bytes() > 0
        data = await read_until(sock)
    assert data[:filled] == PING * (filled // len(PING)) and len(list(frames(data[filled:]))) == 1


@pytest.mark.parametrize("full", [False, True])
async def test_an_aborted_client_gets_no_more_frames(hub: Hub, full: bool) -> None:
    """Even if its socket is still open and writable: its buffer is lost, and the last frame may be incomplete."""
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


async def test_a_reset_socket_closes_only_its_own_connection(hub: Hub) -> None:
    """Other clients get the event that found the reset, and the next one."""
    sock, connection, channel = await start_three_listeners(hub)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    for text in ("first", "last"):
        say(hub, channel, text)
    assert connection.is_closed
    for other in hub.clients:
        assert [(await other.next())["content"] for _ in range(2)] == ["first", "last"]


async def test_a_client_that_does_not_answer_a_ping_is_dropped(hub: Hub) -> None:
    """A client that answers the pings of the hub stays connected."""
    await hub.start(ping_seconds=0.1, pong_seconds=0.1)
    unresponsive = await hub.connect(autoping=False)
    alive = await hub.connect("?sessionId=s1")
    listening = asyncio.create_task(alive.next())
    async with asyncio.timeout(PATIENCE):
        while (await unresponsive.ws.receive()).type is aiohttp.WSMsgType.PING:
            pass
    await eventually(lambda: len(hub.node.registry.connections) == 1)
    other = await hub.connect()
    await other.send(type="chat", agentId="echo", sessionId="s1", message="x")
    async with asyncio.timeout(PATIENCE):
        assert (await listening)["content"] == "x "

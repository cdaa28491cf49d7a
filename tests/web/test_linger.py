"""The lingering close: the close frame of the hub arrives, although the client still sends."""

import asyncio
import socket
import struct
import tracemalloc
from collections.abc import Callable

import aiohttp
import pytest
import websocket
import websockets
from support.hub import Hub
from support.node import needs_node, run_node
from support.people import People
from support.sockets import client_frame, open_websocket, send_endless_frame
from support.waiting import PATIENCE, eventually

from hub.access.principal import OPERATOR
from hub.commands import table as commands
from hub.delivery.linger import is_answer
from hub.limits import MiB
from hub.web.websocket import SOCKETS_KEY

LARGE = 20 * MiB  # more than the buffers of both sockets hold
TOO_BIG = "a message may have at most 1 MiB"
VIOLATION = "a frame violates the WebSocket protocol"


def long_frame(head: int, size: int) -> bytes:
    """Return the head of a masked client frame with *size* bytes; its first byte is *head*. The mask is zero."""
    return struct.pack("!BBQL", head, 0xFF, size, 0)


async def with_websocket_client(hub: Hub) -> tuple[int, str]:
    def talk() -> tuple[int, str]:
        client = websocket.create_connection(f"ws://127.0.0.1:{hub.port}/api/v1/ws", timeout=PATIENCE)
        try:
            client.send("x" * LARGE)
            _, data = client.recv_data()
        finally:
            client.shutdown()  # type: ignore[no-untyped-call]
        return int.from_bytes(data[:2], "big"), data[2:].decode()

    return await asyncio.to_thread(talk)


async def with_aiohttp(hub: Hub) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{hub.url}/api/v1/ws", compress=15) as client:
        await client.send_bytes(bytes(LARGE))
        message = await client.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE
        return message.data, message.extra or ""


async def with_websockets(hub: Hub) -> tuple[int, str]:
    async with websockets.connect(f"ws://127.0.0.1:{hub.port}/api/v1/ws") as client:  # it offers permessage-deflate
        with pytest.raises(websockets.ConnectionClosed) as caught:
            await client.send("x" * LARGE)
            await client.recv()
        assert caught.value.rcvd is not None
        return caught.value.rcvd.code, caught.value.rcvd.reason


@pytest.mark.parametrize("talk", [with_websocket_client, with_aiohttp, with_websockets])
async def test_a_client_that_sends_a_large_message_reads_1009(
    hub: Hub, talk: Callable[[Hub], "asyncio.Future[tuple[int, str]]"]
) -> None:
    """The hub agrees on no compression, so a client sends the message as it is."""
    await hub.start()
    assert await asyncio.wait_for(talk(hub), PATIENCE) == (1009, TOO_BIG)
    await eventually(lambda: not hub.app[SOCKETS_KEY])


@needs_node
async def test_a_program_of_node_that_sends_a_large_message_reads_1009(hub: Hub) -> None:
    await hub.start()
    assert (await run_node("large_frame.js", f"ws://127.0.0.1:{hub.port}/api/v1/ws")).strip() == f"1009 {TOO_BIG}"


def send_and_read(sock: socket.socket, first: bytes, more: bytes) -> tuple[int, bytes]:
    """Send *first*, and then *more* without reading, answer the close frame, and return its code and the bytes before.

    Fail if the connection is reset, or stays open.
    """
    sock.sendall(first)
    for start in range(0, len(more), 65536):
        sock.sendall(more[start : start + 65536])
    data = b""
    while b"\x88" not in data:
        data += sock.recv(65536)
    before, _, frame = data.partition(b"\x88")
    sock.sendall(client_frame(frame[1:3], 8))
    assert sock.recv(65536) == b""
    return int.from_bytes(frame[1:3], "big"), before


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (long_frame(0x82, LARGE), 1009),
        (long_frame(0x02, MiB // 2) + bytes(MiB // 2) + long_frame(0x80, MiB), 1009),  # a message in fragments
        (long_frame(0xC2, LARGE), 1002),  # compressed, which nobody has agreed on
        (long_frame(0x83, LARGE), 1002),  # an unknown opcode
        (client_frame(b"\xff"), 1007),
        (client_frame(b"\xff") + long_frame(0x83, LARGE), 1007),
        (client_frame(b"{}") * 11, 4501),
    ],
    ids=["large", "fragments", "compressed", "opcode", "text", "text and opcode", "bad frames"],
)
async def test_the_close_frame_arrives_while_the_client_still_sends(hub: Hub, first: bytes, code: int) -> None:
    """And its answer ends the connection, also where no frame can be read any more."""
    await hub.start(close_seconds=PATIENCE, linger_seconds=PATIENCE)
    more = (long_frame(0x82, MiB) + bytes(MiB)) * (LARGE // MiB)
    with await asyncio.to_thread(open_websocket, hub.port, "/api/v1/ws") as sock:
        assert (await asyncio.to_thread(send_and_read, sock, first, more))[0] == code
    await eventually(lambda: not hub.app[SOCKETS_KEY])


async def send_many(ws: aiohttp.ClientWebSocketResponse) -> None:
    for _ in range(LARGE // MiB):
        await ws.send_json({"type": "ping", "pad": "x" * (MiB - 100)})


async def test_a_client_whose_key_is_revoked_while_it_sends_reads_4503(hub: Hub) -> None:
    hub.options["sign_in"] = True
    await hub.start(close_seconds=PATIENCE, linger_seconds=PATIENCE)
    people = People(hub)
    await people.add("ann")
    client = await people.connect("ann")
    sending = asyncio.create_task(send_many(client.ws))
    await client.until_type("pong")
    await commands.revoke_credential(hub.door, OPERATOR, people.keys["ann"].split("_")[1])
    await sending
    assert await client.wait_closed() == 4503
    await eventually(lambda: not hub.app[SOCKETS_KEY])


async def test_a_client_that_is_silent_after_the_close_frame_is_cut_soon(hub: Hub) -> None:
    await hub.start(close_seconds=0.1, linger_seconds=1e6)
    with await asyncio.to_thread(open_websocket, hub.port, "/api/v1/ws") as sock:
        await asyncio.to_thread(sock.sendall, long_frame(0x82, LARGE))
        await eventually(lambda: not hub.app[SOCKETS_KEY])


async def test_the_hub_keeps_nothing_of_what_it_drops(hub: Hub) -> None:
    await hub.start(linger_bytes=200 * MiB, linger_seconds=1e6)
    tracemalloc.start()
    try:
        sent_bytes = await send_endless_frame(hub.port)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sent_bytes > 190 * MiB and peak < 4 * MiB


def test_only_a_close_frame_at_the_end_is_an_answer() -> None:
    """With the code of the hub, or with 1000; and with any mask and any reason."""
    masked = b"\x88\x82" + b"\x01\x02\x03\x04" + bytes([0x03 ^ 1, 0xF1 ^ 2])
    with_reason = b"\x88\x85\0\0\0\0" + struct.pack("!H", 1009) + b"bye"
    for frame in (masked, with_reason, client_frame(struct.pack("!H", 1000), 8)):
        assert is_answer(frame, 1009) and is_answer(b"x" * 125 + frame, 1009)
        assert not is_answer(frame + b"x", 1009) and not is_answer(frame[:-1], 1009)
    assert not is_answer(masked, 1002) and not is_answer(b"", 1009) and not is_answer(b"\x88\x80\0\0\0\0", 1009)

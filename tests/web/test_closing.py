"""The close code of a WebSocket, for each row of the table of close codes. The close frame is the last frame."""

import asyncio
import socket
import struct
from typing import Any

import aiohttp
import pytest
import structlog
from support.hub import Hub
from support.sockets import client_frame, open_websocket, read_until
from support.waiting import PATIENCE, eventually

from hub.errors import Draining, HubError, SessionDeleted, StorageUnavailable
from hub.web.websocket import close_all_sockets

WS = "/api/v1/ws"
PING_FRAME = client_frame(b"", 9)
# Yields words until it is stopped.
FLOOD = """
import asyncio

async def flood(message: str):
    while True:
        yield "word "
        await asyncio.sleep(0)
"""


def split(data: bytes) -> list[tuple[int, bytes]]:
    """Return the (opcode, payload) of each frame; fail if the last frame is incomplete."""
    frames = []
    while data:
        size, head = data[1], 2
        if size >= 126:
            wide = "!H" if size == 126 else "!Q"
            (size,), head = struct.unpack_from(wide, data, 2), 2 + struct.calcsize(wide)
        assert len(data) >= head + size, "a frame is cut off"
        frames.append((data[0] & 15, data[head : head + size]))
        data = data[head + size :]
    return frames


async def read_to_end(sock: socket.socket) -> list[tuple[int, bytes]]:
    """Return all frames until the hub closes the connection."""
    data = b""
    while more := await asyncio.wait_for(asyncio.to_thread(sock.recv, 1 << 20), PATIENCE):
        data += more
    return split(data)


def code_of(frame: tuple[int, bytes]) -> int:
    opcode, payload = frame
    assert opcode == 8
    return int.from_bytes(payload[:2], "big")


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        *((code, code) for code in (1000, 1001, 1003, 1008, 1011, 3000, 4000, 4321, 4999)),
        *((code, 1002) for code in (0, 999, 1004, 1005, 1006, 1015, 1100, 2999, 5000, 65535)),
        (None, 1000),
    ],
)
async def test_a_close_frame_is_answered_with_the_same_code(hub: Hub, sent: int | None, answered: int) -> None:
    """RFC 6455, 5.5.1. A code that may not be in a frame (7.4) gets 1002, and a frame without a code gets 1000."""
    await hub.start()
    with await asyncio.to_thread(open_websocket, hub.port, WS) as sock:
        payload = b"" if sent is None else struct.pack("!H", sent) + b"bye"
        await asyncio.to_thread(sock.sendall, client_frame(payload, 8))
        (frame,) = await read_to_end(sock)
    assert code_of(frame) == answered
    await eventually(lambda: not hub.node.registry.connections)


@pytest.mark.parametrize(("last", "code"), [(client_frame(b"{}") * 11, 4501), (client_frame(b"\xff"), 1007)])
async def test_the_hub_sends_no_frame_after_its_close_frame(hub: Hub, last: bytes, code: int) -> None:
    """Even while an agent streams, and the client has not yet answered the close frame."""
    hub.agent("flood.py", FLOOD)
    await hub.start(close_seconds=PATIENCE)
    other = await hub.connect("?sessionId=s1")
    with await asyncio.to_thread(open_websocket, hub.port, f"{WS}?sessionId=s1") as sock:
        await other.send(type="chat", agentId="flood", sessionId="s1", message="go")
        data = await read_until(sock, b"word")
        await asyncio.to_thread(sock.sendall, last)
        data += await read_until(sock, struct.pack("!H", code))
        for _ in range(20):
            await other.until_type("stream")
        await asyncio.to_thread(sock.sendall, client_frame(b"\x03\xe8", 8))
        data += await read_until(sock, b"nothing more")
    frames = split(data)
    assert [opcode for opcode, _ in frames].index(8) == len(frames) - 1
    assert code_of(frames[-1]) == code
    await other.send(type="cancel", sessionId="s1")
    await other.until_done()


async def test_a_connection_lost_before_its_pongs_logs_no_error(hub: Hub) -> None:
    """The client sends pings and resets the connection, so the hub cannot write the pongs."""
    await hub.start()
    with structlog.testing.capture_logs() as lines:
        for _ in range(20):
            sock = await asyncio.to_thread(open_websocket, hub.port, WS)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(PING_FRAME * 100)
            sock.close()
        await eventually(lambda: not hub.node.registry.connections)
    assert not lines


@pytest.mark.parametrize("over", [0, 1])
async def test_too_many_bad_frames_close_with_4501(hub: Hub, over: int) -> None:
    """Ten a minute are allowed, also between valid frames. Each bad frame gets an error, also the last."""
    await hub.start()
    client = await hub.connect()
    for number in range(10 + over):
        await client.send(type="ping")
        await client.send(type="dance", ref=number)
        assert (await client.next())["type"] == "pong"
        error = await client.next()
        assert (error["code"], error["ref"]) == ("unknown_type", number)
    if over:
        message = await asyncio.wait_for(client.ws.receive(), PATIENCE)
        assert (message.data, message.extra) == (4501, "unknown_type")
    else:
        await client.send(type="ping")
        assert await client.next() == {"type": "pong"}


async def test_a_client_that_ignores_the_rate_limit_is_closed_with_4004(hub: Hub) -> None:
    """First it gets errors with the `ref` of the command and `retryAfterMs`."""
    await hub.start(commands_per_second=1, command_burst=20)
    client = await hub.connect()
    for number in range(60):  # 20 are accepted, 20 are refused; only a hub that blocks for 20 s accepts all
        await client.send(type="ping", ref=number)
    assert await client.wait_closed() == 4004
    pongs = [frame for frame in client.frames if frame["type"] == "pong"]
    errors = [frame for frame in client.frames if frame["type"] == "error"]
    assert len(pongs) >= 20 and {frame["type"] for frame in client.frames[:20]} == {"pong"}
    assert {error["code"] for error in errors} == {"rate_limited"} and 0 < errors[0]["retryAfterMs"] <= 1000
    assert errors[-1]["retryAfterMs"] > 19_000 and "more than 1 command" in errors[0]["message"]
    assert [frame["ref"] for frame in client.frames] == list(range(len(client.frames)))


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (StorageUnavailable("the disk fails"), 1013),
        (SessionDeleted("s1"), 1013),
        (Draining("the hub is going down"), 1012),
        (HubError("a fault of the hub"), 1011),
        (RuntimeError("a fault of the hub"), 1011),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else str(one),
)
async def test_a_session_in_the_address_that_cannot_be_opened_closes_the_socket(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, fault: Exception, code: int
) -> None:
    """The close code says whether to reconnect. An error names the cause, unless it is a fault of the hub."""
    await hub.start()

    async def fail(key: str) -> Any:
        raise fault

    monkeypatch.setattr(hub.node.log.sessions, "find", fail)
    with structlog.testing.capture_logs() as lines:
        client = await hub.connect("?sessionId=s1")
        assert await client.wait_closed() == code
    has_error_frame = isinstance(fault, HubError)
    assert [frame["code"] for frame in client.frames] == ([fault.code] if isinstance(fault, HubError) else [])
    assert [line["event"] for line in lines] == ([] if has_error_frame else ["a connection failed"])


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\xc1\x80\0\0\0\0", 1002),  # a reserved bit
        (b"\x83\x80\0\0\0\0", 1002),  # an unknown opcode
        (b"\x80\x80\0\0\0\0", 1002),  # a continuation without a first frame
        (b"\x81\xfe\x40\x00\0\0\0\0" + b"x" * 0x4000, 1009),  # larger than the limit
    ],
    ids=["reserved", "opcode", "continuation", "large"],
)
async def test_a_frame_that_violates_the_websocket_protocol_closes_the_socket(
    hub: Hub, frame: bytes, code: int
) -> None:
    await hub.start(frame_bytes=1000)
    with await asyncio.to_thread(open_websocket, hub.port, WS) as sock:
        await asyncio.to_thread(sock.sendall, frame + client_frame(b"\x03\xe8", 8))
        *_, last = await read_to_end(sock)
    assert code_of(last) == code


async def test_a_hub_that_stops_closes_with_1012(hub: Hub) -> None:
    await hub.start()
    client = await hub.connect()
    closing = asyncio.create_task(close_all_sockets(hub.app, hub.door, 1012))
    assert await client.wait_closed() == 1012
    await asyncio.wait_for(closing, PATIENCE)


async def test_a_hub_that_stops_waits_for_the_answers_of_its_clients(hub: Hub) -> None:
    """Until then, it keeps the connections open (RFC 6455, 7.1.1): a proxy passes the loss on with the close frame."""
    await hub.start(close_seconds=PATIENCE)
    with await asyncio.to_thread(open_websocket, hub.port, WS) as sock:
        closing = asyncio.create_task(close_all_sockets(hub.app, hub.door, 1012))
        await read_until(sock, struct.pack("!H", 1012))
        async with aiohttp.ClientSession() as http, http.get(f"{hub.url}/health"):
            pass  # the hub has done its other work
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        assert not closing.done()
        sock.setblocking(True)
        await asyncio.to_thread(sock.sendall, client_frame(struct.pack("!H", 1012), 8))
        assert await read_to_end(sock) == []
        await asyncio.wait_for(closing, PATIENCE)


async def test_a_client_that_sends_while_the_hub_stops_is_closed_with_1012(hub: Hub) -> None:
    """Its frame is read after all subscriptions are removed, and before the sockets are closed."""
    await hub.start()
    client = await hub.connect()
    hub.door.drain()
    hub.door.stop_delivery()
    await client.send(type="ping")
    assert await client.wait_closed() == 1012


async def test_a_client_that_connects_after_all_sockets_were_closed_is_refused(hub: Hub) -> None:
    """With 503: nobody would send it a close frame any more."""
    await hub.start()
    hub.door.drain()
    hub.door.stop_delivery()
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await hub.connect()
    assert refusal.value.status == 503

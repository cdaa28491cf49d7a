"""With which code a socket is closed, and that the close frame is the last: each row of the table of close codes."""

import asyncio
import socket
import struct
from typing import Any

import pytest
import structlog
from support.hub import Hub
from support.sockets import client_frame, open_websocket, read_until
from support.waiting import PATIENCE, eventually

from hub.access.principal import Principal
from hub.errors import Draining, HubError, SessionDeleted, StorageUnavailable
from hub.web.websocket import close_all_sockets

WS = "/api/v1/ws"
PING_FRAME = client_frame(b"", 9)
# Says words until it is stopped.
FLOOD = """
import asyncio

async def flood(message: str):
    while True:
        yield "word "
        await asyncio.sleep(0)
"""


def split(data: bytes) -> list[tuple[int, bytes]]:
    """Return the (opcode, payload) of each frame; the last must be whole."""
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


async def to_the_end(sock: socket.socket) -> list[tuple[int, bytes]]:
    """Read until the hub ends the stream of bytes."""
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
async def test_a_close_is_answered_with_its_own_code(hub: Hub, sent: int | None, answered: int) -> None:
    """RFC 6455, 5.5.1; 1002 where the code may not be in a frame (7.4). One without a code gets 1000."""
    await hub.start()
    with await asyncio.to_thread(open_websocket, hub.port, WS) as sock:
        payload = b"" if sent is None else struct.pack("!H", sent) + b"bye"
        await asyncio.to_thread(sock.sendall, client_frame(payload, 8))
        (frame,) = await to_the_end(sock)
    assert code_of(frame) == answered
    await eventually(lambda: not hub.node.registry.connections)


@pytest.mark.parametrize(("last", "code"), [(client_frame(b"{}") * 11, 4501), (client_frame(b"\xff"), 1007)])
async def test_nothing_comes_after_the_close_frame(hub: Hub, last: bytes, code: int) -> None:
    """Though the client does not answer it yet, and would hear more of an answer that goes on."""
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


async def test_a_client_that_is_lost_after_its_pings_is_no_error(hub: Hub) -> None:
    """Its pongs find no socket any more."""
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
async def test_one_bad_frame_too_many_closes_with_4501(hub: Hub, over: int) -> None:
    """Each has its error, also the last; ten a minute are forgiven, whatever else was sent."""
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


async def test_one_who_goes_on_sending_too_fast_is_closed_with_4004(hub: Hub) -> None:
    """After errors that name their `ref`, and say when to go on."""
    await hub.start(commands_per_second=1, command_burst=20)
    client = await hub.connect()
    for number in range(60):  # 20 are allowed, 20 are refused; the hub must stand still for 20 s to take all
        await client.send(type="ping", ref=number)
    assert await client.wait_closed() == 4004
    pongs = [frame for frame in client.frames if frame["type"] == "pong"]
    errors = [frame for frame in client.frames if frame["type"] == "error"]
    assert len(pongs) >= 20 and {frame["type"] for frame in client.frames[:20]} == {"pong"}
    assert {error["code"] for error in errors} == {"rate_limited"} and 0 < errors[0]["retryAfterMs"] <= 1000
    assert errors[-1]["retryAfterMs"] > 19_000 and "more than 1 command" in errors[0]["message"]
    assert [frame["ref"] for frame in client.frames] == list(range(len(client.frames)))


@pytest.mark.parametrize(("query", "protocols"), [("", ()), ("?sessionId=s1", ()), ("", ("hubbub.v1",))])
async def test_one_who_may_not_read_is_closed_with_4507(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, query: str, protocols: tuple[str, ...]
) -> None:
    """After the error `denied`; in each protocol, whether it names a session or none."""
    await hub.start()
    writer = Principal(id="writer", name="Writer", may=frozenset({"write"}))
    monkeypatch.setattr("hub.web.websocket.principal_of", lambda request: writer)
    client = await hub.connect(query, protocols=protocols)
    assert await client.wait_closed() == 4507
    assert [frame["code"] for frame in client.frames] == ["denied"]
    await eventually(lambda: not hub.node.registry.connections)


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
async def test_a_session_in_the_address_that_cannot_be_had(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, fault: Exception, code: int
) -> None:
    """An error says why, unless the hub failed; the code says whether to come again."""
    await hub.start()

    async def fail(key: str) -> Any:
        raise fault

    monkeypatch.setattr(hub.node.log.sessions, "find", fail)
    with structlog.testing.capture_logs() as lines:
        client = await hub.connect("?sessionId=s1")
        assert await client.wait_closed() == code
    is_told = isinstance(fault, HubError)
    assert [frame["code"] for frame in client.frames] == ([fault.code] if isinstance(fault, HubError) else [])
    assert [line["event"] for line in lines] == ([] if is_told else ["a connection failed"])


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\xc1\x80\0\0\0\0", 1002),  # a reserved bit
        (b"\x83\x80\0\0\0\0", 1002),  # an opcode that is none
        (b"\x80\x80\0\0\0\0", 1002),  # goes on with what was not begun
        (b"\x81\xfe\x40\x00\0\0\0\0" + b"x" * 0x4000, 1009),  # larger than the limit
    ],
    ids=["reserved", "opcode", "continuation", "large"],
)
async def test_a_frame_that_breaks_the_rules_of_websockets(hub: Hub, frame: bytes, code: int) -> None:
    await hub.start(frame_bytes=1000)
    with await asyncio.to_thread(open_websocket, hub.port, WS) as sock:
        await asyncio.to_thread(sock.sendall, frame + client_frame(b"\x03\xe8", 8))
        *_, last = await to_the_end(sock)
    assert code_of(last) == code


async def test_a_hub_that_ends_closes_with_1012(hub: Hub) -> None:
    await hub.start()
    client = await hub.connect()
    closing = asyncio.create_task(close_all_sockets(hub.app, hub.door, 1012))
    assert await client.wait_closed() == 1012
    await asyncio.wait_for(closing, PATIENCE)


async def test_a_client_that_sends_while_the_hub_ends_is_closed_with_1012(hub: Hub) -> None:
    """Though its frame is read between the two steps in which all are left, and closed."""
    await hub.start()
    client = await hub.connect()
    hub.door.drain()
    hub.door.leave_all()
    await client.send(type="ping")
    assert await client.wait_closed() == 1012

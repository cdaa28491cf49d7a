"""What a transport tells its connection past aiohttp: clients that go, that do not read, that come again."""

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
from pathlib import Path

import aiohttp
import orjson
from aiohttp import web
from support.crowd import say, start_three_listeners
from support.faults import faulty
from support.hub import Hub
from support.sockets import PING, client_frame, open_websocket, read_until
from support.waiting import PATIENCE, eventually

from hub.delivery.connection import Connection
from hub.ids import Key
from hub.limits import MiB

EVENTS = "/api/v1/sessions/s1/events"


def listening(port: int, window: int = 0) -> socket.socket:
    """Open a stream of s1's events."""
    sock = socket.socket()
    if window:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    sock.settimeout(PATIENCE)
    sock.connect(("127.0.0.1", port))
    sock.sendall(f"GET {EVENTS} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n\r\n".encode())
    return sock


async def streaming(hub: Hub, window: int = 0) -> tuple[socket.socket, Connection]:
    """Start a hub with a listener over HTTP beside one that keeps the session."""
    await hub.start()
    await hub.connect("?sessionId=s1")
    sock = await asyncio.to_thread(listening, hub.port, window)
    await hub.wait_until_live("s1", 2)
    (connection,) = [one for one in hub.node.registry.connections if one.protocol.name == "sse"]
    return sock, connection


async def test_what_was_sent_before_the_end_of_a_socket_is_done(hub: Hub) -> None:
    """A script that says eight things and goes: all had come."""
    await hub.start()
    sock = await asyncio.to_thread(open_websocket, hub.port, "/api/v1/ws")
    said = [{"type": "chat", "agentId": "echo", "sessionId": f"s{n}", "message": "x"} for n in range(8)]
    sock.sendall(b"".join(client_frame(orjson.dumps(one)) for one in said))
    sock.close()
    # The client has left before its commands are done: neither its connection nor the sessions tell when that is.
    async with asyncio.timeout(PATIENCE):
        while not all([await hub.node.log.sessions.read_last_messages(Key(f"s{n}"), 10, MiB) for n in range(8)]):
            await asyncio.sleep(0.01)


async def test_one_that_cannot_be_written_to_is_still_read(hub: Hub) -> None:
    """uvloop raises where a socket is lost, before it says so; what has come by then is done."""
    await hub.start()
    client = await hub.connect("?sessionId=s1")
    (connection,) = hub.node.registry.connections

    def fail(data: bytes) -> None:
        raise RuntimeError("unable to perform operation on a closed transport")

    with faulty(connection.transport, write=fail):
        connection.write(PING)
    await client.send(type="chat", agentId="echo", sessionId="s2", message="x")
    async with asyncio.timeout(PATIENCE):
        while not await hub.node.log.sessions.read_last_messages(Key("s2"), 1, MiB):
            await asyncio.sleep(0.01)
    assert connection.transport.is_lost


async def test_the_sweep_waits_for_no_client(hub: Hub) -> None:
    """Even where a ping meets a full socket, and aiohttp has counted so much that it would wait for room."""
    sock, connection, _ = await start_three_listeners(hub)
    sock.settimeout(PATIENCE)

    async def ping(size: int) -> None:
        await asyncio.to_thread(sock.sendall, client_frame(b"x" * size, 9))
        left = size + 2
        while left:
            left -= len(await asyncio.to_thread(sock.recv, left))

    with sock:
        pongs, rest = divmod(1 << 18, 127)
        for _ in range(pongs):
            await ping(125)
        await ping(max(rest - 2, 0))
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(connection.transport.socket_descriptor, PING * 50_000)
        assert connection.transport.get_unsent_bytes() == 0
        connection.receive_time = -1e9  # silent for long
        await hub.door.upkeep._sweep()
        assert connection.transport.get_unsent_bytes() == 2 and not connection.is_closed  # nobody had to cut it off


async def test_a_slow_stream_is_ended_once(hub: Hub) -> None:
    """A second end would be the head of another answer."""
    sock, connection = await streaming(hub, 4096)
    with sock:
        while not connection.transport.get_unsent_bytes():
            connection.write(b"fa0\r\n:" + b"x" * 3997 + b"\n\n\r\n")
        before = connection.transport.get_unsent_bytes()
        hub.node.registry.remove(connection)  # its handler ends it at its next look
        await eventually(lambda: connection.transport.get_unsent_bytes() == before + 5)
        got = await read_until(sock, b"0\r\n\r\n")
        assert got.count(b"0\r\n\r\n") == 1 and not sock.recv(1)


async def test_a_stream_ends_with_its_connection(hub: Hub) -> None:
    """What was written past aiohttp is not followed by another answer: the client connects anew, and is not cut off."""
    sock, connection = await streaming(hub)
    with sock:
        hub.node.registry.remove(connection)
        got = await read_until(sock, b"\r\n0\r\n\r\n")
        assert b"Connection: close" in got and not sock.recv(1)
    with await asyncio.to_thread(listening, hub.port) as again:
        await hub.wait_until_live("s1", 2)
        say(hub, hub.node.sessions[Key("s1")].channel, "last")
        assert b"last" in await read_until(again)


async def test_over_tls_what_a_client_reads_makes_room(hub: Hub, tmp_path: Path) -> None:
    """There nothing goes past the transport, which counts in another way."""
    await hub.start()
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"
    subprocess.run([*made.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(cert, key)
    assert hub._runner is not None
    site = web.TCPSite(hub._runner, "127.0.0.1", 0, ssl_context=served)
    await site.start()
    url = f"https://127.0.0.1:{site.port}/api/v1/ws?sessionId=s1"
    async with aiohttp.ClientSession() as http, http.ws_connect(url, ssl=False) as ws:
        await hub.wait_until_live("s1", 1)
        (connection,) = hub.node.registry.connections
        assert connection.transport.write_descriptor == -1
        count = 0
        while not connection.transport.is_above_high_water():
            connection.write(b"\x81\x7e\x0f\xa0" + b"x" * 4000)
            count += 1
        async with asyncio.timeout(PATIENCE):
            for _ in range(count):
                await ws.receive()
            await connection.wait_until_drained()
            say(hub, hub.node.sessions[Key("s1")].channel, "last")
            assert (await ws.receive_json())["content"] == "last"

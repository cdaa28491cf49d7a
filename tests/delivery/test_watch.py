"""Connections watch their transports directly, not through aiohttp: clients that leave, do not read, or reconnect."""

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


def open_event_stream(port: int, window: int = 0) -> socket.socket:
    """Open a stream of server-sent events of session s1."""
    sock = socket.socket()
    if window:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    sock.settimeout(PATIENCE)
    sock.connect(("127.0.0.1", port))
    sock.sendall(f"GET {EVENTS} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n\r\n".encode())
    return sock


async def start_event_stream(hub: Hub, window: int = 0) -> tuple[socket.socket, Connection]:
    """Start a hub with two listeners of s1: a WebSocket, and a stream over HTTP. Return the stream."""
    await hub.start()
    await hub.connect("?sessionId=s1")
    sock = await asyncio.to_thread(open_event_stream, hub.port, window)
    await hub.wait_until_live("s1", 2)
    (connection,) = [entry for entry in hub.node.registry.connections if entry.protocol.name == "sse"]
    return sock, connection


async def test_commands_sent_before_the_socket_closes_are_executed(hub: Hub) -> None:
    """A script sends eight chats and closes its socket at once: the hub executes all eight."""
    await hub.start()
    sock = await asyncio.to_thread(open_websocket, hub.port, "/api/v1/ws")
    chats = [{"type": "chat", "agentId": "echo", "sessionId": f"s{n}", "message": "x"} for n in range(8)]
    sock.sendall(b"".join(client_frame(orjson.dumps(chat)) for chat in chats))
    sock.close()
    # The client leaves before its commands are executed, so neither its connection nor the sessions show the end.
    async with asyncio.timeout(PATIENCE):
        while not all([await hub.node.log.sessions.read_last_messages(Key(f"s{n}"), 10, MiB) for n in range(8)]):
            await asyncio.sleep(0.01)


async def test_a_connection_whose_writes_fail_is_still_read(hub: Hub) -> None:
    """uvloop raises on a write to a lost socket before it reports the loss. Commands received by then are executed."""
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


async def test_the_sweep_does_not_wait_for_a_client(hub: Hub) -> None:
    """Even if the socket of a pinged client is full, and aiohttp's own byte count would make a ping wait."""
    sock, connection, _ = await start_three_listeners(hub)
    sock.settimeout(PATIENCE)

    async def ping(size: int) -> None:
        await asyncio.to_thread(sock.sendall, client_frame(b"x" * size, 9))
        missing_bytes = size + 2
        while missing_bytes:
            missing_bytes -= len(await asyncio.to_thread(sock.recv, missing_bytes))

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
        assert connection.transport.get_unsent_bytes() == 2 and not connection.is_closed  # the sweep did not abort it


async def test_a_slow_stream_is_ended_once(hub: Hub) -> None:
    """A client would read a second end as the beginning of another response."""
    sock, connection = await start_event_stream(hub, 4096)
    with sock:
        while not connection.transport.get_unsent_bytes():
            connection.write(b"fa0\r\n:" + b"x" * 3997 + b"\n\n\r\n")
        before = connection.transport.get_unsent_bytes()
        hub.node.registry.remove(connection)  # its handler ends the stream at its next check
        await eventually(lambda: connection.transport.get_unsent_bytes() == before + 5)
        data = await read_until(sock, b"0\r\n\r\n")
        assert data.count(b"0\r\n\r\n") == 1 and not sock.recv(1)


async def test_the_end_of_a_stream_closes_its_tcp_connection(hub: Hub) -> None:
    """aiohttp does not know of the direct writes, so no other response may follow. The client can connect again."""
    sock, connection = await start_event_stream(hub)
    with sock:
        hub.node.registry.remove(connection)
        data = await read_until(sock, b"\r\n0\r\n\r\n")
        assert b"Connection: close" in data and not sock.recv(1)
    with await asyncio.to_thread(open_event_stream, hub.port) as second:
        await hub.wait_until_live("s1", 2)
        say(hub, hub.node.sessions[Key("s1")].channel, "last")
        assert b"last" in await read_until(second)


async def test_over_tls_the_buffer_drains_when_the_client_reads(hub: Hub, tmp_path: Path) -> None:
    """TLS connections have no direct writes, and their transports count buffered bytes in another way."""
    await hub.start()
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"
    subprocess.run([*command.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    assert hub._runner is not None
    site = web.TCPSite(hub._runner, "127.0.0.1", 0, ssl_context=tls)
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

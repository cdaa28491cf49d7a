"""Raw-socket WebSocket clients: the test decides when they read, and how much."""

import asyncio
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any

from support.waiting import PATIENCE

PING = b"\x89\x00"  # a complete frame


def make_upgrade(port: int, path: str) -> bytes:
    """Return the request of a WebSocket handshake."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


def open_websocket(port: int, path: str) -> socket.socket:
    """Connect, and complete the WebSocket handshake; return the socket."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    sock.sendall(make_upgrade(port, path))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 101")
    return sock


def small_window(address: tuple[Any, ...]) -> socket.socket:
    """Return a socket with a small receive buffer."""
    sock = socket.socket(address[0], address[1])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    return sock


def client_frame(data: bytes, opcode: int = 1) -> bytes:
    """Return a client frame (RFC 6455, 5.3) with at most 125 bytes of payload. The mask is four zero bytes."""
    assert len(data) < 126
    return bytes([0x80 | opcode, 0x80 | len(data)]) + b"\0\0\0\0" + data


def frames(data: bytes) -> Iterator[dict[str, Any]]:
    """Yield the parsed JSON payload of each server frame in *data*."""
    offset = 0
    while offset < len(data):
        size, head = data[offset + 1], 2
        if size >= 126:
            wide = "!H" if size == 126 else "!Q"
            (size,), head = struct.unpack_from(wide, data, offset + 2), 2 + struct.calcsize(wide)
        yield json.loads(data[offset + head : offset + head + size])
        offset += head + size


async def read_until(sock: socket.socket, mark: bytes = b"last") -> bytes:
    """Read until the data contains *mark*, or until the socket closes; return the data."""
    data = b""
    while mark not in data and (more := await asyncio.wait_for(asyncio.to_thread(sock.recv, 1 << 20), PATIENCE)):
        data += more
    return data


async def send_endless_frame(port: int) -> int:
    """Begin a frame of 1 GiB, and send it until the hub cuts the connection. Return the number of bytes sent."""
    sent_bytes, block = 0, bytes(65536)
    with await asyncio.to_thread(open_websocket, port, "/api/v1/ws") as sock:
        sock.setblocking(False)
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionError):
                await asyncio.get_running_loop().sock_sendall(sock, b"\x82\xff" + struct.pack("!QL", 1 << 30, 0))
                while sent_bytes < 1 << 30:
                    await asyncio.get_running_loop().sock_sendall(sock, block)
                    sent_bytes += len(block)
    return sent_bytes


async def read_response(port: int, request: bytes, host: str = "127.0.0.1") -> bytes:
    """Send bytes on a new connection, and return all bytes until the hub closes it, or b"" if it resets it."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(request)
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.transport.abort()


HEALTH_REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


class HttpConnection:
    """A TCP connection to a hub, for requests of HTTP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int, stack: AsyncExitStack, address: str = "127.0.0.1") -> "HttpConnection":
        """Connect from *address*; leaving *stack* resets the connection."""
        connection = cls(*await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0)))
        stack.callback(connection.writer.transport.abort)
        return connection

    async def get_health(self) -> int:
        """Send a request on this connection, and return the status of the response."""
        async with asyncio.timeout(PATIENCE):
            self.writer.write(HEALTH_REQUEST)
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            await self.reader.readexactly(int(headers["content-length"]))
        return int(head[0].split()[1])

    async def read_to_end(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

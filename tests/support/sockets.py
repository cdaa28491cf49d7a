"""Raw-socket WebSocket clients: the test decides when they read, and how much."""

import asyncio
import json
import socket
import struct
from collections.abc import Iterator
from typing import Any

from support.waiting import PATIENCE

PING = b"\x89\x00"  # a complete frame


def open_websocket(port: int, path: str) -> socket.socket:
    """Connect, and complete the WebSocket handshake; return the socket."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    sock.sendall(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 101")
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

"""Clients of a bare socket: what they read, and when, is the test's to say."""

import asyncio
import json
import socket
import struct
from collections.abc import Iterator
from typing import Any

from support.waiting import PATIENCE

PING = b"\x89\x00"  # a whole frame


def opened(port: int, path: str) -> socket.socket:
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


def masked(data: bytes, opcode: int = 1) -> bytes:
    """Return a frame of a client (RFC 6455, 5.3) with at most 125 bytes, masked with noughts."""
    assert len(data) < 126
    return bytes([0x80 | opcode, 0x80 | len(data)]) + b"\0\0\0\0" + data


def frames(data: bytes) -> Iterator[dict[str, Any]]:
    at = 0
    while at < len(data):
        size, head = data[at + 1], 2
        if size >= 126:
            wide = "!H" if size == 126 else "!Q"
            (size,), head = struct.unpack_from(wide, data, at + 2), 2 + struct.calcsize(wide)
        yield json.loads(data[at + head : at + head + size])
        at += head + size


async def heard(sock: socket.socket, mark: bytes = b"last") -> bytes:
    """Read until *mark* has come, or the end."""
    got = b""
    while mark not in got and (more := await asyncio.wait_for(asyncio.to_thread(sock.recv, 1 << 20), PATIENCE)):
        got += more
    return got

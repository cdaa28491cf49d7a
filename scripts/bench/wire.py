"""Raw WebSocket clients with little work per frame, so that the load program is not the bottleneck."""

import base64
import json
import os
import socket
import struct
from collections.abc import Iterator
from urllib.parse import urlencode

HOST = "127.0.0.1"


def handshake(port: int, path: str, bearer: str = "") -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        f"{f'Authorization: Bearer {bearer}' if bearer else 'X-Bench: 1'}\r\n\r\n"
    ).encode()


def hub_path(**query: object) -> str:
    return f"/api/v1/ws?{urlencode(query)}"


def connect(port: int, path: str, bearer: str = "") -> socket.socket:
    """Open a WebSocket; read nothing after the response to the handshake."""
    sock = socket.create_connection((HOST, port), timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(handshake(port, path, bearer))
    data_read = b""
    while not data_read.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)  # byte by byte: a frame may follow immediately
        if not byte:
            raise ConnectionError(f"no upgrade: {data_read[:200]!r}")
        data_read += byte
    if not data_read.startswith(b"HTTP/1.1 101"):
        raise ConnectionError(f"no upgrade: {data_read[:200]!r}")
    return sock


def send(sock: socket.socket, payload: str) -> None:
    """Send a text frame, masked as RFC 6455 (5.3) requires of a client."""
    data, key = payload.encode(), os.urandom(4)
    head = struct.pack("!BB", 0x81, 0x80 | len(data)) if len(data) < 126 else struct.pack("!BBH", 0x81, 0xFE, len(data))
    sock.setblocking(True)
    sock.sendall(head + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(data)))


def send_json(sock: socket.socket, **command: object) -> None:
    send(sock, json.dumps(command))


def until(sock: socket.socket, mark: bytes) -> bytes:
    """Read until *mark* arrives; return all bytes read."""
    sock.setblocking(True)
    data_read = b""
    while mark not in data_read:
        more = sock.recv(1 << 18)
        if not more:
            raise ConnectionError(f"closed before {mark!r} arrived")
        data_read += more
    return data_read


def frames(data: bytes) -> Iterator[bytes]:
    """Yield the payload of each complete frame in *data*."""
    start = 0
    while start + 2 <= len(data):
        size, head = data[start + 1], 2
        if size == 126:
            (size,), head = struct.unpack_from("!H", data, start + 2), 4
        elif size == 127:
            (size,), head = struct.unpack_from("!Q", data, start + 2), 10
        if start + head + size > len(data):
            return
        yield data[start + head : start + head + size]
        start += head + size

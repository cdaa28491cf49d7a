"""Raw WebSocket clients: as little work per frame as can be, so that the load is not what is measured."""

import base64
import json
import os
import socket
import struct
from collections.abc import Iterator
from urllib.parse import urlencode

HOST = "127.0.0.1"


def handshake(port: int, path: str) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def hub_path(**query: object) -> str:
    return f"/api/v1/ws?{urlencode(query)}"


def connect(port: int, path: str) -> socket.socket:
    """Open a WebSocket; what the server says after its answer to the handshake stays to be read."""
    sock = socket.create_connection((HOST, port), timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(handshake(port, path))
    got = b""
    while not got.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)  # one by one: a frame may follow at once
        if not byte:
            raise ConnectionError(f"no upgrade: {got[:200]!r}")
        got += byte
    if not got.startswith(b"HTTP/1.1 101"):
        raise ConnectionError(f"no upgrade: {got[:200]!r}")
    return sock


def send(sock: socket.socket, payload: str) -> None:
    """Send a text frame, masked as RFC 6455 (5.3) wants it of a client."""
    data, key = payload.encode(), os.urandom(4)
    head = struct.pack("!BB", 0x81, 0x80 | len(data)) if len(data) < 126 else struct.pack("!BBH", 0x81, 0xFE, len(data))
    sock.setblocking(True)
    sock.sendall(head + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(data)))


def send_json(sock: socket.socket, **command: object) -> None:
    send(sock, json.dumps(command))


def until(sock: socket.socket, mark: bytes) -> bytes:
    """Read until *mark* has come; return all that came."""
    sock.setblocking(True)
    got = b""
    while mark not in got:
        more = sock.recv(1 << 18)
        if not more:
            raise ConnectionError(f"closed before {mark!r} came")
        got += more
    return got


def frames(data: bytes) -> Iterator[bytes]:
    """Split what a server sent into the payloads of its whole frames."""
    at = 0
    while at + 2 <= len(data):
        size, head = data[at + 1], 2
        if size == 126:
            (size,), head = struct.unpack_from("!H", data, at + 2), 4
        elif size == 127:
            (size,), head = struct.unpack_from("!Q", data, at + 2), 10
        if at + head + size > len(data):
            return
        yield data[at + head : at + head + size]
        at += head + size

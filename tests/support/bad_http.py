"""Bytes that are no correct HTTP request, or that attack a server of HTTP: the hub must survive all of them."""

import asyncio
import gzip
from collections import Counter

from support.process import HubProcess
from support.waiting import PATIENCE, eventually

MARK = b"zx7mark"  # in each request: no response and no line of the log may contain it, but for a name in Host
HOST = b"Host: localhost\r\n"
CHAT = b"POST /api/v1/sessions/s1/chat HTTP/1.1\r\n" + HOST
UPGRADE = b"GET /api/v1/ws HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
KEY = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
GZIP = gzip.compress(b'{"message": "zx7mark"}')


def get(path: bytes = b"/health", headers: bytes = b"", version: bytes = b"HTTP/1.1") -> bytes:
    return b"GET %b %b\r\n%b%b\r\n" % (path, version, HOST, headers)


def chat(headers: bytes, body: bytes) -> bytes:
    return CHAT + headers + b"\r\n" + body


# The kinds of requests, with the statuses that the hub may answer. C and Python parsers of aiohttp differ in some.
BAD_REQUESTS: dict[str, tuple[bytes, set[int]]] = {
    "random bytes": (bytes(range(128, 256)) + MARK + b"\r\n\r\n", {400}),
    "a TLS handshake": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + MARK * 9 + b"\r\n\r\n", {400}),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + MARK, {400}),
    "an unknown method": (b"ZX7MARK /health HTTP/1.1\r\n" + HOST + b"\r\n", {400, 405}),
    "an unknown version": (get(version=b"HTTP/9.9" + MARK), {400}),
    "no request line": (b"X: " + MARK + b"\r\n\r\n", {400}),
    "a long address": (get(b"/" + MARK * 2000), {400, 414}),
    "a long header": (get(headers=b"X: " + MARK * 2000 + b"\r\n"), {400, 431}),
    "many headers": (get(headers=(b"X: " + MARK + b"\r\n") * 1000), {400, 431}),
    "a header without a colon": (get(headers=MARK + b"\r\n"), {400}),
    "a header with a folded line": (get(headers=b"X: a\r\n " + MARK + b"\r\n"), {400}),
    "a header with a zero byte": (get(headers=b"X: a\0" + MARK + b"\r\n"), {400}),
    "a header with a bare carriage return": (get(headers=b"X: a\r" + MARK + b"\r\n"), {400}),
    "a space before the colon": (get(headers=b"Content-Length : 0" + MARK + b"\r\n"), {400}),
    "two lengths": (chat(b"Content-Length: 7\r\nContent-Length: 8\r\n", MARK), {400}),
    "a length and chunks": (chat(b"Content-Length: 7\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + MARK), {400}),
    "a negative length": (chat(b"Content-Length: -7\r\n", MARK), {400}),
    "a length past 64 bits": (chat(b"Content-Length: 99999999999999999999999\r\n", MARK), {400}),
    "a length past the limit": (chat(b"Content-Length: 99999999999\r\n", MARK), {413}),
    "an unknown transfer encoding": (chat(b"Transfer-Encoding: zx7mark\r\n", MARK), {400}),
    "a malformed chunk": (chat(b"Transfer-Encoding: chunked\r\n", b"zx7mark\r\n" + MARK), {400}),
    "a chunk past 64 bits": (chat(b"Transfer-Encoding: chunked\r\n", b"FFFFFFFFFFFFFFFFFF\r\n" + MARK), {400}),
    "a body that is no gzip": (chat(b"Content-Encoding: gzip\r\nContent-Length: 7\r\n", MARK), {400}),
    "half a gzip": (chat(b"Content-Encoding: gzip\r\nContent-Length: 20\r\n", GZIP[:20]), {400}),
    "an unknown expectation": (get(headers=b"Expect: zx7mark\r\n"), {417}),
    "a body that is no JSON": (chat(b"Content-Length: 8\r\n", b"{" + MARK), {400}),
    "a body that is no UTF-8": (chat(b"Content-Length: 10\r\n", b'"\xff' + MARK + b'"'), {400}),
    "an address that is no path": (get(b"zx7mark"), {400}),
    "an address of another host": (get(b"http://zx7mark.example/health"), {403}),
    "an address with bad escapes": (get(b"/api/v1/sessions/%zz%00%ffzx7mark"), {400, 404}),
    "an address out of the tree": (get(b"/docs/..%2f..%2f../zx7mark"), {400, 404}),
    "an address with a new line": (get(b"/%0d%0aX:%20zx7mark"), {400, 404}),
    "an upgrade without a key": (UPGRADE + b"Sec-WebSocket-Version: 13\r\nX: zx7mark\r\n\r\n", {400}),
    "an upgrade of version 0": (UPGRADE + KEY + b"Sec-WebSocket-Version: 0\r\nX: zx7mark\r\n\r\n", {426}),
    "an upgrade with a bad key": (
        UPGRADE + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: zx7mark\r\n\r\n",
        {400},
    ),
    "an upgrade to rubbish": (UPGRADE.replace(b"websocket", MARK) + KEY + b"\r\n", {426}),
    "many empty lines": (b"\r\n" * 5000 + MARK + b"\r\n\r\n", {400}),
}


async def read_answer(port: int, request: bytes) -> bytes:
    """Send bytes on a new connection, and read one complete response; then reset the connection."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.splitlines()[1:] if line)
            return head + await reader.readexactly(int(fields[b"content-length"]))
        finally:
            writer.transport.abort()


async def attack(hub: HubProcess, name: str, count: int) -> None:
    """Send a bad request many times. Check each response: its status, and that it repeats nothing of the request."""
    request, statuses = BAD_REQUESTS[name]
    seen: Counter[int] = Counter()
    for _ in range(count):
        response = await read_answer(hub.port, request)
        # The answer to a refused Host names it, for the operator who sees it in a browser.
        assert MARK not in response.lower() or b" 403 " in response, f"{name}: {response!r}"
        seen[int(response.split()[1])] += 1
    assert seen.keys() <= statuses, f"{name}: {seen}"


async def check_survival(hub: HubProcess, pid: int) -> None:
    """Check that the same process still serves clients, and wrote few lines, without what strangers sent."""
    response = await read_answer(hub.port, get())
    assert response.startswith(b"HTTP/1.1 200 ") and hub.running and hub.pid == pid
    await eventually(lambda: "bad HTTP refused" in hub.log)
    lines = [line for line in hub.output_lines if "Host refused" not in line]  # such a line is for the operator
    assert len(lines) < 40 and sum("bad HTTP refused" in line for line in lines) == 1, hub.log
    assert not any("Traceback" in line or MARK.decode() in line.lower() for line in lines), hub.log

"""How large a request may be: what is one byte larger is refused, in the words of who asked."""

import gzip
import io
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from support.hub import Hub
from support.waiting import PATIENCE

from hub.limits import KiB, MiB

HELLO = [{"role": "user", "content": "hello"}]
SMALL = [
    ("POST", "sessions", {"sessionId": "s1"}),
    ("PATCH", "sessions/s1", {"title": "a"}),
    ("POST", "sessions/clear", {"sessionIds": []}),
    ("POST", "sessions/s1/cancel", {}),
    ("POST", "agents/echo/broadcast", {"message": "news"}),
]
LIMITS = [
    *[(method, path, body, 64 * KiB) for method, path, body in SMALL],
    ("POST", "sessions/s1/chat", {"agentId": "echo", "message": "hello"}, 1 * MiB),
    ("POST", "chat/completions", {"model": "echo", "messages": HELLO}, 8 * MiB),
    ("POST", "agents/echo/agui", {"threadId": "s1", "runId": "r1", "messages": HELLO}, 8 * MiB),
]


@pytest.fixture
async def http(hub: Hub) -> AsyncIterator[aiohttp.ClientSession]:
    await hub.start()
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        yield http


def whole(data: bytes) -> Any:
    return io.BytesIO(data)


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    """Give a body whose length nobody knows before its end."""
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


@pytest.mark.parametrize("send", [whole, pieces])
@pytest.mark.parametrize(("method", "path", "body", "limit"), LIMITS, ids=[row[1] for row in LIMITS])
async def test_a_body_may_be_as_large_as_the_limit(
    http: aiohttp.ClientSession, method: str, path: str, body: dict[str, Any], limit: int, send: Callable[[bytes], Any]
) -> None:
    """One byte less and just so it is read; one byte more gets 413, in the form of the route's other errors."""
    await http.post("sessions", json={"sessionId": "s1"})
    said = json.dumps(body).encode()
    for size in (limit - 1, limit, limit + 1):
        padded = said[:-1] + b" " * (size - len(said)) + b"}"
        async with http.request(method, path, data=send(padded)) as response:
            assert (response.status == 413) == (size > limit)
            answer = await response.read()
    refused = json.loads(answer)
    if path == "chat/completions":
        assert refused["error"]["code"] == "too_large" and refused["error"]["type"] == "invalid_request_error"
    else:
        assert refused["code"] == "too_large" and set(refused) == {"error", "code"}


async def test_what_is_not_json_is_told_what_would_be_right(http: aiohttp.ClientSession) -> None:
    """With an example of that route."""
    for path, example in (("agents/echo/broadcast", '{"message":'), ("sessions/clear", '{"all":true}')):
        async with http.post(path, data=b"{") as response:
            said = await response.json()
        assert response.status == 400 and said["code"] == "bad_frame" and example in said["error"]


@pytest.mark.parametrize(
    "data",
    [json.dumps(LIMITS[-3][2]).encode(), gzip.compress(b" " * 1000)[:20], gzip.compress(b" ")[:-9]],
    ids=["not packed", "cut in the data", "cut at the end"],
)
@pytest.mark.parametrize("path", [row[1] for row in LIMITS[-3:]])
async def test_a_body_that_is_not_packed_as_it_says_is_the_clients_fault(
    http: aiohttp.ClientSession, path: str, data: bytes
) -> None:
    """It gets 400, and the hub goes on."""
    async with http.post(path, data=data, headers={"Content-Encoding": "gzip"}) as response:
        assert response.status == 400
    async with http.get("health") as response:
        assert response.status == 200


async def test_a_packed_body_is_read(http: aiohttp.ClientSession) -> None:
    """The size limit is for the unpacked body."""
    body = json.dumps(LIMITS[-3][2]).encode()
    for data, status in ((body, 202), (body + b" " * MiB, 413)):
        headers = {"Content-Encoding": "gzip"}
        async with http.post("sessions/s1/chat", data=gzip.compress(data), headers=headers) as response:
            assert response.status == status

"""The size limits of request bodies. A larger body is refused, with an error in the form of the route."""

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


def sized(data: bytes) -> Any:
    return io.BytesIO(data)


async def chunked(data: bytes) -> AsyncIterator[bytes]:
    """Send a body without a Content-Length."""
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


@pytest.mark.parametrize("send", [sized, chunked])
@pytest.mark.parametrize(("method", "path", "body", "limit"), LIMITS, ids=[row[1] for row in LIMITS])
async def test_a_body_may_be_as_large_as_the_limit(
    http: aiohttp.ClientSession, method: str, path: str, body: dict[str, Any], limit: int, send: Callable[[bytes], Any]
) -> None:
    """A body of the limit is read. One byte more gets 413, in the form of the other errors of the route."""
    await http.post("sessions", json={"sessionId": "s1"})
    encoded = json.dumps(body).encode()
    for size in (limit - 1, limit, limit + 1):
        padded = encoded[:-1] + b" " * (size - len(encoded)) + b"}"
        async with http.request(method, path, data=send(padded)) as response:
            assert (response.status == 413) == (size > limit)
            answer = await response.read()
    error = json.loads(answer)
    if path == "chat/completions":
        assert error["error"]["code"] == "too_large" and error["error"]["type"] == "invalid_request_error"
    else:
        assert error["code"] == "too_large" and set(error) == {"error", "code"}


async def test_the_error_for_a_body_that_is_not_json_has_an_example(http: aiohttp.ClientSession) -> None:
    """The example is valid for that route."""
    for path, example in (("agents/echo/broadcast", '{"message":'), ("sessions/clear", '{"all":true}')):
        async with http.post(path, data=b"{") as response:
            error = await response.json()
        assert response.status == 400 and error["code"] == "bad_frame" and example in error["error"]


@pytest.mark.parametrize(
    "data",
    [json.dumps(LIMITS[-3][2]).encode(), gzip.compress(b" " * 1000)[:20], gzip.compress(b" ")[:-9]],
    ids=["not compressed", "cut in the data", "cut at the end"],
)
@pytest.mark.parametrize("path", [row[1] for row in LIMITS[-3:]])
async def test_a_body_that_does_not_match_its_content_encoding_gets_400(
    http: aiohttp.ClientSession, path: str, data: bytes
) -> None:
    """The hub goes on."""
    async with http.post(path, data=data, headers={"Content-Encoding": "gzip"}) as response:
        assert response.status == 400
    async with http.get("health") as response:
        assert response.status == 200


async def test_a_compressed_body_is_read(http: aiohttp.ClientSession) -> None:
    """The size limit is that of the decompressed body."""
    body = json.dumps(LIMITS[-3][2]).encode()
    for data, status in ((body, 202), (body + b" " * MiB, 413)):
        headers = {"Content-Encoding": "gzip"}
        async with http.post("sessions/s1/chat", data=gzip.compress(data), headers=headers) as response:
            assert response.status == status

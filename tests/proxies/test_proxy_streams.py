"""WebSockets and event streams through nginx, Caddy and HAProxy: each token arrives before the next is produced."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.proxy_servers import BUFFERS, ProxyKind, each_proxy
from support.sites import Site, open_site
from support.waiting import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="session")

PIECES = range(4)  # of the agent steps
BUFFERED_SECONDS = 2.0  # to wait for a token that a proxy with buffers keeps
COMPLETION = {"model": "steps", "stream": True}


def make_step(folder: Path, number: int) -> None:
    (folder / str(number)).touch()


async def read_until(response: aiohttp.ClientResponse, text: bytes, seconds: float = PATIENCE) -> bytes:
    """Read a stream until *text* has come."""
    data = b""
    async with asyncio.timeout(seconds):
        while text not in data:
            chunk = await response.content.readany()
            assert chunk, data
            data += chunk
    return data


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    folder = tmp_path / "steps"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("protocol", ["plain", "extended"])
async def test_a_websocket_gets_each_token_before_the_next_is_produced(site: Site, steps: Path, protocol: str) -> None:
    """The subprotocol arrives, too."""
    async with site.open_program() as http:
        client = await site.connect(http, extended=protocol == "extended")
        await client.send(type="chat", agentId="steps", sessionId=f"socket-{protocol}", message=str(steps))
        for number in PIECES:
            make_step(steps, number)
            await client.until(lambda frame: f"piece {number}." in frame.get("content", ""))
        await client.until_done()
        assert client.text() == "".join(f"piece {number}." for number in PIECES)


async def open_stream(site: Site, http: aiohttp.ClientSession, way: str, steps: Path) -> aiohttp.ClientResponse:
    """Begin an answer, and return its stream."""
    message, headers = str(steps), {"Accept": "text/event-stream"}
    chat: dict[str, Any] = {"agentId": "steps", "message": message}
    if way == "completion":
        body = COMPLETION | {"messages": [{"role": "user", "content": message}]}
        return await http.post(f"{site.url}/v1/chat/completions", json=body)
    if way == "chat":
        return await http.post(f"{site.api}/sessions/{way}/chat", json=chat, headers=headers)
    async with http.post(f"{site.api}/sessions/{way}/chat", json=chat) as response:
        assert response.status == 202, await response.text()
    return await http.get(f"{site.api}/sessions/{way}/events?afterSeq=0", headers=headers)


@pytest.mark.parametrize("way", ["events", "chat", "completion"])
async def test_a_stream_has_each_token_before_the_next_is_produced(site: Site, steps: Path, way: str) -> None:
    """Of a session, of one answer, and of OpenAI's route, whose response begins with the first token."""
    make_step(steps, 0)
    async with site.open_program() as http, await open_stream(site, http, way, steps) as response:
        assert response.status == 200, await response.text()
        for number in PIECES:
            make_step(steps, number)
            await read_until(response, f"piece {number}.".encode())


@each_proxy
async def test_a_proxy_with_buffers_fails_these_tests(kind: ProxyKind, tmp_path: Path, steps: Path) -> None:
    """With one line more in its file, a proxy keeps the first token until the answer ends."""
    async with open_site(tmp_path, kind, BUFFERS[kind.name]) as site, site.open_program() as http:
        opening = asyncio.create_task(open_stream(site, http, "chat", steps))
        make_step(steps, 0)
        with pytest.raises(TimeoutError):
            await read_until(await asyncio.wait_for(asyncio.shield(opening), BUFFERED_SECONDS), b"piece 0.", 2.0)
        for number in PIECES:
            make_step(steps, number)
        async with await opening as response:
            await read_until(response, b"piece 3.")

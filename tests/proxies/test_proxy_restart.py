"""A restart of the hub behind nginx, Caddy and HAProxy."""

import signal
from pathlib import Path

import aiohttp
import pytest
from support.hub import Client
from support.proxy_servers import ProxyKind, each_proxy
from support.sites import Site, open_site

SESSION = "restart"


async def get_status(site: Site, http: aiohttp.ClientSession) -> int:
    async with http.get(f"{site.url}/health") as response:
        return response.status


async def begin_answer(client: Client, folder: Path) -> None:
    """Let an agent produce two of its four pieces, and read them."""
    await client.send(type="chat", agentId="steps", sessionId=SESSION, message=str(folder))
    for number in range(2):
        (folder / str(number)).touch()
    await client.until(lambda frame: "piece 1." in frame.get("content", ""))


async def chat_over_http(site: Site, http: aiohttp.ClientSession) -> None:
    chat = {"agentId": "echo", "message": "while you were away"}
    async with http.post(f"{site.api}/sessions/{SESSION}/chat?wait=true", json=chat) as response:
        assert response.status == 200, await response.text()


@each_proxy
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_client_resumes_after_a_restart(kind: ProxyKind, number: signal.Signals, tmp_path: Path) -> None:
    """Meanwhile the proxy answers that there is no hub. The client loses no event, also none of its absence.

    A graceful restart closes the WebSocket with 1012, which the proxy passes on.
    """
    async with open_site(tmp_path, kind, limits_drain_seconds=0.1) as site, site.open_program() as http:
        client = await site.connect(http, extended=True)
        await begin_answer(client, tmp_path)
        site.hub.signal(number)
        assert await client.wait_closed() == (1012 if number == signal.SIGTERM else 1006)
        await site.hub.wait_until_ended()
        assert await get_status(site, http) in (502, 503)
        await site.start_hub()
        assert await get_status(site, http) == 200
        await chat_over_http(site, http)
        resumed = await site.connect(http, extended=True)
        last = [frame for frame in client.frames if "seq" in frame][-1]
        cursor = {"afterSeq": last["seq"], "epoch": last["epoch"]}
        await resumed.send(type="subscribe", sessionId=SESSION, **cursor)
        await resumed.until(lambda frame: frame.get("stopReason") == "end_turn")
        numbers = [frame["seq"] for frame in client.frames + resumed.frames if "seq" in frame and "ts" in frame]
        assert numbers == sorted({*numbers}), numbers
        assert client.text() + resumed.text() == "piece 0.piece 1.while you were away "

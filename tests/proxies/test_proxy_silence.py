"""Connections through nginx, Caddy and HAProxy on which nobody says anything for 80 seconds."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest
from support.proxy_servers import CADDY, HAPROXY, INSTALL_HINT, NGINX, ProxyKind
from support.sites import Site, open_site
from support.waiting import PATIENCE

SILENT_SECONDS = 80.0
# The limits that nginx and HAProxy have in Debian: the time without a byte from the hub.
SHORT_LIMITS = {
    NGINX: {"proxy_read_timeout 65m;": "proxy_read_timeout 60s;"},
    HAPROXY: {"timeout server 65m": "timeout server 50s"},
}
SILENT_SITES: list[tuple[ProxyKind, Mapping[str, str]]] = [
    *((kind, {}) for kind in (NGINX, CADDY, HAPROXY) if kind.is_installed),
    *((kind, edits) for kind, edits in SHORT_LIMITS.items() if kind.is_installed),
]


async def chat(site: Site, http: aiohttp.ClientSession) -> None:
    body = {"agentId": "echo", "message": "x"}
    async with http.post(f"{site.api}/sessions/silent/chat?wait=true", json=body) as response:
        assert response.status == 200, await response.text()


async def wait_for_answer(site: Site, http: aiohttp.ClientSession, gate: Path) -> int:
    """Send a request that waits until the gate opens, and return its status."""
    body = {"agentId": "gated", "message": str(gate)}
    async with http.post(f"{site.api}/sessions/wait/chat?wait=true", json=body) as response:
        assert response.status != 200 or (await response.json())["content"] == "one two"
        return response.status


async def read_events(site: Site, http: aiohttp.ClientSession, is_open: asyncio.Event) -> bytes:
    """Read an event stream up to the end of the first answer."""
    data = b""
    headers = {"Accept": "text/event-stream"}
    async with http.get(f"{site.api}/sessions/silent/events", headers=headers) as response:
        assert response.status == 200, await response.text()
        is_open.set()
        while b"run_finished" not in data:
            chunk = await response.content.readany()
            assert chunk, data
            data += chunk
    return data


async def stay_silent(folder: Path, kind: ProxyKind, edits: Mapping[str, str]) -> int:
    """Open a WebSocket, a stream and a request. Use them after the silence; return the status of the request."""
    gate, is_open = folder / f"gate-{kind.name}", asyncio.Event()
    async with open_site(folder, kind, edits) as site, site.open_program() as http:
        http._timeout = aiohttp.ClientTimeout(2 * SILENT_SECONDS)
        await chat(site, http)
        client = await site.connect(http, "?sessionId=silent")
        events = asyncio.create_task(read_events(site, http, is_open))
        waiting = asyncio.create_task(wait_for_answer(site, http, gate))
        receiving = asyncio.create_task(client.ws.receive_json())  # answers pings, and gets nothing else
        await asyncio.wait_for(is_open.wait(), PATIENCE)
        await asyncio.sleep(SILENT_SECONDS)
        assert not receiving.done() and not events.done()
        await chat(site, http)
        assert (await receiving)["content"] == "x "
        assert b'"content":"x "' in await events
        gate.touch()
        return await waiting


@pytest.mark.timeout(3 * SILENT_SECONDS)
@pytest.mark.skipif(not SILENT_SITES, reason=f"no proxy here: {INSTALL_HINT}")
async def test_connections_survive_80_seconds_of_silence(tmp_path: Path) -> None:
    """A WebSocket and a stream survive in any case: the hub pings the one, and sends comments on the other.

    A request that waits for an answer gets nothing meanwhile. It survives only the long limits of the files of deploy/.
    All proxies are silent at the same time.
    """
    tasks = []
    async with asyncio.TaskGroup() as group:
        for number, (kind, edits) in enumerate(SILENT_SITES):
            folder = tmp_path / str(number)
            folder.mkdir()
            tasks.append(group.create_task(stay_silent(folder, kind, edits)))
    assert [task.result() for task in tasks] == [504 if edits else 200 for _, edits in SILENT_SITES]

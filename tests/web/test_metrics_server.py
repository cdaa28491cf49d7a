"""The second address: the metrics and the health of the hub, without sign-in."""

import asyncio
import re
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.process import HubProcess, run_hubbub
from support.waiting import PATIENCE, eventually


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[HubProcess]:
    running = HubProcess(tmp_path)
    try:
        yield running
    finally:
        await running.kill()


async def start(process: HubProcess, **settings: Any) -> str:
    """Start a hub with sign-in, and return its second address."""
    await process.start(sign_in="true", metrics_port=0, **settings)
    match = re.search(r"Metrics +http://(\S+):(\d+)/metrics", process.log)
    assert match is not None
    return f"http://127.0.0.1:{match[2]}"


async def get(url: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        async with http.request(method, url, headers=headers) as response:
            return response.status, await response.text()


async def until_ready(url: str) -> tuple[int, str]:
    """Wait until `/ready` says that the hub is ready, and return the answer. A slow disk may delay it."""
    async with asyncio.timeout(PATIENCE):
        while (answer := await get(f"{url}/ready"))[0] != 200:
            assert "could not be written" in answer[1]
    return answer


async def test_the_second_address_serves_metrics_and_health_without_sign_in(process: HubProcess) -> None:
    """On the main address, a stranger gets no metrics."""
    url = await start(process)
    status, text = await get(f"{url}/metrics")
    assert status == 200 and "hubbub_connections 0.0" in text
    assert await get(f"{url}/health") == await until_ready(url) == (200, "OK")
    status, text = await get(f"{process.url}/metrics")
    assert status == 401 and "hubbub_connections" not in text
    assert await get(f"{process.url}/health") == (200, "OK")


@pytest.mark.parametrize("path", ["/", "/api/v1/sessions", "/api/v1/metrics", "/docs", "/api/v1/ws", "/metrics/x"])
async def test_the_second_address_serves_nothing_else(process: HubProcess, path: str) -> None:
    """Its callers are the operator, so no other route may be there."""
    url = await start(process)
    status, text = await get(url + path)
    assert status == 404 and "only /metrics, /health, /ready" in text
    assert (await get(f"{url}/metrics", "POST"))[0] in (404, 405)


async def test_on_this_machine_the_second_address_checks_the_host(process: HubProcess) -> None:
    """DNS rebinding gives a web page a name for 127.0.0.1. A name in `hosts` is fine."""
    url = await start(process, hosts="prometheus.example")
    assert (await get(f"{url}/metrics", Host="evil.example"))[0] == 403
    assert (await get(f"{url}/metrics", Host="prometheus.example:9528"))[0] == 200


async def test_an_open_second_address_takes_any_host(process: HubProcess) -> None:
    """Prometheus and Kubernetes use names and addresses of their own."""
    url = await start(process, metrics_host="0.0.0.0")
    assert (await get(f"{url}/metrics", Host="hubbub.monitoring.svc:9528"))[0] == 200
    assert process.running


async def test_only_the_setting_opens_the_second_address(process: HubProcess) -> None:
    """`host` does not: it is for the main address."""
    url = await start(process)
    port = int(url.rpartition(":")[2])
    with socket.create_server(("127.0.0.2", port)):  # free, because the hub listens on 127.0.0.1 and ::1 alone
        pass


async def test_ready_says_that_the_hub_goes_down(process: HubProcess) -> None:
    """The second address answers until the hub has ended; the main one does not."""
    process.agent("slow.py", "import time\n\n\ndef slow(message):\n    time.sleep(60)\n    yield 'x'\n")
    await process.start(metrics_port=0, limits_drain_seconds="6")
    match = re.search(r":(\d+)/metrics", process.log)
    assert match is not None
    async with aiohttp.ClientSession() as http:
        body = {"agentId": "slow", "message": "x"}
        async with http.post(f"{process.url}/api/v1/sessions/s1/chat", json=body) as response:
            assert response.status == 202
        process.signal(signal.SIGTERM)
        await eventually(lambda: "Stopping" in process.log)
        async with asyncio.timeout(PATIENCE):
            while (answer := await get(f"http://127.0.0.1:{match[1]}/ready"))[0] == 200:
                pass
        assert answer[0] == 503 and "going down" in answer[1]
        async with http.get(f"http://127.0.0.1:{match[1]}/health") as response:
            assert response.status == 200
    assert await process.wait_until_ended() == 0


async def test_a_second_address_in_use_is_one_line(tmp_path: Path) -> None:
    """It names the port, and the setting to change."""
    (tmp_path / "agents").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = str(sock.getsockname()[1])
        output = await run_hubbub(
            tmp_path, "serve", "--port", "0", "--metrics-host", "127.0.0.1", "--metrics-port", port
        )
    assert output.code == 2 and output.out == "" and output.err.count("\n") == 1
    assert f"127.0.0.1 port {port}" in output.err and "--metrics-port" in output.err

"""Agents have their own threads: an agent that uses all of them blocks no other part of the hub."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from support.hub import Client
from support.process import HubProcess
from support.waiting import PATIENCE, eventually

HOG = """
import asyncio, pathlib, time

def wait(number: int) -> None:
    pathlib.Path(f"begun-{number}").touch()
    while not pathlib.Path("gate").exists():
        time.sleep(0.01)

async def hog(message: str):
    waiting = [asyncio.ensure_future(asyncio.to_thread(wait, number)) for number in range(int(message))]
    yield "begun "
    await asyncio.gather(*waiting)
    yield "ended"
"""
RESULT = """
from hub.messages import ToolCallEnd, ToolCallResult, ToolCallStart

async def result(message: str):
    yield ToolCallStart("t1", "search")
    yield ToolCallEnd("t1")
    yield ToolCallResult("t1", "x" * 20_000)
"""
BUSY = "all threads of agents are busy"
MODEL = """
adapter = "openai_chat"
base_url = "http://{host}:{port}/v1"
retries = 0
"""


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[HubProcess]:
    running = HubProcess(tmp_path)
    running.agent("hog.py", HOG)
    running.agent("result.py", RESULT)
    try:
        yield running
    finally:
        (tmp_path / "gate").touch()
        await running.kill()


@pytest.fixture
async def model() -> AsyncIterator[int]:
    """Serve a model's endpoint that answers with one word; return its port."""

    async def say(request: web.Request) -> web.Response:
        choice = '{"choices":[{"index":0,"delta":{"content":"word"},"finish_reason":"stop"}]}'
        return web.Response(text=f"data: {choice}\n\ndata: [DONE]\n\n", content_type="text/event-stream")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", say)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "0.0.0.0", 0)
    await site.start()
    yield site.port
    await runner.cleanup()


async def connect(http: aiohttp.ClientSession, hub: HubProcess) -> Client:
    return Client(http, await http.ws_connect(f"{hub.url}/api/v1/ws", protocols=("hubbub.v1",)))


async def answer(client: Client, agent: str, message: str = "x") -> tuple[str, str]:
    """Return the text and the stop reason of one answer."""
    await client.send(type="chat", agentId=agent, sessionId=agent, message=message)
    end = await client.until(lambda frame: frame["type"] == "run_finished" and frame["agentId"] == agent)
    return client.text(end["runId"]), end["stopReason"]


async def test_an_agent_that_uses_all_threads_blocks_only_agents(hub: HubProcess, model: int) -> None:
    """The console, files, DNS, proxies and tool results still work; the log names the agent."""
    hub.agent("by_name.toml", MODEL.format(host="localhost", port=model))
    hub.agent("by_proxy.toml", MODEL.format(host="127.0.0.2", port=model))
    await hub.start(limits_agent_threads=3)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        client = await connect(http, hub)
        await client.send(type="chat", agentId="hog", sessionId="s1", message="40")
        await client.until_type("stream")
        await eventually(lambda: len([*hub.folder.glob("begun-*")]) == 3)
        for path in ("/", "/console/app.js", "/client.js"):
            async with http.get(hub.url + path) as response:
                assert response.status == 200 and await response.read()
        assert await answer(client, "by_name") == ("word", "end_turn")
        assert await answer(client, "by_proxy") == ("word", "end_turn")
        assert await answer(client, "result") == ("", "end_turn")
        assert len([*hub.folder.glob("begun-*")]) == 3
        await eventually(lambda: BUSY in hub.log)
        line = next(line for line in hub.output_lines if BUSY in line)
        assert "agent=hog threads=3 used_by='hog 4'" in re.sub("\x1b\\[[0-9;]*m", "", line)
        (hub.folder / "gate").touch()
        await client.until_type("run_finished")
        assert client.frames[-1]["stopReason"] == "end_turn" and len([*hub.folder.glob("begun-*")]) == 40


SLOW_NAMES = """
import pathlib, socket, time

look_up = socket.getaddrinfo

def slow(host, *rest):
    if not host.endswith(".test"):
        return look_up(host, *rest)
    pathlib.Path(f"begun-{host}").touch()
    while not pathlib.Path("gate").exists():
        time.sleep(0.01)
    raise socket.gaierror("no such name")

socket.getaddrinfo = slow

def slow_names(message: str):
    return "x"
"""


async def test_slow_dns_blocks_no_file(hub: HubProcess) -> None:
    """More lookups of host names wait than the hub has DNS threads."""
    hub.agent("slow_names.py", SLOW_NAMES)
    for number in range(10):
        hub.agent(f"model-{number}.toml", MODEL.format(host=f"host-{number}.test", port=80))
    await hub.start()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        client = await connect(http, hub)
        for number in range(10):
            await client.send(type="chat", agentId=f"model-{number}", sessionId="s1", message="x")
        await eventually(lambda: len([*hub.folder.glob("begun-*")]) == 8)
        async with http.get(hub.url) as response:
            assert response.status == 200


async def test_an_answer_without_a_session_uses_the_threads_of_agents(hub: HubProcess) -> None:
    """The next request on its connection does not."""
    await hub.start(limits_agent_threads=1)
    async with aiohttp.ClientSession(hub.url, timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        body = {"model": "hog", "stream": True, "messages": [{"role": "user", "content": "12"}]}
        async with http.post("/v1/chat/completions", json=body) as response:
            await response.content.readuntil(b"begun")
            async with http.get("/") as page:
                assert page.status == 200
            (hub.folder / "gate").touch()
            assert b"[DONE]" in await response.read()
        await eventually(lambda: BUSY in hub.log)
        async with http.get("/client.js") as script:
            assert script.status == 200


async def test_each_agent_has_enough_threads(hub: HubProcess) -> None:
    """128 threads for all agents; there is no warning below that."""
    await hub.start()
    async with aiohttp.ClientSession() as http:
        client = await connect(http, hub)
        await client.send(type="chat", agentId="hog", sessionId="s1", message="128")
        await eventually(lambda: len([*hub.folder.glob("begun-*")]) == 128)
        (hub.folder / "gate").touch()
        await client.until_type("run_finished")
    assert "threads of agents" not in hub.log

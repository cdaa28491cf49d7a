"""The access log: what its lines have, and what no line has."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from support.hub import AGENTS, Client
from support.process import HubProcess, run_hubbub
from support.sockets import read_response
from support.sse import open_stream
from support.waiting import PATIENCE, eventually

CANARY = "canarycontent"
SETTINGS: dict[str, Any] = {"access_log": "true", "log_format": "json"}


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[HubProcess]:
    running = HubProcess(tmp_path)
    running.agent("echo.py", AGENTS["echo"])
    try:
        yield running
    finally:
        await running.kill()


def read_lines(process: HubProcess, event: str) -> list[dict[str, Any]]:
    lines = [orjson.loads(line) for line in process.output_lines]
    return [line for line in lines if line["event"] == event]


async def until_lines(process: HubProcess, event: str, count: int) -> list[dict[str, Any]]:
    await eventually(lambda: len(read_lines(process, event)) >= count)
    return read_lines(process, event)


async def test_a_request_and_a_socket_have_their_lines(process: HubProcess) -> None:
    """With status, close code, duration, bytes, address and principal; without a query, a secret and content."""
    key = (await run_hubbub(process.folder, "key", "create", "ci", HUBBUB_SIGN_IN="true")).out.strip()
    await process.start(sign_in="true", **SETTINGS)
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(f"{process.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        async with http.post("tickets", json={}, headers=headers) as response:
            ticket = (await response.json())["ticket"]
        async with http.get(f"nowhere/{key}?secret={CANARY}", headers=headers) as response:
            assert response.status == 404
            body = await response.read()
        ws = await http.ws_connect(f"ws?sessionId=s1&ticket={ticket}")
        await ws.send_str(json.dumps({"type": "chat", "agentId": "echo", "message": CANARY}))
        received = 0
        async with asyncio.timeout(PATIENCE):
            while True:
                frame = await ws.receive()
                received += len(frame.data)
                if json.loads(frame.data).get("done"):
                    break
        await ws.close(code=4321)
        async with open_stream(http, "sessions/s1/events?afterSeq=0", **headers) as stream:
            await stream.until_kind("run_finished")
            streamed = sum(len(event.data.get("content", "")) for event in stream.events)
    ticket_line, not_found, stream_line = await until_lines(process, "request", 3)
    (opened,), (closed,) = [await until_lines(process, f"WebSocket {word}", 1) for word in ("opened", "closed")]
    assert (ticket_line["method"], ticket_line["path"], ticket_line["status"]) == ("POST", "/api/v1/tickets", 201)
    assert (not_found["path"], not_found["status"]) == ("/api/v1/nowhere/***", 404)
    assert len(body) <= not_found["bytes"] < len(body) + 1000 and 0 <= not_found["seconds"] < PATIENCE
    assert (stream_line["path"], stream_line["status"]) == ("/api/v1/sessions/s1/events", 200)
    assert stream_line["bytes"] > streamed + 300
    assert (opened["path"], opened["protocol"]) == ("/api/v1/ws", "plain")
    assert closed["connection"] == opened["connection"] and closed["code"] == 4321
    assert received < closed["bytes"] < received + 1000 and 0 <= closed["seconds"] < PATIENCE
    lines = [ticket_line, not_found, stream_line, opened, closed]
    assert {line["address"] for line in lines} == {"127.0.0.1"}
    (principal,) = {line["principal"] for line in lines}
    assert principal.startswith("p_")
    assert CANARY not in process.log and ticket not in process.log and key not in process.log


async def test_a_refused_request_has_a_line(process: HubProcess) -> None:
    """Also one that is no HTTP, and a WebSocket that is refused before it opens. Nobody is no principal."""
    await process.start(sign_in="true", **SETTINGS)
    assert b"400" in await read_response(process.port, b"rubbish\r\n\r\n")
    async with aiohttp.ClientSession(process.url, timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await http.ws_connect("/api/v1/ws", headers={"Authorization": "Bearer x"})
        async with http.get("/health", headers={"Host": "evil.example"}) as response:
            assert response.status == 403
    lines = await until_lines(process, "request", 3)
    assert [(line["path"], line["status"]) for line in lines] == [("/", 400), ("/api/v1/ws", 401), ("/health", 403)]
    assert not any("principal" in line for line in lines) and not read_lines(process, "WebSocket opened")


async def test_a_socket_without_a_close_frame_has_the_code_1006(process: HubProcess) -> None:
    """As in RFC 6455. Without sign-in there is no principal."""
    await process.start(**SETTINGS)
    async with aiohttp.ClientSession() as http:
        client = Client(http, await http.ws_connect(f"{process.url}/api/v1/ws"))
        await client.send(type="ping")
        await client.until_type("pong")
        assert client.ws._response.connection is not None and client.ws._response.connection.transport is not None
        client.ws._response.connection.transport.abort()
        (closed,) = await until_lines(process, "WebSocket closed", 1)
    assert closed["code"] == 1006 and "principal" not in closed


async def test_the_access_log_is_off_by_default(process: HubProcess) -> None:
    """Each line would be an answer to a stranger's request."""
    await process.start(log_format="json")
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{process.url}/health") as response:
            assert response.status == 200
        client = Client(http, await http.ws_connect(f"{process.url}/api/v1/ws"))
        await client.close()
    await process.kill()
    assert not read_lines(process, "request") and not read_lines(process, "WebSocket opened")

"""HTTP/1.0 requests, as nginx sends them by default."""

import asyncio
import json

import pytest
from support.hub import Hub
from support.waiting import PATIENCE

CHAT = '{"agentId":"echo","message":"x"}'
COMPLETION = '{"model":"echo","stream":true,"messages":[{"role":"user","content":"x"}]}'
AGUI = '{"threadId":"s1","runId":"r1","messages":[{"role":"user","content":"x"}]}'
STREAM = "Accept: text/event-stream\r\n"
WEBSOCKET = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\n"


async def send_request(hub: Hub, method: str, path: str, headers: str = "", body: str = "") -> tuple[int, str]:
    """Send a request as HTTP/1.0; return the status and the body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
    head = f"{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{hub.port}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    writer.write((head + body).encode())
    answer = (await asyncio.wait_for(reader.read(), PATIENCE)).decode()
    writer.close()
    return int(answer.split()[1]), answer.partition("\r\n\r\n")[2]


@pytest.mark.parametrize(
    ("method", "path", "headers", "body"),
    [
        ("GET", "/api/v1/ws?sessionId=s1", WEBSOCKET, ""),  # nginx removes the other two headers
        ("GET", "/api/v1/ws", WEBSOCKET + UPGRADE, ""),
        ("GET", "/api/v1/agents/echo/ws", WEBSOCKET, ""),
        ("GET", "/api/v1/sessions/s1/events", STREAM, ""),
        ("POST", "/api/v1/sessions/s1/chat", STREAM, CHAT),
        ("POST", "/v1/chat/completions", "", COMPLETION),
        ("POST", "/v1/chat/completions", "X-Session-Id: s1\r\n", COMPLETION),
        ("POST", "/api/v1/agents/echo/agui", STREAM, AGUI),
    ],
)
async def test_a_socket_or_stream_by_http_1_0_is_refused(
    hub: Hub, method: str, path: str, headers: str, body: str
) -> None:
    """Before the hub stores or streams anything. The error has the line for the nginx configuration."""
    await hub.start()
    status, answer = await send_request(hub, method, path, headers, body)
    error = json.loads(answer)
    if path.startswith("/v1/"):  # OpenAI's form
        error = {"code": error["error"]["code"], "error": error["error"]["message"]}
    assert status == 505 and error["code"] == "http_version_not_supported"
    assert "proxy_http_version 1.1;" in error["error"]
    assert not hub.node.sessions and not hub.node.registry.connections and not hub.node.registry.counters.run_starts
    status, sessions = await send_request(hub, "GET", "/api/v1/sessions")
    assert (status, json.loads(sessions)["data"]) == (200, [])


async def test_other_requests_by_http_1_0_are_answered(hub: Hub) -> None:
    await hub.start()
    assert await send_request(hub, "GET", "/health") == (200, "OK")
    status, answer = await send_request(hub, "POST", "/api/v1/sessions/s1/chat?wait=true", body=CHAT)
    assert (status, json.loads(answer)["content"]) == (200, "x ")

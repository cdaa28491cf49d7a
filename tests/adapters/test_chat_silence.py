"""Reasoning and the arguments of tool calls count against the silence limit."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from support.hub import Hub
from support.model_endpoint import Stranger

TOML = """
adapter = "openai_chat"
base_url = "{url}"
timeout = 100000.0
"""
DELTAS: dict[str, dict[str, Any]] = {
    "reasoning": {"reasoning_content": "Hm. "},
    "tool_call_args": {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "f", "arguments": "[1,"}}]},
}


@pytest.mark.parametrize("kind", DELTAS)
async def test_output_without_text_restarts_the_silence_limit(
    hub: Hub, stranger: Stranger, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """With 400 s between two outputs and a limit of 600 s, the run ends by itself."""
    loop, ahead = asyncio.get_running_loop(), [0.0]
    time, go = loop.time, asyncio.Semaphore(0)
    monkeypatch.setattr(loop, "time", lambda: time() + ahead[0])

    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for delta in [DELTAS[kind]] * 3 + [{"content": "done"}]:
            await go.acquire()
            chunk = {"choices": [{"delta": delta, "finish_reason": "stop" if "content" in delta else None}]}
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        return response

    stranger.replies = [reply]
    hub.agent("model.toml", TOML.format(url=stranger.url))
    await hub.start(silence_seconds=600, ping_seconds=100_000)
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="model", sessionId="s1", message="?")
    for _ in range(3):
        go.release()
        await client.until_type(kind)
        ahead[0] += 400
    go.release()
    assert (await client.until_done())["stopReason"] in ("end_turn", "tool_calls")
    assert client.text() == "done"

"""One session over every protocol: clients of all protocols receive a run of any, and a reconnect loses nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.agui import events, run_request
from support.agui import text as agui_text
from support.envelope import connect_envelope
from support.envelope import text as envelope_text
from support.hub import Hub
from support.sse import get, open_stream, post
from support.waiting import PATIENCE

# Yields "one ", waits for the file *gate*, yields "two".
TURNSTILE = """
import asyncio, pathlib

GATE = pathlib.Path({gate!r})

async def turnstile(message: str):
    yield "one "
    while not GATE.exists():
        await asyncio.sleep(0.01)
    yield "two"
"""

Http = aiohttp.ClientSession


async def chat_by_plain(hub: Hub, http: Http) -> None:
    await (await hub.connect()).send(type="chat", agentId="echo", sessionId="s1", message="hello there")


async def chat_by_extended(hub: Hub, http: Http) -> None:
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="echo", sessionId="s1", message="hello there")


async def chat_by_envelope(hub: Hub, http: Http) -> None:
    client = await connect_envelope(hub, "agents/echo/ws?sessionId=s1")
    await client.send(type="chat", message="hello there")


async def chat_by_rest(hub: Hub, http: Http) -> None:
    status, _ = await post(http, "sessions/s1/chat", {"agentId": "echo", "message": "hello there"})
    assert status == 202


async def chat_by_openai(hub: Hub, http: Http) -> None:
    body = {"model": "echo", "sessionId": "s1", "messages": [{"role": "user", "content": "hello there"}]}
    status, answer = await post(http, "chat/completions", body)
    assert status == 200 and answer["choices"][0]["message"]["content"] == "hello there "


async def chat_by_agui(hub: Hub, http: Http) -> None:
    assert agui_text(await events(hub, "echo", run_request("hello there", thread_id="s1"))) == "hello there "


ENTRANCES = (chat_by_plain, chat_by_extended, chat_by_envelope, chat_by_rest, chat_by_openai, chat_by_agui)


@pytest.mark.parametrize("start", ENTRANCES)
async def test_clients_of_all_protocols_receive_a_run_of_any(
    hub: Hub, start: Callable[[Hub, Http], Awaitable[None]]
) -> None:
    """Both WebSocket protocols, the envelope, server-sent events and pages of events have the same run and text."""
    await hub.start()
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(Http(f"{hub.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE)))
        plain = await hub.connect("?sessionId=s1")
        extended = await hub.connect("?sessionId=s1", extended=True)
        envelope = await connect_envelope(hub, "ws?sessionId=s1", "hubbub.events")
        stream = await stack.enter_async_context(open_stream(http, "sessions/s1/events"))
        await start(hub, http)
        await plain.until_done()
        await extended.until_done()
        done = await envelope.until(lambda frame: frame["type"] == "done")
        await stream.until_kind("run_finished")
        _, page = await get(http, "sessions/s1/events")
    page_text = "".join(event["content"] for event in page["data"] if event["type"] in ("stream", "message"))
    texts = [plain.text(), extended.text(), envelope_text(envelope.frames), stream.text(), page_text]
    assert texts == ["hello there "] * 5
    assert {frame["runId"] for frame in plain.frames} == {done["taskId"]}
    assert {event.data["runId"] for event in stream.events if event.kind == "stream"} == {done["taskId"]}


async def reconnect_by_websocket(hub: Hub, http: Http, chat: dict[str, Any], open_gate: Callable[[], None]) -> str:
    first = await hub.connect("?sessionId=s1")
    await first.send(type="chat", **chat)
    last = await first.until_type("stream")
    await first.close()
    again = await hub.connect(f"?sessionId=s1&afterSeq={last['seq']}&epoch={last['epoch']}")
    open_gate()
    await again.until_done()
    return first.text() + again.text()


async def reconnect_by_sse(hub: Hub, http: Http, chat: dict[str, Any], open_gate: Callable[[], None]) -> str:
    async with open_stream(http, "sessions/s1/events") as first:
        await post(http, "sessions/s1/chat", chat)
        last = await first.until_kind("stream")
    assert last.id is not None
    async with open_stream(http, "sessions/s1/events", **{"Last-Event-ID": last.id}) as again:
        open_gate()
        await again.until_kind("run_finished")
    return first.text() + again.text()


async def reconnect_by_agui(hub: Hub, http: Http, chat: dict[str, Any], open_gate: Callable[[], None]) -> str:
    body = run_request(chat["message"], thread_id="s1")
    first = await events(hub, chat["agentId"], body, most=3)
    open_gate()
    rest = await events(hub, chat["agentId"], body, **{"Last-Event-ID": first[-1]["id"]})
    return agui_text(first) + agui_text(rest)


async def reconnect_by_rest(hub: Hub, http: Http, chat: dict[str, Any], open_gate: Callable[[], None]) -> str:
    _, accepted = await post(http, "sessions/s1/chat", chat)
    cursor, text, kinds = accepted["seq"], "", set[str]()
    async with asyncio.timeout(PATIENCE):
        while "run_finished" not in kinds:
            _, page = await get(http, f"sessions/s1/events?afterSeq={cursor}")
            for event in page["data"]:
                cursor, text = event["seq"], text + event.get("content", "")
                kinds.add(event["type"])
            if text:
                open_gate()
    return text


@pytest.mark.parametrize("reconnect", [reconnect_by_websocket, reconnect_by_sse, reconnect_by_agui, reconnect_by_rest])
async def test_a_reconnect_during_an_answer_ends_with_the_same_text(
    hub: Hub, tmp_path: Path, reconnect: Callable[..., Awaitable[str]]
) -> None:
    """Each client disconnects after the first piece, and resumes with its cursor."""
    gate = tmp_path / "gate"
    hub.agent("turnstile.py", TURNSTILE.format(gate=str(gate)))
    await hub.start()
    async with Http(f"{hub.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        text = await reconnect(hub, http, {"agentId": "turnstile", "message": "go"}, gate.touch)
        _, history = await get(http, "sessions/s1/messages")
    assert text == "one two" == history["data"][-1]["content"]

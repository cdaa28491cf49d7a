"""One session over every way in and out: a run started over any is heard over all, and a refresh loses nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.agui import asked, events
from support.agui import text as agui_text
from support.envelope import joined
from support.envelope import text as envelope_text
from support.hub import Hub
from support.sse import get, open_stream, post
from support.waiting import PATIENCE

# Says "one ", waits for the file "gate" in its folder, says "two".
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


async def by_plain(hub: Hub, http: Http) -> None:
    await (await hub.connect()).send(type="chat", agentId="echo", sessionId="s1", message="hello there")


async def by_extended(hub: Hub, http: Http) -> None:
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="echo", sessionId="s1", message="hello there")


async def by_envelope(hub: Hub, http: Http) -> None:
    client = await joined(hub, "agents/echo/ws?sessionId=s1")
    await client.send(type="chat", message="hello there")


async def by_rest(hub: Hub, http: Http) -> None:
    status, _ = await post(http, "sessions/s1/chat", {"agentId": "echo", "message": "hello there"})
    assert status == 202


async def by_openai(hub: Hub, http: Http) -> None:
    body = {"model": "echo", "sessionId": "s1", "messages": [{"role": "user", "content": "hello there"}]}
    status, answer = await post(http, "chat/completions", body)
    assert status == 200 and answer["choices"][0]["message"]["content"] == "hello there "


async def by_agui(hub: Hub, http: Http) -> None:
    assert agui_text(await events(hub, "echo", asked("hello there", thread_id="s1"))) == "hello there "


WAYS = (by_plain, by_extended, by_envelope, by_rest, by_openai, by_agui)


@pytest.mark.parametrize("start", WAYS)
async def test_a_run_started_over_any_way_is_heard_over_all(
    hub: Hub, start: Callable[[Hub, Http], Awaitable[None]]
) -> None:
    """The two WebSocket protocols, the envelope, server-sent events, and the log by the page: one run, one text."""
    await hub.start()
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(Http(f"{hub.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE)))
        plain = await hub.connect("?sessionId=s1")
        extended = await hub.connect("?sessionId=s1", extended=True)
        envelope = await joined(hub, "ws?sessionId=s1", "hubbub.events")
        stream = await stack.enter_async_context(open_stream(http, "sessions/s1/events"))
        await start(hub, http)
        await plain.until_done()
        await extended.until_done()
        done = await envelope.until(lambda frame: frame["type"] == "done")
        await stream.until_kind("run_finished")
        _, page = await get(http, "sessions/s1/events")
    kept = "".join(event["content"] for event in page["data"] if event["type"] in ("stream", "message"))
    texts = [plain.text(), extended.text(), envelope_text(envelope.frames), stream.text(), kept]
    assert texts == ["hello there "] * 5
    assert {frame["runId"] for frame in plain.frames} == {done["taskId"]}
    assert {said.data["runId"] for said in stream.events if said.kind == "stream"} == {done["taskId"]}


async def over_websocket(hub: Hub, http: Http, chat: dict[str, Any], go_on: Callable[[], None]) -> str:
    first = await hub.connect("?sessionId=s1")
    await first.send(type="chat", **chat)
    last = await first.until_type("stream")
    await first.close()
    again = await hub.connect(f"?sessionId=s1&afterSeq={last['seq']}&epoch={last['epoch']}")
    go_on()
    await again.until_done()
    return first.text() + again.text()


async def over_sse(hub: Hub, http: Http, chat: dict[str, Any], go_on: Callable[[], None]) -> str:
    async with open_stream(http, "sessions/s1/events") as first:
        await post(http, "sessions/s1/chat", chat)
        last = await first.until_kind("stream")
    assert last.id is not None
    async with open_stream(http, "sessions/s1/events", **{"Last-Event-ID": last.id}) as again:
        go_on()
        await again.until_kind("run_finished")
    return first.text() + again.text()


async def over_agui(hub: Hub, http: Http, chat: dict[str, Any], go_on: Callable[[], None]) -> str:
    body = asked(chat["message"], thread_id="s1")
    first = await events(hub, chat["agentId"], body, most=2)
    go_on()
    rest = await events(hub, chat["agentId"], body, **{"Last-Event-ID": first[-1]["id"]})
    return agui_text(first) + agui_text(rest)


async def over_rest(hub: Hub, http: Http, chat: dict[str, Any], go_on: Callable[[], None]) -> str:
    _, accepted = await post(http, "sessions/s1/chat", chat)
    cursor, said, kinds = accepted["seq"], "", set[str]()
    async with asyncio.timeout(PATIENCE):
        while "run_finished" not in kinds:
            _, page = await get(http, f"sessions/s1/events?afterSeq={cursor}")
            for event in page["data"]:
                cursor, said = event["seq"], said + event.get("content", "")
                kinds.add(event["type"])
            if said:
                go_on()
    return said


@pytest.mark.parametrize("refresh", [over_websocket, over_sse, over_agui, over_rest])
async def test_a_refresh_in_mid_answer_ends_with_the_same_text(
    hub: Hub, tmp_path: Path, refresh: Callable[..., Awaitable[str]]
) -> None:
    """Each client goes away after the first piece, comes back with its cursor, and has what the history has."""
    gate = tmp_path / "gate"
    hub.agent("turnstile.py", TURNSTILE.format(gate=str(gate)))
    await hub.start()
    async with Http(f"{hub.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        said = await refresh(hub, http, {"agentId": "turnstile", "message": "go"}, gate.touch)
        _, history = await get(http, "sessions/s1/messages")
    assert said == "one two" == history["data"][-1]["content"]

"""Agents over HTTP: shown, loaded again, and told something for all who listen."""

import os
import sqlite3
from collections.abc import AsyncIterator

import aiohttp
import pytest
from structlog.testing import capture_logs
from support.hub import Client, Hub
from support.sse import call, get, open_stream, post
from support.waiting import PATIENCE

from hub.errors import SessionDeleted
from hub.ids import Key
from hub.sessions.broadcast import log_broadcast


@pytest.fixture
async def http(hub: Hub) -> AsyncIterator[aiohttp.ClientSession]:
    hub.agent("broken.py", "def broken(x, y, z): pass")
    await hub.start()
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        yield http


async def listener(hub: Hub, query: str = "", extended: bool = False, agent: str = "echo") -> Client:
    client = await hub.connect(query, extended)
    await client.send(type="subscribe", agentId=agent)
    await client.until_type("subscribed")
    return client


async def test_one_agent_is_shown_as_in_the_list(http: aiohttp.ClientSession) -> None:
    """A broken one with its error; one that is not there is named."""
    _, page = await get(http, "agents")
    for agent in page["data"]:
        assert await get(http, f"agents/{agent['agentId']}") == (200, agent)
    assert (await get(http, "agents/broken"))[1]["status"] == "broken"
    status, said = await get(http, "agents/nobody")
    assert (status, said["code"]) == (404, "unknown_agent") and "echo" in said["error"]


async def test_an_agent_is_loaded_again(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Also where its file came just now, was mended, or looks as before; one whose file is gone is no more."""
    with capture_logs() as logged:
        assert (await post(http, "agents/new/reload"))[0] == 404
    assert logged == []  # nothing came or went
    hub.agent("new.py", 'async def new(message: str):\n    yield "one"')
    status, said = await post(http, "agents/new/reload")
    assert (status, said["status"]) == (200, "ok") and hub.node.agents.get("new")
    path = hub.folder / "agents" / "new.py"
    was = path.stat()
    hub.agent("new.py", 'async def new(message: str):\n    yield "two"')
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    await post(http, "agents/new/reload")
    _, answer = await post(http, "sessions/s1/chat?wait=true", {"agentId": "new", "message": "x"})
    assert answer["content"] == "two"
    hub.agent("new.py", "def")
    status, said = await post(http, "agents/new/reload")
    assert (status, said["status"]) == (200, "broken") and "new.py line 1" in said["error"]
    path.unlink()
    status, said = await post(http, "agents/new/reload")
    assert (status, said["code"]) == (404, "unknown_agent")
    assert "new" not in {agent["agentId"] for agent in (await get(http, "agents"))[1]["data"]}
    assert await hub.node.agents.reload_changed_agents() == []  # what was loaded here is not loaded twice
    hub.node.drain()
    assert (await post(http, "agents/echo/reload"))[1]["code"] == "draining"


async def test_a_broadcast_is_heard_by_the_group_and_kept(hub: Hub, http: aiohttp.ClientSession) -> None:
    """As an answer: plain clients hear a message and its end, the others its events; each once."""
    plain, extended = await listener(hub), await listener(hub, extended=True)
    whole = await listener(hub, "?stream=false")
    both = await listener(hub, "?sessionId=agent:echo")
    other = await listener(hub, agent="gated")
    async with open_stream(http, "sessions/agent:echo/events") as stream:
        status, told = await post(http, "agents/echo/broadcast", {"message": "news"})
        assert (status, told["sessionId"]) == (202, "agent:echo")
        await stream.until_kind("run_finished")
    for client in (plain, extended, whole, both):
        await client.until_done()
    for client in (plain, whole, both):
        message, end = client.frames[1:]
        assert (message["type"], message["content"], message["agentId"]) == ("message", "news", "echo")
        assert (message["runId"], message["messageId"]) == (told["runId"], told["messageId"])
        assert end["done"] and end["stopReason"] == "end_turn" and end["seq"] == message["seq"] + 1 == told["seq"] + 1
    heard = [frame["type"] for frame in extended.frames if "seq" in frame and "runId" in frame]
    assert heard == ["run_started", "message", "run_finished"]
    _, page = await get(http, "sessions/agent:echo/messages")
    assert [(one["role"], one["content"], one["seq"]) for one in page["data"]] == [("assistant", "news", told["seq"])]
    for client in (plain, extended, whole, both, other):
        await client.send(type="ping")
        await client.until_type("pong")
    assert "news" not in str(other.frames) and str(both.frames).count("news") == 1


async def test_a_broadcast_is_one_commit(hub: Hub, http: aiohttp.ClientSession) -> None:
    """It is there whole, or not."""
    await post(http, "sessions", {"sessionId": "agent:echo"})
    before = hub.node.log.commit_totals.commits
    await post(http, "agents/echo/broadcast", {"message": "news"})
    assert hub.node.log.commit_totals.commits == before + 1
    assert list(await hub.node.log.runs.list_unfinished_runs()) == []


async def test_a_broadcast_goes_on_beside_an_answer(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Which is not ended by it, in the same session."""
    gate = hub.folder / "gate"
    client = await hub.connect("?sessionId=agent:gated", extended=True)
    await client.send(type="chat", agentId="gated", sessionId="agent:gated", message=str(gate))
    started = await client.until_type("stream")
    _, told = await post(http, "agents/gated/broadcast", {"message": "news"})
    await client.until(lambda frame: frame["type"] == "run_finished" and frame["runId"] == told["runId"])
    gate.touch()
    await client.until(lambda frame: frame["type"] == "run_finished" and frame["runId"] == started["runId"])
    assert client.text(started["runId"]) == "one two" and client.text(told["runId"]) == "news"


@pytest.mark.parametrize(
    "agent, body, status, code",
    [
        ("nobody", {"message": "x"}, 404, "unknown_agent"),
        ("broken", {"message": "x"}, 503, "agent_broken"),
        ("echo", {"message": ""}, 400, "bad_frame"),
        ("echo", {}, 400, "bad_frame"),
        ("echo", {"message": 7}, 400, "bad_frame"),
        ("a" * 123, {"message": "x"}, 400, "bad_id"),
    ],
)
async def test_a_broadcast_that_cannot_be_is_refused(
    hub: Hub, http: aiohttp.ClientSession, agent: str, body: object, status: int, code: str
) -> None:
    """With what to send instead; nothing is kept."""
    if len(agent) > 100:
        hub.agent(f"{agent}.py", 'async def answer(message: str):\n    yield "x"')
        await hub.node.agents.reload_changed_agents()
    found, said = await post(http, f"agents/{agent}/broadcast", body)
    assert (found, said["code"]) == (status, code)
    if code == "bad_frame":
        assert '{"message":' in said["error"]
    assert (await get(http, "sessions"))[1]["data"] == []


async def test_no_broadcast_into_a_session_that_is_being_deleted(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Also by one who held it before."""
    async with hub.node.use(Key("agent:echo")) as session:
        session.admission.is_deleting = True
        with pytest.raises(SessionDeleted):
            await log_broadcast(session, hub.node.agents.get("echo"), "news")
    assert (await get(http, "sessions/agent:echo"))[0] == 404


async def test_no_broadcast_while_the_hub_goes_down_or_cannot_write(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Nothing is kept then, and nobody hears it."""
    await post(http, "sessions", {"sessionId": "agent:echo"})
    client = await listener(hub, "?sessionId=agent:echo")
    db = sqlite3.connect(hub.folder / "data" / "hub.db")
    db.executescript("PRAGMA legacy_alter_table = ON; ALTER TABLE messages RENAME TO elsewhere;")
    status, said = await post(http, "agents/echo/broadcast", {"message": "news"})
    assert (status, said["code"]) == (503, "storage_unavailable")
    db.executescript("PRAGMA legacy_alter_table = ON; ALTER TABLE elsewhere RENAME TO messages;")
    db.close()
    hub.node.drain()
    status, said = await post(http, "agents/echo/broadcast", {"message": "news"})
    assert (status, said["code"]) == (503, "draining")
    await client.send(type="ping")
    await client.until_type("pong")
    assert "news" not in str(client.frames)
    assert (await call(http, "GET", "sessions/agent:echo"))[1]["seq"] == 0

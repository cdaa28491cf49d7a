"""Agents over HTTP: the routes that show and reload an agent, and its broadcasts."""

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
    """A broken agent has its error. The error for an unknown agent has the names of the known ones."""
    _, page = await get(http, "agents")
    for agent in page["data"]:
        assert await get(http, f"agents/{agent['agentId']}") == (200, agent)
    assert (await get(http, "agents/broken"))[1]["status"] == "broken"
    status, result = await get(http, "agents/nobody")
    assert (status, result["code"]) == (404, "unknown_agent") and "echo" in result["error"]


async def test_an_agent_is_reloaded(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Also if its file is new, was repaired, or has the same size and time. An agent without a file is removed."""
    with capture_logs() as log_lines:
        assert (await post(http, "agents/new/reload"))[0] == 404
    assert log_lines == []  # no agent was added or removed
    hub.agent("new.py", 'async def new(message: str):\n    yield "one"')
    status, result = await post(http, "agents/new/reload")
    assert (status, result["status"]) == (200, "ok") and hub.node.agents.get_working("new")
    path = hub.folder / "agents" / "new.py"
    stat = path.stat()
    hub.agent("new.py", 'async def new(message: str):\n    yield "two"')
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    await post(http, "agents/new/reload")
    _, answer = await post(http, "sessions/s1/chat?wait=true", {"agentId": "new", "message": "x"})
    assert answer["content"] == "two"
    hub.agent("new.py", "def")
    status, result = await post(http, "agents/new/reload")
    assert (status, result["status"]) == (200, "broken") and "new.py line 1" in result["error"]
    path.unlink()
    status, result = await post(http, "agents/new/reload")
    assert (status, result["code"]) == (404, "unknown_agent")
    assert "new" not in {agent["agentId"] for agent in (await get(http, "agents"))[1]["data"]}
    assert await hub.node.agents.reload_changed_agents() == []  # a reloaded file is not loaded a second time
    hub.node.drain()
    assert (await post(http, "agents/echo/reload"))[1]["code"] == "draining"


async def test_a_broadcast_reaches_the_group_and_is_stored(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Each client gets it once: plain clients as a message and its end, extended clients as the events of a run."""
    plain, extended = await listener(hub), await listener(hub, extended=True)
    unstreamed = await listener(hub, "?stream=false")
    both = await listener(hub, "?sessionId=agent:echo")
    other = await listener(hub, agent="gated")
    async with open_stream(http, "sessions/agent:echo/events") as stream:
        status, broadcast = await post(http, "agents/echo/broadcast", {"message": "news"})
        assert (status, broadcast["sessionId"]) == (202, "agent:echo")
        await stream.until_kind("run_finished")
    for client in (plain, extended, unstreamed, both):
        await client.until_done()
    for client in (plain, unstreamed, both):
        message, end = client.frames[1:]
        assert (message["type"], message["content"], message["agentId"]) == ("message", "news", "echo")
        assert (message["runId"], message["messageId"]) == (broadcast["runId"], broadcast["messageId"])
        assert (
            end["done"] and end["stopReason"] == "end_turn" and end["seq"] == message["seq"] + 1 == broadcast["seq"] + 1
        )
    kinds = [frame["type"] for frame in extended.frames if "seq" in frame and "runId" in frame]
    assert kinds == ["run_started", "message", "run_finished"]
    _, page = await get(http, "sessions/agent:echo/messages")
    assert [(one["role"], one["content"], one["seq"]) for one in page["data"]] == [
        ("assistant", "news", broadcast["seq"])
    ]
    for client in (plain, extended, unstreamed, both, other):
        await client.send(type="ping")
        await client.until_type("pong")
    assert "news" not in str(other.frames) and str(both.frames).count("news") == 1


async def test_a_broadcast_is_one_commit(hub: Hub, http: aiohttp.ClientSession) -> None:
    """So the log has all of its events or none."""
    await post(http, "sessions", {"sessionId": "agent:echo"})
    before = hub.node.log.commit_totals.commits
    await post(http, "agents/echo/broadcast", {"message": "news"})
    assert hub.node.log.commit_totals.commits == before + 1
    assert list(await hub.node.log.runs.list_unfinished_runs()) == []


async def test_a_broadcast_does_not_end_an_answer(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Although both are in the same session."""
    gate = hub.folder / "gate"
    client = await hub.connect("?sessionId=agent:gated", extended=True)
    await client.send(type="chat", agentId="gated", sessionId="agent:gated", message=str(gate))
    started = await client.until_type("stream")
    _, broadcast = await post(http, "agents/gated/broadcast", {"message": "news"})
    await client.until(lambda frame: frame["type"] == "run_finished" and frame["runId"] == broadcast["runId"])
    gate.touch()
    await client.until(lambda frame: frame["type"] == "run_finished" and frame["runId"] == started["runId"])
    assert client.text(started["runId"]) == "one two" and client.text(broadcast["runId"]) == "news"


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
async def test_an_invalid_broadcast_is_refused(
    hub: Hub, http: aiohttp.ClientSession, agent: str, body: object, status: int, code: str
) -> None:
    """The error says what to send, and nothing is stored."""
    if len(agent) > 100:
        hub.agent(f"{agent}.py", 'async def answer(message: str):\n    yield "x"')
        await hub.node.agents.reload_changed_agents()
    actual_status, result = await post(http, f"agents/{agent}/broadcast", body)
    assert (actual_status, result["code"]) == (status, code)
    if code == "bad_frame":
        assert '{"message":' in result["error"]
    assert (await get(http, "sessions"))[1]["data"] == []


async def test_a_broadcast_into_a_session_that_is_being_deleted_is_refused(
    hub: Hub, http: aiohttp.ClientSession
) -> None:
    """Also if the caller had the session before the deletion began."""
    async with hub.node.loader.use(Key("agent:echo")) as session:
        session.admission.is_deleting = True
        with pytest.raises(SessionDeleted):
            await log_broadcast(session, hub.node.agents.get_working("echo"), "news")
    assert (await get(http, "sessions/agent:echo"))[0] == 404


async def test_a_broadcast_is_refused_while_the_hub_drains_or_the_log_fails(
    hub: Hub, http: aiohttp.ClientSession
) -> None:
    """Then nothing is stored, and no client receives it."""
    await post(http, "sessions", {"sessionId": "agent:echo"})
    client = await listener(hub, "?sessionId=agent:echo")
    db = sqlite3.connect(hub.folder / "data" / "hub.db")
    db.executescript("PRAGMA legacy_alter_table = ON; ALTER TABLE messages RENAME TO elsewhere;")
    status, result = await post(http, "agents/echo/broadcast", {"message": "news"})
    assert (status, result["code"]) == (503, "storage_unavailable")
    db.executescript("PRAGMA legacy_alter_table = ON; ALTER TABLE elsewhere RENAME TO messages;")
    db.close()
    hub.node.drain()
    status, result = await post(http, "agents/echo/broadcast", {"message": "news"})
    assert (status, result["code"]) == (503, "draining")
    await client.send(type="ping")
    await client.until_type("pong")
    assert "news" not in str(client.frames)
    assert (await call(http, "GET", "sessions/agent:echo"))[1]["seq"] == 0

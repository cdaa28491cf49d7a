"""The deletion of a session: its runs end, all clients are notified, and no data is left, also in races."""

import asyncio
import signal
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.hub import Client, Hub
from support.process import HubProcess
from support.sse import call, get, open_stream, post, wait_until_all_left
from support.waiting import PATIENCE, eventually

from hub.errors import SessionDeleted
from hub.ids import Key
from hub.limits import MiB
from hub.messages import Error
from hub.node.deleting import delete
from hub.node.expiring import expire_events
from hub.storage.log import AppendCallback
from hub.storage.records import Append

# Ignores every cancel until the file named by the message exists; then yields "late".
STUBBORN = """
import asyncio, pathlib

async def stubborn(message: str):
    yield "one "
    while not pathlib.Path(message).exists():
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            pass
    yield "late"
"""
# Writes a line to the file named by the message at each call.
COUNTED = """
import asyncio, pathlib
from hub.hosting.contract import agent

@agent(restartable=True)
async def counted(message: str):
    with pathlib.Path(message).open("a") as file:
        file.write("called\\n")
    yield "one "
    await asyncio.sleep(3600)
"""


@pytest.fixture
async def http(hub: Hub) -> AsyncIterator[aiohttp.ClientSession]:
    hub.agent("stubborn.py", STUBBORN)
    hub.agent("counted.py", COUNTED)
    await hub.start(grace_seconds=0.5, close_seconds=PATIENCE)
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        yield http
    while GATES:
        GATES.pop().set()  # after a failed test the hub would wait for its log


GATES: list[asyncio.Event] = []


def is_deletion_notice(frame: dict[str, Any]) -> bool:
    return bool(frame["type"] == "error" and frame["code"] == "session_deleted")


def hold(hub: Hub, store: str, name: str) -> asyncio.Event:
    """Return an event; each call of the method *name* of a store of the log waits until it is set."""
    owner = getattr(hub.node.log, store)
    gate, method = asyncio.Event(), getattr(owner, name)
    GATES.append(gate)

    async def delayed(*arguments: Any, **options: Any) -> Any:
        await gate.wait()
        return await method(*arguments, **options)

    setattr(owner, name, delayed)
    return gate


async def ask(client: Client, agent: str, message: str, session: str = "s1", **fields: Any) -> dict[str, Any]:
    """Chat, and return `accepted`."""
    await client.send(type="chat", agentId=agent, sessionId=session, message=message, **fields)
    return await client.until_type("accepted")


# --- notices and remaining data ---------------------------------------------------------------------------------------


async def test_a_deletion_ends_the_runs_and_notifies_all_clients(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Queued runs end first, each once. Then each client gets `session_deleted` as its last frame."""
    never = str(hub.folder / "never")
    extended, plain = await hub.connect("?sessionId=s1", extended=True), await hub.connect("?sessionId=s1")
    complete, envelope = await hub.connect("?sessionId=s1&stream=false"), await hub.connect(
        "", protocols=["hubbub.events"]
    )
    await envelope.send(type="subscribe", sessionId="s1")
    runs = [(await ask(extended, "gated", never))["runId"] for _ in range(3)]
    await plain.until_type("stream")
    async with open_stream(http, "sessions/s1/events") as stream:
        await stream.until_kind("stream")
        assert await call(http, "DELETE", "sessions/s1") == (204, None)
        await stream.rest()  # the response ends
    ends = [event.data for event in stream.events if event.kind == "run_finished"]
    assert [end["runId"] for end in ends] == [runs[1], runs[2], runs[0]]
    assert {end["stopReason"] for end in ends} == {"cancelled"}
    assert stream.events[-1].kind == "hub_error" and is_deletion_notice({"type": "error", **stream.events[-1].data})
    for client in (extended, plain, complete):
        notice = await client.until(is_deletion_notice)
        assert notice["sessionId"] == "s1" and "seq" not in notice
        run_ids = [frame["runId"] for frame in client.frames if "stopReason" in frame]
        assert run_ids == [runs[1], runs[2], runs[0]]
    assert (await envelope.until(lambda frame: frame["type"] == "error"))["payload"]["code"] == "session_deleted"
    assert not any(connection.subscriptions for connection in hub.node.registry.connections)
    await assert_no_data_left(hub)
    assert [(await call(http, method, "sessions/s1"))[0] for method in ("GET", "DELETE")] == [404, 404]


async def assert_no_data_left(hub: Hub) -> None:
    assert not hub.node.sessions and not hub.node.loader.deletions and hub.node.pages.size == 0
    db = sqlite3.connect(hub.folder / "data" / "hub.db")
    for table in ("sessions", "events", "loose", "strips", "messages", "runs", "chats"):
        assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
    db.close()


async def test_a_group_receives_the_end_of_a_run_but_not_the_deletion(hub: Hub, http: aiohttp.ClientSession) -> None:
    """A client of the group did not subscribe to the session itself."""
    listener, client = await hub.connect(extended=True), await hub.connect(extended=True)
    await listener.send(type="subscribe", agentId="gated")
    await listener.until_type("subscribed")
    await ask(client, "gated", str(hub.folder / "never"))
    await listener.until_type("stream")
    await call(http, "DELETE", "sessions/s1")
    await listener.until_done()
    await client.until(is_deletion_notice)
    await listener.send(type="ping")
    await listener.until_type("pong")
    assert not any(map(is_deletion_notice, listener.frames))


@pytest.mark.parametrize("deletes", [1, 2])
async def test_a_new_session_has_nothing_of_a_deleted_one_with_its_id(
    hub: Hub, http: aiohttp.ClientSession, deletes: int
) -> None:
    """It has a new epoch, and its seqs begin with 1. A cursor of the old session gets a reset."""
    own, named = await hub.connect(extended=True), await hub.connect("?sessionId=s1")
    await own.send(type="chat", agentId="echo", message="old")
    session = (await own.until_done())["sessionId"]
    for number in range(deletes):
        before = await chat_with_echo(named, "s1", clientMsgId=f"c{number}")
        old = await get(http, f"sessions/{session}")
        late = await hub.connect(f"?sessionId=s1&afterSeq=0&epoch={before['epoch']}")
        await late.until_done()  # the page cache has the events that it read
        await call(http, "PATCH", "sessions/s1", {"title": "old"})
        assert await post(http, "sessions/clear", {"sessionIds": ["s1", session, "s1", "nobody"]}) == (
            200,
            {"deleted": 2},
        )
        await named.until(is_deletion_notice)
        own.frames.clear()
        await own.send(type="chat", agentId="echo", message="new")  # in the session of its connection
        new = await own.until_done()
        assert new["sessionId"] == session and new["epoch"] != old[1]["epoch"] and new["seq"] == 4
        after = await chat_with_echo(
            named, "s1", clientMsgId=f"c{number}"
        )  # the same clientMsgId starts a new run in the new session
        assert after["epoch"] != before["epoch"] and after["seq"] == 4
        assert (await get(http, "sessions/s1"))[1].get("title") is None
        resumed = await hub.connect(f"?sessionId=s1&afterSeq=2&epoch={before['epoch']}")
        assert (await resumed.next())["code"] == "reset"
        complete = await hub.connect("?sessionId=s1&afterSeq=0")
        await complete.until_done()
        assert complete.text() == "hello " and complete.frames[-1]["epoch"] == after["epoch"]
        _, page = await get(http, "sessions/s1/messages")
        assert [message["content"] for message in page["data"]] == ["hello", "hello "]
        for client in (late, resumed, complete):
            await client.close()


async def chat_with_echo(client: Client, session: str, **fields: Any) -> dict[str, Any]:
    await client.send(type="chat", agentId="echo", sessionId=session, message="hello", **fields)
    return await client.until_done()


async def test_sessions_are_cleared_by_id_by_time_or_all(hub: Hub, http: aiohttp.ClientSession) -> None:
    """The time is that of the last message. Other sessions stay."""
    for name in ("s1", "s2", "s3"):
        await post(http, f"sessions/{name}/chat?wait=true", {"agentId": "echo", "message": "hello"})
    await post(http, "sessions", {"sessionId": "empty"})
    _, page = await get(http, "sessions")
    oldest = min(one["ts"] for one in page["data"] if one["ts"])
    assert await post(http, "sessions/clear", {"before": oldest}) == (200, {"deleted": 0})
    assert await post(http, "sessions/clear", {"sessionIds": ["s2"]}) == (200, {"deleted": 1})
    assert {one["sessionId"] for one in (await get(http, "sessions"))[1]["data"]} == {"s1", "s3", "empty"}
    assert await post(http, "sessions/clear", {"before": 10**15}) == (200, {"deleted": 2})
    assert {one["sessionId"] for one in (await get(http, "sessions"))[1]["data"]} == {"empty"}
    assert await post(http, "sessions/clear", {"all": True}) == (200, {"deleted": 1})
    await assert_no_data_left(hub)


async def test_clearing_by_time_spares_a_session_with_a_new_message(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Also if the log has not yet committed the message. Its answer goes on."""
    client = await hub.connect(extended=True)
    for session in ("s1", "s2", "s3"):
        await chat_with_echo(client, session)
    _, page = await get(http, "sessions")
    before = max(one["ts"] for one in page["data"]) + 1
    gate, sessions, append = asyncio.Event(), hub.node.log.sessions.list, hub.node.log.events.append
    has_list, appends = asyncio.Event(), list[tuple[Append, AppendCallback]]()

    async def delayed(*arguments: Any) -> Any:
        page = await sessions(*arguments)
        has_list.set()
        await gate.wait()
        return page

    hub.node.log.sessions.list = delayed  # type: ignore[method-assign, assignment]
    clearing = asyncio.create_task(post(http, "sessions/clear", {"before": before}))
    await asyncio.wait_for(has_list.wait(), PATIENCE)
    while (await hub.node.log.sessions.read_last_messages(Key("s2"), 1, MiB))[0].ts < before:
        await chat_with_echo(client, "s2")
    hub.node.log.events.append = lambda *append: appends.append(append)  # type: ignore[method-assign]
    await client.send(type="chat", agentId="echo", sessionId="s3", message="still here")
    await eventually(lambda: appends)
    gate.set()
    await eventually(lambda: "s1" not in hub.node.sessions and "s2" not in hub.node.loader.deletions)
    assert "s3" in hub.node.loader.deletions
    hub.node.log.events.append = append  # type: ignore[method-assign]
    append(*appends[0])
    assert await clearing == (200, {"deleted": 1})
    assert (await client.until_done())["sessionId"] == "s3"
    assert [(await get(http, f"sessions/s{n}"))[0] for n in (1, 2, 3)] == [404, 200, 200]


async def test_a_deletion_deletes_a_session_that_a_concurrent_clearing_spares(
    hub: Hub, http: aiohttp.ClientSession
) -> None:
    client = await hub.connect(extended=True)
    await chat_with_echo(client, "s1")
    gate = hold(hub, "sessions", "read_last_messages")
    sparing = asyncio.create_task(delete(hub.node, Key("s1"), before=1))
    await eventually(lambda: hub.node.loader.deletions)
    deleting = asyncio.create_task(delete(hub.node, Key("s1")))
    await asyncio.sleep(0)
    gate.set()
    assert (await sparing, await deleting) == (False, True)
    assert (await get(http, "sessions/s1"))[0] == 404


@pytest.mark.parametrize(
    "body",
    [{}, [], {"all": False}, {"all": True, "before": 1}, {"sessionIds": ["a b"]}, {"sessionIds": "s1"}, {"before": -1}],
)
async def test_an_ambiguous_clearing_is_refused(http: aiohttp.ClientSession, body: Any) -> None:
    """The error says what to send, and nothing is deleted."""
    await post(http, "sessions", {"sessionId": "s1"})
    status, refused = await post(http, "sessions/clear", body)
    assert (status, refused["code"]) == (400, "bad_frame") and "sessionIds" in refused["error"]
    assert (await get(http, "sessions/s1"))[0] == 200


# --- races ------------------------------------------------------------------------------------------------------------


async def test_concurrent_deletions_share_one_deletion(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Both return after it. Each run has one end, and the client gets one notice."""
    client = await hub.connect(extended=True)
    await ask(client, "gated", str(hub.folder / "never"))
    both = await asyncio.gather(*(call(http, "DELETE", "sessions/s1") for _ in range(2)))
    assert both == [(204, None), (204, None)]
    await client.until(is_deletion_notice)
    assert len([frame for frame in client.frames if frame["type"] == "run_finished"]) == 1
    await client.send(type="ping")
    await client.until_type("pong")
    assert len([frame for frame in client.frames if is_deletion_notice(frame)]) == 1


async def test_commands_during_a_deletion_are_refused_and_may_be_retried(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Chats, subscriptions, event streams and sockets get `session_deleted`. A later chat is in a new session."""
    gate = hold(hub, "sessions", "delete")
    client = await hub.connect(extended=True)
    accepted = await ask(client, "echo", "hello", clientMsgId="c1")
    await client.until_done()
    deleting = asyncio.create_task(call(http, "DELETE", "sessions/s1"))
    await client.until(is_deletion_notice)
    for command in (
        {"type": "chat", "agentId": "echo", "message": "hello"},
        {"type": "chat", "agentId": "echo", "message": "hello", "clientMsgId": "c1"},
        {"type": "subscribe"},
    ):
        await client.send(sessionId="s1", ref=1, **command)
        refused = await client.until(lambda frame: frame.get("ref") == 1)
        assert is_deletion_notice(refused) and refused["retryAfterMs"] and refused["sessionId"] == "s1"
    assert (await post(http, "sessions/s1/chat", {"agentId": "echo", "message": "x"}))[0] == 409
    assert (await post(http, "sessions", {"sessionId": "s1"}))[1]["code"] == "session_deleted"
    async with open_stream(http, "sessions/s1/events") as stream:
        assert (await stream.until_kind("hub_error")).data["code"] == "session_deleted"
        await stream.rest()
    socket = await hub.connect("?sessionId=s1")
    assert is_deletion_notice(await socket.next()) and await socket.wait_closed() == 1013
    gate.set()
    assert await deleting == (204, None)
    again = await ask(client, "echo", "hello", clientMsgId="c1")
    assert again["status"] == "started" and again["seq"] == 1 and again["runId"] != accepted["runId"]
    assert (await client.until_done())["seq"] == 4


async def test_commands_that_began_before_a_deletion_see_no_partial_session(
    hub: Hub, http: aiohttp.ClientSession
) -> None:
    """A subscription waits for the history, and a chat for the lookup of its clientMsgId: both are refused."""
    await post(http, "sessions/s1/chat?wait=true", {"agentId": "echo", "message": "hello", "clientMsgId": "c1"})
    history, lookup = hold(hub, "sessions", "read_last_messages"), hold(hub, "runs", "find_chat")
    reader, sender = await hub.connect(extended=True), await hub.connect(extended=True)
    await reader.send(type="subscribe", sessionId="s1", history=9, ref=1)
    await eventually(lambda: "s1" in hub.node.sessions and hub.node.sessions[Key("s1")].use_count == 1)
    await sender.send(type="chat", agentId="echo", sessionId="s1", message="more", clientMsgId="c2", ref=2)
    await eventually(lambda: hub.node.sessions[Key("s1")].admission.single_flight.tasks)
    deleting = asyncio.create_task(call(http, "DELETE", "sessions/s1"))
    await eventually(lambda: hub.node.loader.deletions)
    lookup.set()  # the deletion has begun before the chat is admitted
    assert is_deletion_notice(await sender.until(lambda frame: frame.get("ref") == 2))
    assert await deleting == (204, None)
    history.set()
    assert is_deletion_notice(await reader.until(lambda frame: frame.get("ref") == 1))
    assert "subscribed" not in {frame["type"] for frame in reader.frames}
    await assert_no_data_left(hub)


async def test_a_closed_channel_refuses_new_subscriptions(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Also a caller that got the channel before it was closed."""
    await hub.connect()
    (connection,) = hub.node.registry.connections
    async with hub.node.loader.use(Key("s1")) as session:
        hub.node.registry.close_channel(session.channel, Error(code="session_deleted", message="gone"))
        with pytest.raises(SessionDeleted):
            hub.node.registry.subscribe(connection, session.channel, None)
    assert not connection.subscriptions and not hub.node.sessions


async def test_a_request_that_waits_for_an_answer_gets_session_deleted(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Not a part of the answer, and not an internal error, also if a new session with the id exists."""
    body = {"agentId": "gated", "message": str(hub.folder / "never")}
    waiting = asyncio.create_task(post(http, "sessions/s1/chat?wait=true", body))
    await eventually(lambda: "s1" in hub.node.sessions and hub.node.sessions[Key("s1")].active_runs)
    reads = hold(hub, "events", "read")
    assert await call(http, "DELETE", "sessions/s1") == (204, None)
    await post(http, "sessions/s1/chat", {"agentId": "echo", "message": "anew"})
    reads.set()
    status, refused = await waiting
    assert (status, refused["code"]) == (409, "session_deleted")


async def test_an_agent_that_ignores_its_cancel_does_not_block_the_deletion(
    hub: Hub, http: aiohttp.ClientSession
) -> None:
    """The run ends after the grace time. Neither the old session nor the new one gets the later text of the agent."""
    gate = hub.folder / "gate"
    client = await hub.connect(extended=True)
    first = await ask(client, "stubborn", str(gate))
    await client.until_type("stream")
    assert await call(http, "DELETE", "sessions/s1") == (204, None)
    end = await client.until_done()
    assert (end["runId"], end["stopReason"]) == (first["runId"], "cancelled")
    await client.until(is_deletion_notice)
    again = await ask(client, "echo", "anew")
    await client.until_done()
    agent = hub.node.agents.get_working("stubborn")
    assert agent.running_answers == 1
    gate.touch()
    await eventually(lambda: agent.running_answers == 0)
    await client.send(type="ping")
    await client.until_type("pong")
    assert client.text(first["runId"]) == "one " and client.text(again["runId"]) == "anew "
    assert (await get(http, "sessions/s1"))[1]["seq"] == 4


async def test_catch_up_sends_nothing_of_a_new_session_with_the_same_id(hub: Hub) -> None:
    """The catch-up reads a page while the session is deleted and created again."""
    await hub.start(close_seconds=0.1)  # the deletion does not wait longer for a client that reads nothing
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        for _ in range(3):
            await post(http, "sessions/s1/chat?wait=true", {"agentId": "echo", "message": "old"})
        gate = hold(hub, "events", "read")
        late = await hub.connect("?sessionId=s1&afterSeq=0")
        await eventually(lambda: any(one.catchup.lagging_subscriptions for one in hub.node.registry.connections))
        assert await call(http, "DELETE", "sessions/s1") == (204, None)
        assert is_deletion_notice(await late.next())
        await post(http, "sessions/s1/chat", {"agentId": "echo", "message": "new"})
    gate.set()
    await late.send(type="ping")
    await late.until_type("pong")
    assert not late.text()
    again = await hub.connect("?sessionId=s1&afterSeq=0")
    await again.until_done()
    assert again.text() == "new "


@pytest.mark.parametrize("ends", ["by reading on", "by unsubscribing", "by going"])
async def test_a_deletion_waits_for_lagging_subscriptions(hub: Hub, ends: str) -> None:
    """Until the subscription has reached the head or has ended. The time limit of the wait is longer than the test."""
    await hub.start(close_seconds=10 * PATIENCE)
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        await post(http, "sessions/s1/chat?wait=true", {"agentId": "echo", "message": "hello"})
        gate = hold(hub, "events", "read")
        late = await hub.connect("?sessionId=s1&afterSeq=0", extended=True)
        await eventually(lambda: any(one.catchup.lagging_subscriptions for one in hub.node.registry.connections))
        deleting = asyncio.create_task(call(http, "DELETE", "sessions/s1"))
        await eventually(lambda: hub.node.loader.deletions)
        await late.send(type="ping")
        await late.until_type("pong")
        assert not deleting.done()
        if ends == "by reading on":
            gate.set()
            await late.until_done()
            await late.until(is_deletion_notice)
            assert late.text() == "hello "
        elif ends == "by unsubscribing":
            await late.send(type="unsubscribe", sessionId="s1")
        else:
            hub.clients.remove(late)
            await late.close()
        assert await deleting == (204, None)
        gate.set()


async def test_retention_spares_a_new_session_with_the_id_of_a_deleted_one(
    hub: Hub, http: aiohttp.ClientSession
) -> None:
    """Retention found a floor of the old session: it does not apply to the new one, and no client gets a reset."""
    await post(http, "sessions/s1/chat?wait=true", {"agentId": "echo", "message": "old"})
    listener = await hub.connect("?sessionId=s1")  # keeps the session in memory
    gate, expire = asyncio.Event(), hub.node.log.events.expire

    async def delayed(before: int, limit: int) -> dict[Key, int]:
        floors = await expire(before, limit)
        await gate.wait()
        return floors

    hub.node.log.events.expire = delayed  # type: ignore[method-assign, assignment]
    expiry = asyncio.create_task(expire_events(hub.node, 2**60))
    async with asyncio.timeout(PATIENCE):
        while (await get(http, "sessions/s1"))[1]["floor"] == 0:
            pass
    await call(http, "DELETE", "sessions/s1")
    await listener.until(is_deletion_notice)
    await chat_with_echo(listener, "s1")
    gate.set()
    await expiry
    assert hub.node.sessions[Key("s1")].channel.floor == 0
    again = await hub.connect("?sessionId=s1&afterSeq=0")
    await again.until_done()
    assert again.text() == "hello "


async def test_a_cancelled_caller_does_not_stop_the_deletion(hub: Hub, http: aiohttp.ClientSession) -> None:
    await post(http, "sessions", {"sessionId": "s1"})
    gate = hold(hub, "sessions", "delete")
    caller = asyncio.create_task(delete(hub.node, Key("s1")))
    await eventually(lambda: hub.node.loader.deletions)
    caller.cancel()
    await asyncio.wait([caller])
    gate.set()
    await eventually(lambda: not hub.node.loader.deletions)
    assert await hub.node.log.sessions.find(Key("s1")) is None


async def test_a_session_stays_if_its_deletion_fails(hub: Hub, http: aiohttp.ClientSession) -> None:
    """The log refuses the deletion. Then the session accepts chats again."""
    client = await hub.connect(extended=True)
    await ask(client, "echo", "hello")
    await client.until_done()
    db = sqlite3.connect(hub.folder / "data" / "hub.db")
    db.executescript("PRAGMA legacy_alter_table = ON; ALTER TABLE runs RENAME TO elsewhere;")
    async with hub.node.loader.use(Key("s1")):  # keeps the session in memory
        status, refused = await call(http, "DELETE", "sessions/s1")
        assert (status, refused["code"]) == (503, "storage_unavailable")
        db.executescript("PRAGMA legacy_alter_table = ON; ALTER TABLE elsewhere RENAME TO runs;")
        db.close()
        assert (await get(http, "sessions/s1"))[1]["seq"] == 4
        again = await ask(client, "echo", "more")
    assert again["seq"] == 5
    assert (await client.until_done())["seq"] == 8
    assert await call(http, "DELETE", "sessions/s1") == (204, None)


async def test_a_session_keeps_its_files_if_its_deletion_fails(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Also a file whose upload ends later. One commit deletes everything or nothing."""
    gate = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"abc"
        await gate.wait()
        yield b"def"

    async def upload(data: Any) -> Any:
        async with http.post("files?sessionId=s1", data=data, headers={"Content-Type": "text/plain"}) as response:
            return response.status, await response.json()

    async def read(file_id: str) -> bytes:
        async with http.get(f"files/{file_id}") as response:
            return await response.read()

    _, first = await upload(b"first")
    later = asyncio.create_task(upload(body()))
    await eventually(lambda: any(path.suffix == ".part" for path in (hub.folder / "data" / "files").iterdir()))
    db = sqlite3.connect(hub.folder / "data" / "hub.db")
    db.executescript("PRAGMA legacy_alter_table = ON; ALTER TABLE runs RENAME TO elsewhere;")
    assert (await call(http, "DELETE", "sessions/s1"))[0] == 503
    db.executescript("PRAGMA legacy_alter_table = ON; ALTER TABLE elsewhere RENAME TO runs;")
    db.close()
    gate.set()
    status, second = await later
    assert status == 201 and [await read(one["fileId"]) for one in (first, second)] == [b"first", b"abcdef"]


async def test_a_draining_hub_begins_no_deletion(hub: Hub, http: aiohttp.ClientSession) -> None:
    """A deletion that has begun ends before the log is closed."""
    for name in ("s1", "s2"):
        await post(http, "sessions", {"sessionId": name})
    gate = hold(hub, "sessions", "delete")
    first = asyncio.create_task(call(http, "DELETE", "sessions/s1"))
    await eventually(lambda: hub.node.loader.deletions)
    hub.node.drain()
    assert (await call(http, "DELETE", "sessions/s2"))[1]["code"] == "draining"
    assert (await post(http, "sessions/clear", {"all": True}))[1]["code"] == "draining"

    async def closing() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            asyncio.get_running_loop().call_later(0.05, gate.set)  # after everything else is closed

    hub.door.upkeep._tasks.append(asyncio.create_task(closing()))
    await hub.stop()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await hub.start()
    assert (
        await hub.node.log.sessions.find(Key("s1")) is None and await hub.node.log.sessions.find(Key("s2")) is not None
    )


async def test_a_chat_that_is_deleted_before_its_commit_ends_once(hub: Hub, http: aiohttp.ClientSession) -> None:
    """One commit has the message and the end of its run. A client that is subscribed gets both before `accepted`."""
    client = await hub.connect("?sessionId=s1", extended=True)
    await hub.wait_until_live("s1", 1)
    append, appends = hub.node.log.events.append, list[tuple[Append, AppendCallback]]()
    hub.node.log.events.append = lambda *append: appends.append(append)  # type: ignore[method-assign]
    posting = asyncio.create_task(post(http, "sessions/s1/chat", {"agentId": "gated", "message": "never"}))
    await eventually(lambda: appends)  # the next chat waits for this commit
    await client.send(type="chat", agentId="echo", sessionId="s1", message="x", ref=1, ifBusy="enqueue")
    await eventually(lambda: len(hub.node.sessions[Key("s1")].queued_runs) == 1)
    deleting = asyncio.create_task(call(http, "DELETE", "sessions/s1"))
    await eventually(lambda: hub.node.loader.deletions)
    hub.node.log.events.append = append  # type: ignore[method-assign]
    append(*appends[0])
    await client.until(is_deletion_notice)
    (accepted,) = [frame for frame in client.frames if frame.get("ref") == 1]
    frames = [frame for frame in client.frames if frame.get("runId") == accepted["runId"] or is_deletion_notice(frame)]
    assert [frame["type"] for frame in frames] == ["run_finished", "accepted", "error"]
    assert frames[0]["stopReason"] == "cancelled"
    assert (await posting)[0] == 202 and await deleting == (204, None)


async def test_a_deletion_leaves_nothing_in_memory(hub: Hub) -> None:
    """After many concurrent deletions and chats. Each chat is refused, or has a complete answer in one session.

    The end of the answer may come before `accepted`: see the test above. The time limits of a deletion are longer than
    this test.
    """
    await hub.start(close_seconds=10 * PATIENCE)
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        await chat_and_delete(hub, http)


async def chat_and_delete(hub: Hub, http: aiohttp.ClientSession) -> None:
    clients = [await hub.connect(extended=True) for _ in range(4)]

    async def chat(client: Client, count: int) -> None:
        for number in range(count):
            await client.send(type="chat", agentId="echo", sessionId="s1", message="a b c", ref=number)
            answer = await client.until(lambda frame: frame.get("ref") == number)
            if answer["type"] == "accepted":
                run = answer["runId"]
                end = await client.find(lambda frame: frame["type"] == "run_finished" and frame["runId"] == run)
                if end["stopReason"] == "end_turn":
                    assert client.text(run) == "a b c "
            else:
                assert is_deletion_notice(answer)

    async def deletions(count: int) -> None:
        for _ in range(count):
            assert (await call(http, "DELETE", "sessions/s1"))[0] in (204, 404)

    await asyncio.gather(*(chat(client, 15) for client in clients), deletions(25))
    for client in clients:
        order = [(frame["epoch"], frame["seq"]) for frame in client.frames if "seq" in frame and "ts" in frame]
        for (epoch, seq), (later, next_) in zip(order, order[1:]):
            assert later != epoch or next_ > seq
        await client.close()
    await call(http, "DELETE", "sessions/s1")
    await wait_until_all_left(hub)
    await assert_no_data_left(hub)


# --- kill -9 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
async def test_after_a_kill_around_a_deletion_the_session_is_complete_or_absent(tmp_path: Path, when: str) -> None:
    """After a deletion, the next start runs no queued run and no restartable run of the session."""
    hub, calls = HubProcess(tmp_path), tmp_path / "calls"
    hub.agent("counted.py", COUNTED)
    hub.agent("stubborn.py", STUBBORN)
    await hub.start()
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
            base = f"{hub.url}/api/v1/sessions/s1"
            for agent in ("counted", "counted", "stubborn"):
                message = str(calls if agent == "counted" else tmp_path / "never")
                async with http.post(f"{base}/chat", json={"agentId": agent, "message": message}) as answer:
                    assert answer.status == 202
            await eventually(lambda: _called(calls) == 1 and _count(hub, "agent = 'stubborn' AND type = 'stream'"))
            deleting = asyncio.create_task(_delete(http, base))  # the stubborn run delays it by the grace time
            if when == "after":
                assert await deleting == 204
            else:
                await eventually(lambda: _ends(hub) == 2)  # the ends of the queued run and of the run that stopped
            hub.signal(signal.SIGKILL)
            await hub.wait_until_ended()
            await asyncio.gather(deleting, return_exceptions=True)
            await hub.start()
            async with http.get(f"{hub.url}/api/v1/sessions/s1") as answer:
                assert answer.status == (200 if when == "before" else 404)
            if when == "before":
                await eventually(lambda: _ends(hub) == 3)
                assert await _delete(http, f"{hub.url}/api/v1/sessions/s1") == 204
            assert _called(calls) == 1
        hub.signal(signal.SIGTERM)
        await hub.wait_until_ended()
    finally:
        await hub.kill()


async def _delete(http: aiohttp.ClientSession, url: str) -> int:
    async with http.delete(url) as answer:
        return answer.status


def _called(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def _ends(hub: HubProcess) -> int:
    return _count(hub, "type = 'run_finished'")


def _count(hub: HubProcess, condition: str) -> int:
    """Return the number of events in the log for which an SQL condition is true."""
    db = sqlite3.connect(hub.database, timeout=PATIENCE)
    (count,) = db.execute(f"SELECT count(*) FROM events WHERE {condition}").fetchone()
    db.close()
    return int(count)

"""The end of a session: its runs end, everyone is told, nothing is left; whatever else happens meanwhile."""

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
from hub.node import upkeep
from hub.node.deleting import delete
from hub.storage.log import AppendCallback
from hub.storage.records import Append

# Goes on where it is cancelled, until the file of its message is there; says what it was asked.
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
# Notes each time that it is called.
NOTED = """
import asyncio, pathlib
from hub.hosting.contract import agent

@agent(restartable=True)
async def noted(message: str):
    with pathlib.Path(message).open("a") as file:
        file.write("called\\n")
    yield "one "
    await asyncio.sleep(3600)
"""


@pytest.fixture
async def http(hub: Hub) -> AsyncIterator[aiohttp.ClientSession]:
    hub.agent("stubborn.py", STUBBORN)
    hub.agent("noted.py", NOTED)
    await hub.start(grace_seconds=0.5, close_seconds=1.0)
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        yield http
    while HELD:
        HELD.pop().set()  # of a test that failed: the hub waits for its log


HELD: list[asyncio.Event] = []


def is_gone(frame: dict[str, Any]) -> bool:
    return bool(frame["type"] == "error" and frame["code"] == "session_deleted")


def hold(hub: Hub, store: str, name: str) -> asyncio.Event:
    """Let each call of the method *name* of one of the log's stores wait until the event is set."""
    there = getattr(hub.node.log, store)
    gate, method = asyncio.Event(), getattr(there, name)
    HELD.append(gate)

    async def held(*arguments: Any, **named: Any) -> Any:
        await gate.wait()
        return await method(*arguments, **named)

    setattr(there, name, held)
    return gate


async def ask(client: Client, agent: str, message: str, session: str = "s1", **fields: Any) -> dict[str, Any]:
    """Chat, and return `accepted`."""
    await client.send(type="chat", agentId=agent, sessionId=session, message=message, **fields)
    return await client.until_type("accepted")


# --- what is told, and what is left -----------------------------------------------------------------------------------


async def test_a_deletion_ends_the_runs_and_notifies_all_clients(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Queued ones first, each with one end; then `session_deleted`, in every protocol, and nothing more."""
    never = str(hub.folder / "never")
    extended, plain = await hub.connect("?sessionId=s1", extended=True), await hub.connect("?sessionId=s1")
    whole, envelope = await hub.connect("?sessionId=s1&stream=false"), await hub.connect(
        "", protocols=["hubbub.events"]
    )
    await envelope.send(type="subscribe", sessionId="s1")
    runs = [(await ask(extended, "gated", never))["runId"] for _ in range(3)]
    await plain.until_type("stream")
    async with open_stream(http, "sessions/s1/events") as stream:
        await stream.until_kind("stream")
        assert await call(http, "DELETE", "sessions/s1") == (204, None)
        await stream.rest()  # the response ends
    ends = [said.data for said in stream.events if said.kind == "run_finished"]
    assert [end["runId"] for end in ends] == [runs[1], runs[2], runs[0]]
    assert {end["stopReason"] for end in ends} == {"cancelled"}
    assert stream.events[-1].kind == "error" and is_gone({"type": "error", **stream.events[-1].data})
    for client in (extended, plain, whole):
        gone = await client.until(is_gone)
        assert gone["sessionId"] == "s1" and "seq" not in gone
        ended = [frame["runId"] for frame in client.frames if "stopReason" in frame]
        assert ended == [runs[1], runs[2], runs[0]]
    assert (await envelope.until(lambda frame: frame["type"] == "error"))["payload"]["code"] == "session_deleted"
    assert not any(connection.subscriptions for connection in hub.node.registry.connections)
    await nothing_left(hub)
    assert [(await call(http, method, "sessions/s1"))[0] for method in ("GET", "DELETE")] == [404, 404]


async def nothing_left(hub: Hub) -> None:
    assert not hub.node.sessions and not hub.node.deletions and hub.node.pages.size == 0
    db = sqlite3.connect(hub.folder / "data" / "hub.db")
    for table in ("sessions", "events", "loose", "strips", "messages", "runs", "chats"):
        assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
    db.close()


async def test_a_group_receives_the_end_of_a_run_but_not_the_deletion(hub: Hub, http: aiohttp.ClientSession) -> None:
    """It never asked for the session."""
    listener, client = await hub.connect(extended=True), await hub.connect(extended=True)
    await listener.send(type="subscribe", agentId="gated")
    await listener.until_type("subscribed")
    await ask(client, "gated", str(hub.folder / "never"))
    await listener.until_type("stream")
    await call(http, "DELETE", "sessions/s1")
    await listener.until_done()
    await client.until(is_gone)
    await listener.send(type="ping")
    await listener.until_type("pong")
    assert not any(map(is_gone, listener.frames))


@pytest.mark.parametrize("deletes", [1, 2])
async def test_a_new_session_has_nothing_of_a_deleted_one_with_its_id(
    hub: Hub, http: aiohttp.ClientSession, deletes: int
) -> None:
    """Its epoch is new and its numbers begin with 1, for all who knew the old one; no cursor of the old one fits."""
    own, named = await hub.connect(extended=True), await hub.connect("?sessionId=s1")
    await own.send(type="chat", agentId="echo", message="old")
    session = (await own.until_done())["sessionId"]
    for number in range(deletes):
        before = await said(named, "s1", clientMsgId=f"c{number}")
        old = await get(http, f"sessions/{session}")
        late = await hub.connect(f"?sessionId=s1&afterSeq=0&epoch={before['epoch']}")
        await late.until_done()  # what it read is kept among the pages
        await call(http, "PATCH", "sessions/s1", {"title": "old"})
        assert await post(http, "sessions/clear", {"sessionIds": ["s1", session, "s1", "nobody"]}) == (
            200,
            {"deleted": 2},
        )
        await named.until(is_gone)
        own.frames.clear()
        await own.send(type="chat", agentId="echo", message="new")  # in the session of its own
        new = await own.until_done()
        assert new["sessionId"] == session and new["epoch"] != old[1]["epoch"] and new["seq"] == 4
        after = await said(named, "s1", clientMsgId=f"c{number}")  # the id runs again: it is another session
        assert after["epoch"] != before["epoch"] and after["seq"] == 4
        assert (await get(http, "sessions/s1"))[1].get("title") is None
        resumed = await hub.connect(f"?sessionId=s1&afterSeq=2&epoch={before['epoch']}")
        assert (await resumed.next())["code"] == "reset"
        whole = await hub.connect("?sessionId=s1&afterSeq=0")
        await whole.until_done()
        assert whole.text() == "hello " and whole.frames[-1]["epoch"] == after["epoch"]
        _, page = await get(http, "sessions/s1/messages")
        assert [message["content"] for message in page["data"]] == ["hello", "hello "]
        for client in (late, resumed, whole):
            await client.close()


async def said(client: Client, session: str, **fields: Any) -> dict[str, Any]:
    await client.send(type="chat", agentId="echo", sessionId=session, message="hello", **fields)
    return await client.until_done()


async def test_sessions_are_cleared_by_name_by_time_or_all(hub: Hub, http: aiohttp.ClientSession) -> None:
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
    await nothing_left(hub)


async def test_clearing_by_time_spares_a_session_with_a_new_message(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Also where the message is still on its way to the log; what is answered there goes on."""
    client = await hub.connect(extended=True)
    for session in ("s1", "s2", "s3"):
        await said(client, session)
    _, found = await get(http, "sessions")
    before = max(one["ts"] for one in found["data"]) + 1
    gate, sessions, append = asyncio.Event(), hub.node.log.sessions.list, hub.node.log.events.append
    looked, given = asyncio.Event(), list[tuple[Append, AppendCallback]]()

    async def listed(*asked: Any) -> Any:
        listed = await sessions(*asked)
        looked.set()
        await gate.wait()
        return listed

    hub.node.log.sessions.list = listed  # type: ignore[method-assign, assignment]
    clearing = asyncio.create_task(post(http, "sessions/clear", {"before": before}))
    await asyncio.wait_for(looked.wait(), PATIENCE)
    while (await hub.node.log.sessions.read_last_messages(Key("s2"), 1, MiB))[0].ts < before:
        await said(client, "s2")
    hub.node.log.events.append = lambda *one: given.append(one)  # type: ignore[method-assign]
    await client.send(type="chat", agentId="echo", sessionId="s3", message="still here")
    await eventually(lambda: given)
    gate.set()
    await eventually(lambda: "s1" not in hub.node.sessions and "s2" not in hub.node.deletions)
    assert "s3" in hub.node.deletions
    hub.node.log.events.append = append  # type: ignore[method-assign]
    append(*given[0])
    assert await clearing == (200, {"deleted": 1})
    assert (await client.until_done())["sessionId"] == "s3"
    assert [(await get(http, f"sessions/s{n}"))[0] for n in (1, 2, 3)] == [404, 200, 200]


async def test_a_deletion_deletes_a_session_that_a_concurrent_clearing_spares(
    hub: Hub, http: aiohttp.ClientSession
) -> None:
    client = await hub.connect(extended=True)
    await said(client, "s1")
    gate = hold(hub, "sessions", "read_last_messages")
    sparing = asyncio.create_task(delete(hub.node, Key("s1"), before=1))
    await eventually(lambda: hub.node.deletions)
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
    """Both are told when it is done; a run has one end."""
    client = await hub.connect(extended=True)
    await ask(client, "gated", str(hub.folder / "never"))
    both = await asyncio.gather(*(call(http, "DELETE", "sessions/s1") for _ in range(2)))
    assert both == [(204, None), (204, None)]
    await client.until(is_gone)
    assert len([frame for frame in client.frames if frame["type"] == "run_finished"]) == 1
    await client.send(type="ping")
    await client.until_type("pong")
    assert len([frame for frame in client.frames if is_gone(frame)]) == 1


async def test_commands_during_a_deletion_are_refused_and_may_be_retried(hub: Hub, http: aiohttp.ClientSession) -> None:
    """A chat, a subscription, a broadcast, a socket of its own: refused by one code, and then in the new session."""
    gate = hold(hub, "sessions", "delete")
    client = await hub.connect(extended=True)
    accepted = await ask(client, "echo", "hello", clientMsgId="c1")
    await client.until_done()
    deleting = asyncio.create_task(call(http, "DELETE", "sessions/s1"))
    await client.until(is_gone)
    for command in (
        {"type": "chat", "agentId": "echo", "message": "hello"},
        {"type": "chat", "agentId": "echo", "message": "hello", "clientMsgId": "c1"},
        {"type": "subscribe"},
    ):
        await client.send(sessionId="s1", ref=1, **command)
        refused = await client.until(lambda frame: frame.get("ref") == 1)
        assert is_gone(refused) and refused["retryAfterMs"] and refused["sessionId"] == "s1"
    assert (await post(http, "sessions/s1/chat", {"agentId": "echo", "message": "x"}))[0] == 409
    assert (await post(http, "sessions", {"sessionId": "s1"}))[1]["code"] == "session_deleted"
    async with open_stream(http, "sessions/s1/events") as stream:
        assert (await stream.until_kind("error")).data["code"] == "session_deleted"
        await stream.rest()
    socket = await hub.connect("?sessionId=s1")
    assert is_gone(await socket.next()) and await socket.wait_closed() == 1013
    gate.set()
    assert await deleting == (204, None)
    again = await ask(client, "echo", "hello", clientMsgId="c1")
    assert again["status"] == "started" and again["seq"] == 1 and again["runId"] != accepted["runId"]
    assert (await client.until_done())["seq"] == 4


async def test_commands_that_began_before_a_deletion_see_no_partial_session(
    hub: Hub, http: aiohttp.ClientSession
) -> None:
    """A subscription that reads the history, and a chat that looks for its clientMsgId, as the session is deleted."""
    await post(http, "sessions/s1/chat?wait=true", {"agentId": "echo", "message": "hello", "clientMsgId": "c1"})
    history, kept = hold(hub, "sessions", "read_last_messages"), hold(hub, "runs", "find_chat")
    reader, sender = await hub.connect(extended=True), await hub.connect(extended=True)
    await reader.send(type="subscribe", sessionId="s1", history=9, ref=1)
    await eventually(lambda: "s1" in hub.node.sessions and hub.node.sessions[Key("s1")].use_count == 1)
    await sender.send(type="chat", agentId="echo", sessionId="s1", message="more", clientMsgId="c2", ref=2)
    await eventually(lambda: hub.node.sessions[Key("s1")].admission.single_flight.tasks)
    deleting = asyncio.create_task(call(http, "DELETE", "sessions/s1"))
    await eventually(lambda: hub.node.deletions)
    kept.set()  # it is admitted too late
    assert is_gone(await sender.until(lambda frame: frame.get("ref") == 2))
    assert await deleting == (204, None)
    history.set()
    assert is_gone(await reader.until(lambda frame: frame.get("ref") == 1))
    assert "subscribed" not in {frame["type"] for frame in reader.frames}
    await nothing_left(hub)


async def test_a_dismissed_channel_takes_no_new_subscription(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Who held it already, and comes to subscribe only now, is refused and leaves nothing."""
    await hub.connect()
    (connection,) = hub.node.registry.connections
    async with hub.node.use(Key("s1")) as session:
        hub.node.registry.close_channel(session.channel, Error(code="session_deleted", message="gone"))
        with pytest.raises(SessionDeleted):
            hub.node.registry.subscribe(connection, session.channel, None)
    assert not connection.subscriptions and not hub.node.sessions


async def test_a_request_that_waits_for_an_answer_is_told_of_the_deletion(
    hub: Hub, http: aiohttp.ClientSession
) -> None:
    """Not half of it, nor a fault of the hub; also where the session has begun anew."""
    body = {"agentId": "gated", "message": str(hub.folder / "never")}
    waiting = asyncio.create_task(post(http, "sessions/s1/chat?wait=true", body))
    await eventually(lambda: "s1" in hub.node.sessions and hub.node.sessions[Key("s1")].runs)
    reads = hold(hub, "events", "read")
    assert await call(http, "DELETE", "sessions/s1") == (204, None)
    await post(http, "sessions/s1/chat", {"agentId": "echo", "message": "anew"})
    reads.set()
    status, refused = await waiting
    assert (status, refused["code"]) == (409, "session_deleted")


async def test_an_agent_that_ignores_its_cancel_does_not_block_the_deletion(
    hub: Hub, http: aiohttp.ClientSession
) -> None:
    """After the grace its end is written; what it says later reaches neither the old session nor the new one."""
    gate = hub.folder / "gate"
    client = await hub.connect(extended=True)
    first = await ask(client, "stubborn", str(gate))
    await client.until_type("stream")
    assert await call(http, "DELETE", "sessions/s1") == (204, None)
    end = await client.until_done()
    assert (end["runId"], end["stopReason"]) == (first["runId"], "cancelled")
    await client.until(is_gone)
    again = await ask(client, "echo", "anew")
    await client.until_done()
    agent = hub.node.agents.get("stubborn")
    assert agent.running_answers == 1
    gate.touch()
    await eventually(lambda: agent.running_answers == 0)
    await client.send(type="ping")
    await client.until_type("pong")
    assert client.text(first["runId"]) == "one " and client.text(again["runId"]) == "anew "
    assert (await get(http, "sessions/s1"))[1]["seq"] == 4


async def test_catch_up_sends_nothing_of_a_new_session_with_the_same_id(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Its page is on the way as the session is deleted, and made anew under it."""
    for _ in range(3):
        await post(http, "sessions/s1/chat?wait=true", {"agentId": "echo", "message": "old"})
    gate = hold(hub, "events", "read")
    late = await hub.connect("?sessionId=s1&afterSeq=0")
    await eventually(lambda: any(one.catchup.lagging for one in hub.node.registry.connections))
    assert await call(http, "DELETE", "sessions/s1") == (204, None)  # who reads nothing is not waited for
    assert is_gone(await late.next())
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
    """Until it has met the head, or hears the session no more; the wait has no other end here."""
    await hub.start(close_seconds=10 * PATIENCE)
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        await post(http, "sessions/s1/chat?wait=true", {"agentId": "echo", "message": "hello"})
        gate = hold(hub, "events", "read")
        late = await hub.connect("?sessionId=s1&afterSeq=0", extended=True)
        await eventually(lambda: any(one.catchup.lagging for one in hub.node.registry.connections))
        deleting = asyncio.create_task(call(http, "DELETE", "sessions/s1"))
        await eventually(lambda: hub.node.deletions)
        await late.send(type="ping")
        await late.until_type("pong")
        assert not deleting.done()
        if ends == "by reading on":
            gate.set()
            await late.until_done()
            await late.until(is_gone)
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
    """The floor that it found is the old one's: nobody is reset for it."""
    await post(http, "sessions/s1/chat?wait=true", {"agentId": "echo", "message": "old"})
    listener = await hub.connect("?sessionId=s1")  # it is in memory
    gate, expire = asyncio.Event(), hub.node.log.events.expire

    async def held(before: int, most: int) -> dict[Key, int]:
        floors = await expire(before, most)
        await gate.wait()
        return floors

    hub.node.log.events.expire = held  # type: ignore[method-assign, assignment]
    expiring = asyncio.create_task(upkeep.expire_events(hub.node, 2**60))
    async with asyncio.timeout(PATIENCE):
        while (await get(http, "sessions/s1"))[1]["floor"] == 0:
            pass
    await call(http, "DELETE", "sessions/s1")
    await listener.until(is_gone)
    await said(listener, "s1")
    gate.set()
    await expiring
    assert hub.node.sessions[Key("s1")].channel.floor == 0
    again = await hub.connect("?sessionId=s1&afterSeq=0")
    await again.until_done()
    assert again.text() == "hello "


async def test_a_cancelled_caller_does_not_stop_the_deletion(hub: Hub, http: aiohttp.ClientSession) -> None:
    """What was begun is done."""
    await post(http, "sessions", {"sessionId": "s1"})
    gate = hold(hub, "sessions", "delete")
    asking = asyncio.create_task(delete(hub.node, Key("s1")))
    await eventually(lambda: hub.node.deletions)
    asking.cancel()
    await asyncio.wait([asking])
    gate.set()
    await eventually(lambda: not hub.node.deletions)
    assert await hub.node.log.sessions.find(Key("s1")) is None


async def test_a_session_that_cannot_be_deleted_stays(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Where the log refuses it, and takes chats again afterwards."""
    client = await hub.connect(extended=True)
    await ask(client, "echo", "hello")
    await client.until_done()
    db = sqlite3.connect(hub.folder / "data" / "hub.db")
    db.executescript("PRAGMA legacy_alter_table = ON; ALTER TABLE runs RENAME TO elsewhere;")
    async with hub.node.use(Key("s1")):  # it does not leave memory
        status, refused = await call(http, "DELETE", "sessions/s1")
        assert (status, refused["code"]) == (503, "storage_unavailable")
        db.executescript("PRAGMA legacy_alter_table = ON; ALTER TABLE elsewhere RENAME TO runs;")
        db.close()
        assert (await get(http, "sessions/s1"))[1]["seq"] == 4
        again = await ask(client, "echo", "more")
    assert again["seq"] == 5
    assert (await client.until_done())["seq"] == 8
    assert await call(http, "DELETE", "sessions/s1") == (204, None)


async def test_a_session_that_cannot_be_deleted_keeps_its_files(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Those that it has, and one that comes in meanwhile: all of it goes in one commit, or nothing."""
    gate = asyncio.Event()

    async def coming() -> AsyncIterator[bytes]:
        yield b"abc"
        await gate.wait()
        yield b"def"

    async def keep(data: Any) -> Any:
        async with http.post("files?sessionId=s1", data=data, headers={"Content-Type": "text/plain"}) as said:
            return said.status, await said.json()

    async def read(file_id: str) -> bytes:
        async with http.get(f"files/{file_id}") as said:
            return await said.read()

    _, first = await keep(b"first")
    later = asyncio.create_task(keep(coming()))
    await eventually(lambda: any(path.suffix == ".part" for path in (hub.folder / "data" / "files").iterdir()))
    db = sqlite3.connect(hub.folder / "data" / "hub.db")
    db.executescript("PRAGMA legacy_alter_table = ON; ALTER TABLE runs RENAME TO elsewhere;")
    assert (await call(http, "DELETE", "sessions/s1"))[0] == 503
    db.executescript("PRAGMA legacy_alter_table = ON; ALTER TABLE elsewhere RENAME TO runs;")
    db.close()
    gate.set()
    status, second = await later
    assert status == 201 and [await read(one["fileId"]) for one in (first, second)] == [b"first", b"abcdef"]


async def test_no_deletion_begins_while_the_hub_goes_down(hub: Hub, http: aiohttp.ClientSession) -> None:
    """One that has begun ends before the log is closed."""
    for name in ("s1", "s2"):
        await post(http, "sessions", {"sessionId": name})
    gate = hold(hub, "sessions", "delete")
    begun = asyncio.create_task(call(http, "DELETE", "sessions/s1"))
    await eventually(lambda: hub.node.deletions)
    hub.node.drain()
    assert (await call(http, "DELETE", "sessions/s2"))[1]["code"] == "draining"
    assert (await post(http, "sessions/clear", {"all": True}))[1]["code"] == "draining"

    async def closing() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            asyncio.get_running_loop().call_later(0.05, gate.set)  # when all else would be closed

    hub.door.upkeep._tasks.append(asyncio.create_task(closing()))
    await hub.stop()
    begun.cancel()
    await asyncio.gather(begun, return_exceptions=True)
    await hub.start()
    assert (
        await hub.node.log.sessions.find(Key("s1")) is None and await hub.node.log.sessions.find(Key("s2")) is not None
    )


async def test_a_deletion_leaves_nothing_in_memory(hub: Hub, http: aiohttp.ClientSession) -> None:
    """After many deletions beside many chats; every chat is refused, or is answered whole in one session."""
    clients = [await hub.connect(extended=True) for _ in range(4)]

    async def chat(client: Client, count: int) -> None:
        for number in range(count):
            await client.send(type="chat", agentId="echo", sessionId="s1", message="a b c", ref=number)
            answer = await client.until(lambda frame: frame.get("ref") == number)
            if answer["type"] == "accepted":
                run = answer["runId"]
                end = await client.until(lambda frame: frame["type"] == "run_finished" and frame["runId"] == run)
                if end["stopReason"] == "end_turn":
                    assert client.text(run) == "a b c "
            else:
                assert is_gone(answer)

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
    await nothing_left(hub)


# --- kill -9 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
async def test_after_a_kill_around_a_deletion_the_session_is_complete_or_absent(tmp_path: Path, when: str) -> None:
    """What waited in it does not run once it is gone, nor does what a restart would begin again."""
    hub, calls = HubProcess(tmp_path), tmp_path / "calls"
    hub.agent("noted.py", NOTED)
    hub.agent("stubborn.py", STUBBORN)
    await hub.start()
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
            base = f"{hub.url}/api/v1/sessions/s1"
            for agent in ("noted", "noted", "stubborn"):
                message = str(calls if agent == "noted" else tmp_path / "never")
                async with http.post(f"{base}/chat", json={"agentId": agent, "message": message}) as answer:
                    assert answer.status == 202
            await eventually(lambda: _called(calls) == 1 and _count(hub, "agent = 'stubborn' AND type = 'stream'"))
            deleting = asyncio.create_task(_delete(http, base))  # the stubborn one holds it for the grace
            if when == "after":
                assert await deleting == 204
            else:
                await eventually(lambda: _ends(hub) == 2)  # of the one that waited, and of the one that stopped
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


def _count(hub: HubProcess, which: str) -> int:
    """Return how many such events the log has."""
    db = sqlite3.connect(hub.database, timeout=PATIENCE)
    (count,) = db.execute(f"SELECT count(*) FROM events WHERE {which}").fetchone()
    db.close()
    return int(count)

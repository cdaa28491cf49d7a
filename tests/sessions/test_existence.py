"""A session exists as soon as the log has a record of it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from support.hub import Hub
from support.sse import call, get, open_stream, post
from support.waiting import eventually

from hub.errors import SessionDeleted
from hub.ids import Key
from hub.storage.log import AppendCallback
from hub.storage.records import Append

ECHO = "async def echo(message):\n    yield message"


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    hub = Hub(tmp_path)
    hub.agent("echo.py", ECHO)
    await hub.start()
    yield hub
    await hub.stop()


@pytest.fixture
async def http(hub: Hub) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/") as http:
        yield http


async def test_a_subscription_creates_no_session(hub: Hub, http: aiohttp.ClientSession) -> None:
    """By a command, an address, an event stream or a group. It writes nothing to the log, and later uses no memory."""
    before = hub.node.log.commit_totals.commits
    extended, plain = await hub.connect(extended=True), await hub.connect("?sessionId=s1")
    await extended.send(type="subscribe", sessionId="s1", history=5)
    answer = await extended.until_type("subscribed")
    assert "epoch" not in answer and (answer["seq"], answer["history"], answer["active"]) == (0, [], [])
    await extended.send(type="subscribe", agentId="echo")
    async with open_stream(http, "sessions/s1/events"):
        await eventually(lambda: len(hub.node.sessions[Key("s1")].channel.subscriptions) == 3)
    for address in ("sessions/s1", "sessions/s1/messages", "sessions/s1/events"):
        status, refusal = await get(http, address)
        assert (status, refusal["code"]) == (404, "unknown_session")
    assert (await get(http, "sessions"))[1]["data"] == []
    assert (await call(http, "DELETE", "sessions/s1"))[0] == 404
    assert await post(http, "sessions/clear", {"sessionIds": ["s1"]}) == (200, {"deleted": 0})
    await plain.send(type="ping")
    await plain.until_type("pong")
    for client in (extended, plain):
        await client.close()
    await eventually(lambda: not hub.node.sessions)
    assert hub.node.log.commit_totals.commits == before


async def test_a_subscription_before_the_session_exists_receives_its_first_events(hub: Hub) -> None:
    """With the epoch of the new session. Before that, `presence` and `typing` work."""
    listener, other = await hub.connect(extended=True), await hub.connect(extended=True)
    for client in (listener, other):
        await client.send(type="subscribe", sessionId="s1")
        await client.until_type("subscribed")
    await other.send(type="typing", sessionId="s1")
    assert (await listener.until_type("typing"))["sessionId"] == "s1"
    await listener.until(lambda frame: frame["type"] == "presence" and frame["count"] == 2)
    await other.send(type="chat", agentId="echo", sessionId="s1", message="hello")
    first = await listener.until_type("user_message")
    end = await listener.until_type("run_finished")
    assert first["seq"] == 1 and end["epoch"] == first["epoch"] and listener.text() == "hello"
    late = await hub.connect(f"?sessionId=s1&afterSeq=0&epoch={first['epoch']}")
    await late.until_done()
    assert late.text() == "hello"


@pytest.mark.parametrize("by", ["chat", "file", "title", "post", "broadcast"])
async def test_the_first_stored_record_creates_the_session(hub: Hub, http: aiohttp.ClientSession, by: str) -> None:
    """A chat, a file, a title, a POST or a broadcast. Clients that are subscribed already get its epoch."""
    session = "agent:echo" if by == "broadcast" else "s1"
    listener = await hub.connect(f"?sessionId={session}")
    if by == "chat":
        assert (await post(http, "sessions/s1/chat?wait=true", {"agentId": "echo", "message": "x"}))[0] == 200
    elif by == "file":
        async with http.post(
            "files?sessionId=s1&name=a.txt", data=b"x", headers={"Content-Type": "text/plain"}
        ) as response:
            assert response.status == 201
    elif by == "title":
        assert (await call(http, "PATCH", "sessions/s1", {"title": "x"}))[0] == 200
    elif by == "post":
        assert (await post(http, "sessions", {"sessionId": "s1"}))[0] == 201
    else:
        assert (await post(http, "agents/echo/broadcast", {"message": "x"}))[0] == 202
    status, shown = await get(http, f"sessions/{session}")
    assert status == 200 and hub.node.sessions[Key(session)].channel.epoch == shown["epoch"]
    assert [one["sessionId"] for one in (await get(http, "sessions"))[1]["data"]] == [session]
    await listener.send(type="chat", agentId="echo", sessionId=session, message="again")
    assert (await listener.until_done())["epoch"] == shown["epoch"]


async def test_an_event_source_that_reconnects_does_not_create_a_deleted_session(
    hub: Hub, http: aiohttp.ClientSession
) -> None:
    """Its Last-Event-ID is of the old epoch. It gets a reset, and later the events of a new session."""
    await post(http, "sessions/s1/chat?wait=true", {"agentId": "echo", "message": "x"})
    epoch = (await get(http, "sessions/s1"))[1]["epoch"]
    async with open_stream(http, "sessions/s1/events") as stream:
        assert (await call(http, "DELETE", "sessions/s1"))[0] == 204
        await stream.rest()
    async with open_stream(http, "sessions/s1/events", **{"Last-Event-ID": f"{epoch}:4"}) as stream:
        reset = (await stream.until_kind("reset")).data
        assert reset["reason"] == "epoch_changed" and "epoch" not in reset and reset["messages"] == []
        assert (await get(http, "sessions/s1"))[0] == 404
        await post(http, "sessions/s1/chat", {"agentId": "echo", "message": "new"})
        assert (await stream.until_kind("user_message")).data["seq"] == 1
    assert (await get(http, "sessions/s1"))[1]["epoch"] != epoch


async def test_a_command_that_began_before_a_deletion_creates_no_session(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Even if the command got the session before the deletion: it is refused."""
    await post(http, "sessions", {"sessionId": "s1"})
    async with hub.node.loader.use(Key("s1")) as session:
        assert (await call(http, "DELETE", "sessions/s1"))[0] == 204
        with pytest.raises(SessionDeleted):
            await hub.node.loader.create(session)
    assert (await get(http, "sessions"))[1]["data"] == []


async def test_an_upload_that_began_before_a_deletion_creates_no_session(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Even if all bytes arrive before the deletion, and only the end of the body after it."""
    await post(http, "sessions", {"sessionId": "s1"})
    end = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        await end.wait()

    async def upload() -> int:
        headers = {"Content-Type": "text/plain"}
        async with http.post("files?sessionId=s1&name=a.txt", data=body(), headers=headers) as answer:
            return answer.status

    uploading = asyncio.create_task(upload())
    await eventually(lambda: [one for one in hub.node.files._uploads if one.size == 1000])
    assert (await call(http, "DELETE", "sessions/s1"))[0] == 204
    end.set()
    assert await uploading == 404
    assert (await get(http, "sessions"))[1]["data"] == []


@pytest.mark.parametrize("kind", ["chat", "edit", "regenerate"])
async def test_a_command_that_is_logged_during_a_deletion_gets_one_response(hub: Hub, kind: str) -> None:
    """If the deletion ends between the commit and the response, the command is only refused, and not also accepted."""
    client, other = await hub.connect(extended=True), await hub.connect(extended=True)
    await client.send(type="chat", agentId="echo", sessionId="s1", message="x")
    message = await client.until_type("user_message")
    await client.until_type("run_finished")
    store, original = hub.node.log.events, hub.node.log.events.append
    async with hub.node.loader.use(Key("s1")) as session:

        def append_and_delete(append: Append, done: AppendCallback) -> None:
            def finish(result: int | Exception) -> None:
                done(result)
                session.channel.is_deleted = True  # as after the end of a deletion

            original(append, finish)

        store.append = append_and_delete  # type: ignore[method-assign]
        target = {"agentId": "echo"} if kind == "chat" else {"messageId": message["messageId"]}
        await other.send(type=kind, sessionId="s1", message="y", ref=7, **target)
        answer = await other.until(lambda frame: frame.get("ref") == 7)
        assert answer["code"] == "session_deleted"
        await other.send(type="ping", ref=8)
        await other.until(lambda frame: frame.get("ref") == 8)  # the client fails if it gets a second response
        store.append = original  # type: ignore[method-assign]
        session.channel.is_deleted = False

"""Retention of messages and files in a running hub: what goes, what stays, and who notices."""

from io import BytesIO
from typing import Any

import aiohttp
import attrs
import pytest
from structlog.testing import capture_logs
from support.hub import Client, Hub

from hub.days import DAY_MS
from hub.errors import StorageUnavailable
from hub.ids import Key
from hub.node.expiring import expire_old_data
from hub.seams import Seams

MORNING = 20_000 * DAY_MS


@attrs.define
class Clock:
    """The wall time of a hub."""

    time: int = MORNING

    def now(self) -> int:
        return self.time


async def start(hub: Hub, **options: Any) -> Clock:
    """Start a hub with settings of retention, at a time that the test sets."""
    clock = Clock()
    hub.seams, hub.options = Seams(now=clock.now), options
    await hub.start()
    return clock


async def chat(client: Client, session: str, message: str) -> None:
    await client.send(type="chat", agentId="echo", sessionId=session, message=message)
    await client.until_done()


async def chat_alone(hub: Hub, session: str, message: str) -> None:
    """Chat with a client that leaves afterwards."""
    client = await hub.connect(extended=True)
    await chat(client, session, message)
    hub.clients.remove(client)
    await client.close()


async def upload(hub: Hub, session: str, data: bytes) -> str:
    url = f"{hub.url}/api/v1/files?sessionId={session}&name=a.txt"
    async with aiohttp.ClientSession() as http:
        async with http.post(url, data=BytesIO(data), headers={"Content-Type": "text/plain"}) as answer:
            return str((await answer.json())["fileId"])


async def get(hub: Hub, path: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as http, http.get(f"{hub.url}/api/v1/{path}") as answer:
        return answer.status, await answer.json() if "json" in answer.content_type else await answer.text()


async def list_texts(hub: Hub, session: str) -> list[str]:
    _, page = await get(hub, f"sessions/{session}/messages")
    return [message["content"] for message in page["data"]]


async def list_sessions(hub: Hub) -> dict[str, int]:
    """Return the number of messages of each session, as the list shows them."""
    _, page = await get(hub, "sessions")
    return {row["sessionId"]: row["messages"] for row in page["data"]}


async def test_everything_stays_by_default(hub: Hub) -> None:
    """Messages and files; only events have an end."""
    clock = await start(hub)
    await chat_alone(hub, "s", "hello")
    file_id = await upload(hub, "t", b"x")
    clock.time += 10_000 * DAY_MS
    await expire_old_data(hub.node)
    assert await list_texts(hub, "s") == ["hello", "hello "] and (await get(hub, f"files/{file_id}"))[0] == 200
    assert await list_sessions(hub) == {"s": 2, "t": 0}


async def test_old_messages_go_and_subscribers_notice_nothing(hub: Hub) -> None:
    """A client that is connected gets no frame, and goes on. The list and the history are right."""
    clock = await start(hub, message_days=30)
    client = await hub.connect(extended=True)
    await chat(client, "s", "old")
    clock.time += 20 * DAY_MS
    await chat(client, "s", "new")
    clock.time += 20 * DAY_MS
    await client.send(type="ping", ref="p1")
    await client.until_type("pong")  # after the last `state`
    frames = len(client.frames)
    await expire_old_data(hub.node)
    assert await list_texts(hub, "s") == ["new", "new "] and await list_sessions(hub) == {"s": 2}
    clock.time += 20 * DAY_MS
    await expire_old_data(hub.node)
    assert await list_texts(hub, "s") == [] and await list_sessions(hub) == {"s": 0}
    await client.send(type="ping", ref="p2")
    await client.until_type("pong")
    assert len(client.frames) == frames + 1
    await chat(client, "s", "again")
    assert await list_texts(hub, "s") == ["again", "again "]
    assert client.text() == "old new again "


async def test_the_events_of_a_message_do_not_stay_longer(hub: Hub) -> None:
    """They contain its text. A client that comes back gets a reset."""
    clock = await start(hub, message_days=1, retention_days=7)
    client = await hub.connect(extended=True)
    await chat(client, "s", "hello")
    clock.time += 2 * DAY_MS
    await expire_old_data(hub.node)
    late = await hub.connect(extended=True)
    await late.send(type="subscribe", sessionId="s", afterSeq=0)
    reset = await late.until_type("reset")
    assert reset["messages"] == [] and reset["reason"] == "too_old"


async def test_an_empty_session_goes_when_nobody_uses_it(hub: Hub) -> None:
    """One that somebody watches stays, and one with a file or with a younger event. A new one begins from nothing."""
    clock = await start(hub, message_days=30)
    for session in ("gone", "seen", "full"):
        await chat_alone(hub, session, "hello")
    await upload(hub, "full", b"x")
    watcher = await hub.connect(extended=True)
    await watcher.send(type="subscribe", sessionId="seen")
    await watcher.until_type("subscribed")
    clock.time += 29 * DAY_MS
    async with aiohttp.ClientSession() as http:
        await (await http.post(f"{hub.url}/api/v1/sessions", json={"sessionId": "young"})).read()
    clock.time += 2 * DAY_MS
    await expire_old_data(hub.node)
    assert await list_sessions(hub) == {"seen": 0, "full": 0, "young": 0}
    assert (await get(hub, "sessions/gone"))[0] == 404 and not hub.node.loader.deletions
    await chat_alone(hub, "gone", "hello again")
    assert await list_texts(hub, "gone") == ["hello again", "hello again "]


async def test_an_empty_session_that_somebody_begins_to_use_stays(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client subscribes, chats or uploads after the search for empty sessions."""
    clock = await start(hub, message_days=30)
    for session in ("s", "t", "u"):
        await chat_alone(hub, session, "hello")
    clock.time += 31 * DAY_MS
    find, client = hub.node.log.sessions.list_idle_sessions, await hub.connect(extended=True)

    async def find_late(before: int) -> Any:
        heads = await find(before)
        await client.send(type="subscribe", sessionId="s")
        await client.until_type("subscribed")
        await chat_alone(hub, "t", "new")
        await upload(hub, "u", b"x")
        return heads

    monkeypatch.setattr(hub.node.log.sessions, "list_idle_sessions", find_late)
    await expire_old_data(hub.node)
    assert await list_sessions(hub) == {"s": 0, "t": 2, "u": 0}


async def test_the_oldest_messages_go_by_size(hub: Hub) -> None:
    """Of all sessions together. Sessions that are empty then go, too, with those that are as old."""
    clock = await start(hub, message_mb=1)
    text = "x" * 300_000
    for session in ("a", "b", "c"):
        await chat_alone(hub, session, text)
        clock.time += DAY_MS
    await expire_old_data(hub.node)
    assert await list_sessions(hub) == {"b": 2, "c": 2}  # the question of b stays with its answer
    assert await list_texts(hub, "b") == [text, f"{text} "]


async def test_a_run_keeps_its_messages_and_files(hub: Hub) -> None:
    """It may take longer than the messages stay."""
    clock = await start(hub, message_days=1, file_days=1)
    client = await hub.connect(extended=True)
    gate = hub.folder / "gate"
    file_id = await upload(hub, "s", b"x")
    await client.send(type="chat", agentId="gated", sessionId="s", message=str(gate))
    await client.until_type("stream")
    clock.time += 5 * DAY_MS
    await expire_old_data(hub.node)
    assert await list_texts(hub, "s") == [str(gate)] and (await get(hub, f"files/{file_id}"))[0] == 200
    gate.touch()
    await client.until_done()
    await expire_old_data(hub.node)
    assert await list_texts(hub, "s") == [str(gate), "one two"]  # the answer is young, and needs its question
    assert (await get(hub, f"files/{file_id}"))[0] == 404


async def test_old_files_go_unless_a_message_names_them(hub: Hub) -> None:
    """With their bytes, which no longer count. A blob that another file has stays."""
    clock = await start(hub, file_days=30)
    named, free, twin = [await upload(hub, "s", data) for data in (b"named", b"free", b"twin")]
    await chat_alone(hub, "s", f"see {named}")
    clock.time += 31 * DAY_MS
    young = await upload(hub, "t", b"twin")
    await expire_old_data(hub.node)
    assert [(await get(hub, f"files/{file_id}"))[0] for file_id in (named, free, twin, young)] == [200, 404, 404, 200]
    blobs = [path for path in (hub.folder / "data" / "files").iterdir() if len(path.name) == 64]
    assert sorted(path.read_bytes() for path in blobs) == [b"named", b"twin"]
    assert hub.node.files.quota.count_of(Key("s")) == 4096
    assert await list_sessions(hub) == {"s": 2, "t": 0}


async def test_a_pass_that_deletes_something_writes_one_line(hub: Hub) -> None:
    """With what it deleted. A pass that deletes nothing writes none."""
    clock = await start(hub, message_days=30, file_days=30)
    for session in ("s", "t"):
        await chat_alone(hub, session, "hello")
    await upload(hub, "t", b"x")
    with capture_logs() as lines:
        await expire_old_data(hub.node)
        assert lines == []
        clock.time += 31 * DAY_MS
        await expire_old_data(hub.node)
        await expire_old_data(hub.node)
    (line,) = lines
    assert line == {
        "event": "retention has deleted old data",
        "log_level": "info",
        "sessions_with_events": 2,
        "sessions_with_messages": 2,
        "files": 1,
        "sessions": 2,
    }


async def test_a_pass_that_fails_tells_what_it_deleted_before(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = await start(hub, message_days=30)
    await chat_alone(hub, "s", "hello")
    clock.time += 31 * DAY_MS

    async def fail(before: int, max_bytes: int | None) -> Any:
        raise StorageUnavailable("the disk is full")

    monkeypatch.setattr(hub.node.log.sessions, "expire_messages", fail)
    with capture_logs() as lines, pytest.raises(StorageUnavailable):
        await expire_old_data(hub.node)
    assert [line["sessions_with_events"] for line in lines] == [1]

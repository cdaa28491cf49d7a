"""What only the Python client does with messages, files and session objects: see also test_client_content.py."""

import asyncio
from pathlib import Path

import pytest
from support.hub import Hub
from support.proxy import Proxy
from support.scripted import Peer, scripted
from support.waiting import PATIENCE

from hub.client import Closed, Failure, Refusal, connect
from hub.client.chats import MAX_OPEN_CHATS
from hub.client.link import MAX_UNSENT_BYTES
from hub.client.reader import QUEUE_TEXT
from hub.limits import KiB
from hub.messages import Event, Reset, UserMessage
from hub.messages.parts import TextPart

READER = """
from hub import Run

async def reader(run: Run):
    yield " ".join([run.message, *(part.get("text") or part["metadata"]["name"] for part in run.parts)])
"""


def address(port: int) -> str:
    return f"ws://127.0.0.1:{port}/api/v1/ws"


@pytest.fixture
async def reader(hub: Hub) -> Hub:
    hub.agent("reader.py", READER)
    await hub.start()
    return hub


async def test_a_chat_has_files_of_all_kinds(reader: Hub, tmp_path: Path) -> None:
    """Bytes, a path, and a file that is stored already. Parts may be objects of hub.messages.parts."""
    (tmp_path / "notes.md").write_text("notes")
    async with connect(address(reader.port)) as client:
        session = await client.session("s1", agent="reader")
        stored = await session.upload(tmp_path / "notes.md", name="kept.md")
        assert (stored.type, stored.size, stored.sessionId) == ("text/markdown", 5, "s1")
        files = [b"bytes", tmp_path / "notes.md", stored]
        assert await session.ask("x", parts=[TextPart(text="a part")], files=files) == "x a part file notes.md kept.md"
        assert [file.name for file in await session.list_files()] == ["kept.md", "file", "notes.md"]


async def test_a_path_that_cannot_be_read_is_an_error(reader: Hub, tmp_path: Path) -> None:
    """At once if it does not exist; as the error of the answer if it is gone when its turn comes."""
    (tmp_path / "gone").write_text("x")
    async with connect(address(reader.port)) as client:
        session = await client.session("s1", agent="reader")
        with pytest.raises(FileNotFoundError):
            session.chat("x", files=[tmp_path / "nothing"])
        answer = session.chat("x", files=[tmp_path / "gone"])
        (tmp_path / "gone").unlink()
        with pytest.raises(Failure, match="cannot be read") as failure:
            await answer.text()
        assert failure.value.code == "unreadable_file"
        with pytest.raises(FileNotFoundError):
            await session.upload(tmp_path / "gone")
        assert await session.ask("hello") == "hello"


async def test_leave_stops_the_upload_of_a_messages_files(reader: Hub) -> None:
    """A message of another object, which waited for the upload, is sent then."""
    async with connect(address(reader.port)) as client:
        session, other = [await client.session("s1", agent="reader") for _ in range(2)]
        answer, later = session.chat("x", files=[b"bytes"]), other.chat("later")
        session.leave()
        with pytest.raises(Closed):
            await answer.text()
        assert await later.text() == "later"
        assert await other.list_files() == ()


async def test_a_message_that_json_does_not_have_is_not_sent(reader: Hub) -> None:
    """The call raises the error; the client goes on, also over a reconnect."""
    async with connect(address(reader.port)) as client:
        session = await client.session("s1", agent="reader")
        with pytest.raises(ValueError):
            session.chat("x", metadata={"number": float("nan")})
        with pytest.raises(TypeError):
            session.chat("x", metadata={"set": {1, 2}})
        with pytest.raises(TypeError):
            session.chat("half a character: \ud83d")
        assert await session.ask("hello") == "hello"


async def test_a_session_has_a_limited_number_of_open_chats(reader: Hub) -> None:
    """Without a connection, a further chat fails at once. The others are answered after the reconnect."""
    proxy = await Proxy(lambda: ("127.0.0.1", reader.port)).start()
    try:
        async with connect(address(proxy.port)) as client, asyncio.timeout(3 * PATIENCE):
            session = await client.session("s1", agent="reader")
            other = await client.session("s2", agent="reader")
            target, proxy.target = proxy.target, lambda: ("127.0.0.1", 1)
            for link in list(proxy.links):
                link.reset()
            async for state in client.states():
                if state == "waiting":
                    break
            answers = [session.chat(str(number)) for number in range(MAX_OPEN_CHATS)]
            with pytest.raises(Refusal, match="not accepted yet") as refusal:
                await session.ask("one too many")
            assert (refusal.value.code, refusal.value.retryable) == ("busy", True)
            answers.append(other.chat("100"))
            proxy.target = target
            assert await answers[0].text() == "0" and await answers[-1].text() == "100"
    finally:
        await proxy.stop()


async def test_a_connection_that_takes_no_frames_refuses_further_commands() -> None:
    """The peer reads nothing: the frames wait in the client, up to a limit."""

    async def script(peer: Peer) -> None:
        await peer.accept_subscribe()
        peer.ws._reader.protocol.pause_reading()  # type: ignore[union-attr]
        await asyncio.Event().wait()

    async with scripted(script) as url, connect(url) as client, asyncio.timeout(PATIENCE):
        session = await client.session("s1")
        text = "x" * 512 * KiB
        answers = [session.chat(text) for _ in range(MAX_UNSENT_BYTES // len(text) + 1)]
        with pytest.raises(Refusal) as refusal:
            await answers[-1].text()
        assert (refusal.value.code, refusal.value.retryable) == ("busy", True)
        with pytest.raises(Refusal, match="not sent yet"):
            await session.cancel()


async def test_a_reset_replaces_the_unread_events() -> None:
    """So a reader that reads nothing holds one reset at most, however often its session is reset."""

    async def script(peer: Peer) -> None:
        await peer.accept_subscribe(1)
        for epoch in ("e", "f", "g"):
            message = {"messageId": "m", "role": "user", "content": "x" * 1000}
            await peer.say("reset", sessionId="s1", reason="epoch_changed", epoch=epoch, messages=[message])
            fields = {"author": {"id": "a", "name": "A"}, "sessionId": "s1", "epoch": epoch, "ts": 0}
            await peer.say("user_message", messageId="m", content="hello", seq=2, **fields)

    async with scripted(script) as url, connect(url) as client, asyncio.timeout(PATIENCE):
        slow, fast = client.subscribe(session="s1"), client.subscribe(session="s1")
        while (item := await anext(fast)).epoch != "g" or isinstance(item, Reset):
            pass
        assert isinstance(item.body, UserMessage)
        assert [(type(item), item.epoch) for item in slow.inbox.queue] == [(Reset, "g"), (Event, "g")]


async def test_large_values_count_for_the_limit_of_a_queue() -> None:
    """A `custom` event has no text, but its value takes memory."""

    async def script(peer: Peer) -> None:
        await peer.accept_subscribe()
        for seq in range(1, 41):
            await peer.event("custom", seq, name="big", value=["x" * 32 * KiB])

    async with scripted(script) as url, connect(url) as client, asyncio.timeout(PATIENCE):
        slow, fast = client.subscribe(session="s1"), client.subscribe(session="s1")
        for _ in range(40):
            await anext(fast)
        assert slow.is_behind and slow.inbox.text_length < QUEUE_TEXT + 40 * KiB


async def test_an_answer_of_a_left_session_raises_closed(reader: Hub) -> None:
    """Also one whose message is not sent yet. The session object can be used again."""
    async with connect(address(reader.port)) as client, asyncio.timeout(PATIENCE):
        session = await client.session("s1", agent="reader")
        answer = session.chat("x")
        session.leave()
        with pytest.raises(Closed, match="left session s1"):
            await answer.text()
        assert await session.ask("hello") == "hello"
        (connection,) = reader.node.registry.connections
        assert list(connection.subscriptions) == ["s1"]


async def test_the_client_unsubscribes_after_the_last_reader(reader: Hub) -> None:
    """A reader that the program has dropped needs no subscription; a session object does."""
    async with connect(address(reader.port)) as client, asyncio.timeout(PATIENCE):
        session = await client.session("s1", agent="reader")
        events = client.subscribe(session="s1")
        session.leave()
        (connection,) = reader.node.registry.connections
        await client.session("s2")
        assert set(connection.subscriptions) == {"s1", "s2"}  # for the reader
        del events
        other = await client.session("s1", agent="reader")
        other.leave()
        await client.session("s3")
        assert set(connection.subscriptions) == {"s2", "s3"}


async def test_the_end_of_a_session_object_leaves_the_subscription_of_another(reader: Hub) -> None:
    """Also if no program reads its events."""
    async with connect(address(reader.port)) as client, asyncio.timeout(PATIENCE):
        session, other = await client.session("s1", agent="reader"), await client.session("s1", agent="main")
        other.leave()
        await client.session("s2")
        (connection,) = reader.node.registry.connections
        assert set(connection.subscriptions) == {"s1", "s2"}
        session.leave()
        await client.session("s3")
        assert set(connection.subscriptions) == {"s2", "s3"}

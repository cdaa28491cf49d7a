"""The guarantees that only the Python client gives. test_clients.py tests those that both clients share."""

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.hub import Hub
from support.proxy import Proxy
from support.scripted import Peer, scripted
from support.waiting import PATIENCE, eventually

from hub.client import (
    Client,
    Closed,
    ConnectionCut,
    Forgotten,
    Refusal,
    RunFailed,
    Session,
    TooSlow,
    Unknown,
    Unreachable,
    connect,
)
from hub.client.link import FIRST_DELAY, LONGEST_DELAY, retry_delay
from hub.client.reader import QUEUE_EVENTS, QUEUE_TEXT
from hub.messages import Chunk, Event, Reset, RunFinished, UserMessage
from hub.messages.codes import is_final

LARGE = 3 * QUEUE_TEXT
FLOOD = f"""
async def flood(message: str):
    for number in range({LARGE} // 8192):
        yield f"{{number:08d}}" * 1024
"""
FLOODED = "".join(f"{number:08d}" * 1024 for number in range(LARGE // 8192))
PICKY = """
from hub import AgentError

async def picky(message: str):
    yield "well, "
    raise AgentError("not that", "too_long", retryable=True, retry_after_ms=5)
"""


def address(port: int) -> str:
    return f"ws://127.0.0.1:{port}/api/v1/ws"


def text(events: list[Any]) -> str:
    return "".join(event.body.content for event in events if isinstance(event.body, Chunk))


async def read(reader: Any, ends: int = 1) -> list[Event]:
    """Return the next events, up to and including *ends* run ends."""
    events: list[Event] = []
    async with asyncio.timeout(PATIENCE):
        while ends:
            event = await anext(reader)
            events.append(event)
            ends -= isinstance(event.body, RunFinished)
    return events


async def cut(hub: Client, proxy: Proxy, meanwhile: Any = None) -> None:
    """Reset the connection, and wait until the client is live again; *meanwhile* runs while it cannot connect."""
    target, proxy.target = proxy.target, lambda: ("127.0.0.1", 1)
    for link in list(proxy.links):
        link.reset()
    async with asyncio.timeout(PATIENCE):
        async for state in hub.states():
            if state == "waiting":
                break
        if meanwhile is not None:
            await meanwhile
        proxy.target = target
        async for state in hub.states():
            if state == "live":
                break


@pytest.fixture
async def proxy(hub: Hub) -> Any:
    running = await Proxy(lambda: ("127.0.0.1", hub.port)).start()
    yield running
    await running.stop()


# --- reading --------------------------------------------------------------------------------------------------------


async def test_a_slow_reader_has_a_bounded_queue_and_catches_up_from_the_log(hub: Hub) -> None:
    """An answer of three times the queue limit comes before the first read. The reader gets each event once."""
    hub.agent("flood.py", FLOOD)
    await hub.start()
    async with connect(address(hub.port)) as client:
        session = await client.session("s1", agent="flood")
        slow = session.events()
        assert await session.ask("go") == FLOODED
        assert slow.is_behind and slow.inbox.text_length < QUEUE_TEXT + 2**18
        events = await read(slow)
        assert text(events) == FLOODED
        assert [event.seq for event in events] == sorted({event.seq for event in events})
        assert not slow.is_behind
        assert len(await session.ask("again")) == len(FLOODED)  # the reader is live again
        assert text(await read(slow)) == FLOODED


async def test_a_queue_holds_a_bounded_number_of_events() -> None:
    """A limit on text alone would not limit small events."""
    count = QUEUE_EVENTS + 5

    async def script(peer: Peer) -> None:
        await peer.accept_subscribe()
        for seq in range(1, count + 1):
            await peer.event("progress", seq, progress=0.5)

    async with scripted(script) as url, connect(url) as client:
        slow, fast = client.subscribe(session="s1"), client.subscribe(session="s1")
        async with asyncio.timeout(PATIENCE):
            for _ in range(count):
                await anext(fast)
        assert slow.is_behind and len(slow.inbox.queue) == QUEUE_EVENTS


async def test_a_later_reader_starts_at_its_own_cursor(hub: Hub) -> None:
    """The client is subscribed to the session already. The reader gets the log from its cursor, then live events."""
    await hub.start()
    async with connect(address(hub.port)) as client:
        session = await client.session("s1", agent="echo")
        await session.ask("one")
        late = client.subscribe(session="s1", after_seq=0)
        first = await read(late)
        assert [event.seq for event in first] == [1, 2, 3, 4]
        await session.ask("two")
        assert text(await read(late)) == "two "


async def test_a_reader_with_a_cursor_of_another_epoch_gets_a_reset(hub: Hub) -> None:
    """`Reset` has the messages of the session, and live events follow."""
    await hub.start()
    async with connect(address(hub.port)) as client:
        session = await client.session("s1", agent="echo")
        await session.ask("one")
        late = client.subscribe(session="s1", after_seq=2, epoch="other")
        reset = await anext(late)
        assert isinstance(reset, Reset) and reset.reason == "epoch_changed"
        assert [message["content"] for message in reset.messages] == ["one", "one "]
        await session.ask("two")
        assert text(await read(late)) == "two "


async def test_an_agent_subscription_gets_a_complete_answer_over_a_reconnect(
    hub: Hub, proxy: Proxy, tmp_path: Path
) -> None:
    """The client has not joined the session of the answer. After the end it gets no more events of that session."""
    await hub.start()
    gate = tmp_path / "gate"
    other = await hub.connect(extended=True)
    async with connect(address(proxy.port)) as client:
        group = client.subscribe(agent="gated")
        await client.session("x")  # answered after the group's subscribe
        await other.send(type="chat", agentId="gated", sessionId="s2", message=str(gate))
        first = [await anext(group), await anext(group)]
        await cut(client, proxy)
        gate.touch()
        events = first + await read(group)
        assert text(events) == "one two"
        await other.send(type="chat", agentId="echo", sessionId="s2", message="not for the group")
        await other.until(lambda frame: frame.get("agentId") == "echo" and frame["type"] == "run_finished")
        await other.send(type="chat", agentId="gated", sessionId="s2", message=str(gate))
        assert text(await read(group)) == "one two"


async def test_an_agent_subscription_gets_an_answer_that_begins_during_an_unsubscribe() -> None:
    """The hub receives `unsubscribe` after the start of the answer, so the client subscribes to the session again."""
    subscribes: list[dict[str, Any]] = []

    async def first(peer: Peer) -> None:
        await peer.accept_subscribe()
        await peer.event("run_started", 1, messageId="m1", attempt=1)
        await peer.ws.close(code=1012)

    async def second(peer: Peer) -> None:
        await peer.accept_subscribe()
        subscribes.append(await peer.accept_subscribe(1))
        await peer.event("run_finished", 2, messageId="m1", stopReason="end_turn")
        leave = await peer.next("unsubscribe")
        about = {"sessionId": "s1", "agentId": "echo", "runId": "r2", "epoch": "e", "ts": 0}
        await peer.say("run_started", seq=3, messageId="m2", attempt=1, **about)
        await peer.say("ok", ref=leave["ref"])
        subscribes.append(await peer.accept_subscribe(3))
        await peer.say("run_finished", seq=4, messageId="m2", stopReason="end_turn", **about)

    async with scripted(first, second) as url, connect(url) as client:
        events = await read(client.subscribe(agent="echo"), 2)
        assert [event.seq for event in events] == [1, 2, 3, 4]
        assert [command["afterSeq"] for command in subscribes] == [1, 3]


async def test_an_unread_agent_subscription_raises_at_its_limit(hub: Hub) -> None:
    """It cannot catch up from a log, so it raises TooSlow when its queue is full."""
    hub.agent("flood.py", FLOOD)
    await hub.start()
    async with connect(address(hub.port)) as client:
        group = client.subscribe(agent="flood")
        session = await client.session("s1", agent="flood")
        await session.ask("go")
        with pytest.raises(TooSlow):
            await read(group)


async def test_the_client_requests_missing_events_again() -> None:
    """The seqs have a gap: the client subscribes again from before it, and no reader gets events after it first."""
    subscribes: list[dict[str, Any]] = []

    async def script(peer: Peer) -> None:
        subscribes.append(await peer.accept_subscribe())
        await peer.event("run_started", 1, messageId="m1", attempt=1)
        await peer.event("stream", 3, messageId="m1", content="b", offset=1)
        await peer.event("stream", 4, messageId="m1", content="never read", offset=2)
        subscribes.append(await peer.accept_subscribe(4))
        await peer.event("stream", 2, messageId="m1", content="a", offset=0)
        await peer.event("stream", 4, messageId="m1", content="bc", offset=1)  # two chunks in one event
        await peer.event("stream", 4, messageId="m1", content="bc", offset=1)
        await peer.event("run_finished", 5, messageId="m1", stopReason="end_turn")

    async with scripted(script) as url, connect(url) as client:
        events = await read(client.subscribe(session="s1"))
        assert text(events) == "abc" and [event.seq for event in events] == [1, 2, 4, 5]
        assert subscribes[1]["afterSeq"] == 1 and subscribes[1]["epoch"] == "e"


async def test_a_refusal_of_a_proxy_ends_the_reading_of_the_log() -> None:
    """Its body is no JSON. The server of the script has no route of the log, and answers like such a proxy."""

    async def script(peer: Peer) -> None:
        await peer.accept_subscribe(5)

    async with scripted(script) as url, connect(url) as client, asyncio.timeout(PATIENCE):
        await client.session("s1")
        with pytest.raises(Refusal, match="HTTP 404.*: check the proxy") as refusal:
            await anext(client.subscribe(session="s1", after_seq=0))
        assert refusal.value.code == "http_404"


@pytest.mark.parametrize(
    "frames",
    [
        [{"type": ["stream"]}],
        [{"type": {}, "sessionId": "s1", "epoch": "e", "seq": 1, "ts": 0}],
        [{"type": "message", "ts": 0, "content": "text"}, {"type": "message", "ts": 0, "content": 5}],
        [{"type": "message", "ts": 0, "parts": [{"more": True}]}, {"type": "message", "ts": 0, "parts": [5]}],
        [{"type": "stream", "sessionId": "s1", "epoch": "e", "seq": "1", "ts": 0}],
        [{"type": "stream", "sessionId": ["s1"], "epoch": "e", "seq": 1, "ts": 0}],
        [{"type": "run_started", "sessionId": "s1", "runId": [], "epoch": "e", "seq": 1, "ts": 0, "messageId": "m"}],
    ],
)
async def test_the_client_reconnects_after_an_invalid_frame(frames: list[dict[str, Any]]) -> None:
    """An invalid type, an invalid field of an event, or two frames that do not join do not end the client."""

    async def fail(peer: Peer) -> None:
        await peer.accept_subscribe()
        for frame in frames:
            await peer.ws.send_json(frame)

    async def succeed(peer: Peer) -> None:
        await peer.accept_subscribe()
        await peer.event("progress", 1, progress=0.5)

    async with scripted(fail, succeed) as url, connect(url) as client, asyncio.timeout(PATIENCE):
        event = await anext(client.subscribe(session="s1"))
        assert isinstance(event, Event) and event.seq == 1


async def test_a_stream_event_with_an_invalid_field_is_passed_on_unchanged() -> None:
    """Like an event of an unknown type: the client cannot join its text."""

    async def script(peer: Peer) -> None:
        await peer.accept_subscribe()
        await peer.event("stream", 1, messageId="m", content=5, offset=0)

    async with scripted(script) as url, connect(url) as client, asyncio.timeout(PATIENCE):
        event = await anext(client.subscribe(session="s1"))
        assert isinstance(event, Event) and isinstance(event.body, Unknown)
        assert (event.body.name, event.body.fields["content"]) == ("stream", 5)


async def test_an_event_of_an_unknown_type_is_passed_on_unchanged() -> None:
    """A newer hub may send one. It has a seq like other events, and its fields are readable."""

    async def script(peer: Peer) -> None:
        await peer.accept_subscribe()
        await peer.event("hologram", 1, depth=3)
        await peer.event("run_finished", 2, messageId="m1", stopReason="tired")

    async with scripted(script) as url, connect(url) as client:
        reader = client.subscribe(session="s1")
        event = await anext(reader)
        assert isinstance(event, Event) and isinstance(event.body, Unknown)
        assert event.body.name == "hologram" and event.body.fields["depth"] == 3


# --- chats ----------------------------------------------------------------------------------------------------------


async def test_a_chat_is_sent_even_if_its_answer_is_never_awaited(hub: Hub) -> None:
    """A call of `session.chat` is enough."""
    await hub.start()
    async with connect(address(hub.port)) as client:
        session = await client.session("s1", agent="echo")
        events = session.events()
        session.chat("never awaited")
        assert text(await read(events)) == "never awaited "


async def test_chats_without_a_connection_are_sent_later_in_order(hub: Hub, proxy: Proxy) -> None:
    """The client keeps them until it is connected again."""
    await hub.start()
    async with connect(address(proxy.port)) as client:
        session = await client.session("s1", agent="echo")
        events = session.events()

        async def talk() -> None:
            session.chat("first")
            session.chat("second")

        await cut(client, proxy, talk())
        contents = [event.body.content for event in await read(events, 2) if isinstance(event.body, UserMessage)]
        assert contents == ["first", "second"]


async def test_a_chat_that_a_draining_hub_refuses_is_sent_on_the_next_connection() -> None:
    """The error `draining` is not final: the chat waits for the next connection."""

    async def first(peer: Peer) -> None:
        await peer.accept_subscribe()
        chat = await peer.next("chat")
        await peer.say("error", code="draining", message="going down", ref=chat["ref"], retryAfterMs=1)
        await peer.ws.close(code=1012)

    async def second(peer: Peer) -> None:
        await peer.accept_subscribe()
        chat = await peer.next("chat")
        await peer.say("error", code="busy", message="not now", ref=chat["ref"], retryAfterMs=7)

    async with scripted(first, second) as url, connect(url) as client:
        session = await client.session("s1")
        with pytest.raises(Refusal, match="not now") as refused:
            await session.ask("hi")
        assert refused.value.retryable and refused.value.retry_after_ms == 7


async def test_a_failed_answer_raises_an_error_with_the_partial_text(hub: Hub) -> None:
    """It has the code and the message of the agent, and whether a retry makes sense."""
    hub.agent("picky.py", PICKY)
    await hub.start()
    async with connect(address(hub.port)) as client:
        session = await client.session("s1", agent="picky")
        with pytest.raises(RunFailed, match="not that") as failed:
            await session.ask("hi")
        assert (failed.value.code, failed.value.text, failed.value.stop_reason) == ("too_long", "well, ", "error")
        assert failed.value.retryable and failed.value.retry_after_ms == 5


@pytest.mark.parametrize("number", [math.nan, -math.inf])
async def test_a_number_that_json_does_not_have_is_not_sent(hub: Hub, number: float) -> None:
    """The hub would receive null instead."""
    await hub.start()
    async with connect(address(hub.port)) as client:
        with pytest.raises(ValueError, match="not a JSON number"):
            await client.command(type="chat", sessionId="s1", message="x", metadata={"n": [number]})
        await client.command(type="chat", agentId="echo", sessionId="s1", message="x", metadata={"n": [1e300]})


async def test_a_refused_chat_raises_a_refusal(hub: Hub) -> None:
    """The agent is unknown. The session still works."""
    await hub.start()
    async with connect(address(hub.port)) as client:
        session = await client.session("s1", agent="echo")
        with pytest.raises(Refusal) as refused:
            await session.ask("hi", agent="nobody")
        assert refused.value.code == "unknown_agent"
        assert await session.ask("hi") == "hi "


async def test_the_cancel_of_an_answer_stops_only_its_run(hub: Hub, tmp_path: Path) -> None:
    """The cancel of a session stops all runs. Both return the ids of the stopped runs."""
    await hub.start()
    never = str(tmp_path / "never")
    async with connect(address(hub.port)) as client:
        session = await client.session("s1", agent="gated")
        one, two = session.chat(never), session.chat(never, if_busy="parallel")
        assert one.accepted is None
        cancelled = await one.cancel()
        assert one.accepted is not None and cancelled == (one.accepted.runId,)
        with pytest.raises(RunFailed, match="cancelled"):
            await one.text()
        await eventually(lambda: two.accepted)  # a cancel does not wait for a chat before it
        assert await session.cancel() == (two.accepted and two.accepted.runId,)
        with pytest.raises(RunFailed, match="cancelled"):
            await two.text()
        assert await session.cancel() == ()


async def test_removed_messages_are_not_in_the_text() -> None:
    """The hub crashed and started the answer again: only the text of the second attempt counts."""

    async def script(peer: Peer) -> None:
        await peer.accept_subscribe()
        chat = await peer.next("chat")
        about = {"ref": chat["ref"], "status": "started", "position": 0, "messageId": "m0"}
        await peer.say("accepted", sessionId="s1", runId="r1", seq=1, **about)
        await peer.say("user_message", sessionId="s1", epoch="e", seq=1, ts=0, messageId="m0", content="hi")
        await peer.event("run_started", 2, messageId="m1", attempt=1)
        await peer.event("stream", 3, messageId="m1", content="half", offset=0)
        await peer.event("message_removed", 4, messageIds=["m1"], reason="restarted")
        await peer.event("run_started", 5, messageId="m2", attempt=2)
        await peer.event("stream", 6, messageId="m2", content="whole", offset=0)
        await peer.event("run_finished", 7, messageId="m2", stopReason="end_turn")

    async with scripted(script) as url, connect(url) as client:
        session = await client.session("s1")
        assert await session.ask("hi") == "whole"


async def test_a_chat_whose_session_is_lost_raises_forgotten(hub: Hub) -> None:
    """The chat was accepted, and then the epoch of the session changed."""

    async def first(peer: Peer) -> None:
        await peer.accept_subscribe()
        chat = await peer.next("chat")
        about = {"ref": chat["ref"], "status": "started", "position": 0, "messageId": "m0"}
        await peer.say("accepted", sessionId="s1", runId="r1", seq=1, **about)
        await peer.ws.close(code=1012)

    async def second(peer: Peer) -> None:
        await peer.accept_subscribe()
        await peer.say("reset", sessionId="s1", reason="epoch_changed", epoch="f", messages=[])

    async with scripted(first, second) as url, connect(url) as client:
        session = await client.session("s1")
        with pytest.raises(Forgotten):
            await session.ask("hi")


# --- the connection -------------------------------------------------------------------------------------------------


async def test_a_missing_hub_raises_unreachable(hub: Hub) -> None:
    """With patience=0 the client tries once. The error has the address."""
    with pytest.raises(Unreachable, match="ws://127.0.0.1:1/"):
        async with connect("ws://127.0.0.1:1/", patience=0):
            pass


async def test_the_client_does_not_reconnect_after_a_refused_handshake() -> None:
    """Status 403 closes the client, and `code` is this status."""
    async with scripted() as url:
        client = connect(url)
        with pytest.raises(Closed, match="403"):
            await client.__aenter__()
        assert client.state == "closed" and client.code == 403


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/nothing", 404)])
async def test_a_page_instead_of_a_websocket_is_reported(hub: Hub, path: str, status: int) -> None:
    """The error shows a valid address. Here the first page is the console of the hub."""
    await hub.start()
    with pytest.raises(Closed, match=f"with {status}: no WebSocket .* such as ws://localhost:9527/api/v1/ws$"):
        async with connect(f"ws://127.0.0.1:{hub.port}{path}"):
            pass


async def test_an_open_command_raises_a_retryable_error_when_the_connection_is_cut() -> None:
    """The client cannot know whether the hub executed it. The next command works."""

    async def first(peer: Peer) -> None:
        await peer.accept_subscribe()
        await peer.next("cancel")
        await peer.ws.close(code=1012)

    async def second(peer: Peer) -> None:
        await peer.accept_subscribe()
        cancel = await peer.next("cancel")
        await peer.say("cancelling", sessionId="s1", runIds=["r1"], ref=cancel["ref"])

    async with scripted(first, second) as url, connect(url) as client:
        session = await client.session("s1")
        with pytest.raises(ConnectionCut) as lost:
            await session.cancel()
        assert lost.value.retryable
        assert await session.cancel() == ("r1",)


async def test_close_ends_all_tasks_and_iterations(hub: Hub, tmp_path: Path) -> None:
    """Readers end without an error. Open answers and later calls raise Closed."""
    await hub.start()
    before = asyncio.all_tasks()
    client = await connect(address(hub.port)).__aenter__()
    session: Session = await client.session("s1", agent="gated")
    readers: list[AsyncIterator[object]] = [session.events(), client.subscribe(agent="gated")]
    answer = session.chat(str(tmp_path / "never"))
    await anext(answer)
    await client.close()
    for reader in readers:
        assert all([isinstance(event, Event) async for event in reader])
    with pytest.raises(Closed):
        await answer.text()
    with pytest.raises(Closed):
        await session.history()
    with pytest.raises(Closed):
        session.chat("too late")
    assert [state async for state in client.states()] == ["closed"]
    new_tasks = asyncio.all_tasks() - before
    assert not [task for task in new_tasks if "hub/client" in str(task)], new_tasks


async def test_close_ends_an_open_command() -> None:
    """It raises Closed: a retry on this client is useless."""
    is_sent = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.accept_subscribe()
        await peer.next("cancel")
        is_sent.set()

    async with scripted(script) as url, asyncio.timeout(PATIENCE):
        client = await connect(url).__aenter__()
        cancel = asyncio.create_task((await client.session("s1")).cancel())
        await is_sent.wait()
        await client.close()
        with pytest.raises(Closed, match="with 1000$") as failure:
            await cancel
        assert not failure.value.retryable


async def test_close_ends_a_reader_that_waits_to_read_the_log(hub: Hub, proxy: Proxy) -> None:
    """Without an error, like a reader that waits for an event."""
    await hub.start()
    client = await connect(address(proxy.port)).__aenter__()
    session = await client.session("s1", agent="echo")
    await session.ask("hi")
    proxy.target = lambda: ("127.0.0.1", 1)
    for link in list(proxy.links):
        link.reset()
    async with asyncio.timeout(PATIENCE):
        async for state in client.states():
            if state == "waiting":
                break
        reader = client.subscribe(session="s1", after_seq=0)
        reading = asyncio.create_task(read(reader))
        await client.close()
        with pytest.raises(StopAsyncIteration):
            await reading


@pytest.mark.parametrize(("header", "seconds"), [("2", 2.0), ("\u00b2", 0.0), ("soon", 0.0)])
async def test_the_client_waits_as_long_as_a_refused_handshake_asks(header: str, seconds: float) -> None:
    """A header that is no number of seconds is ignored."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 503 Busy\r\nRetry-After: {header}\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        client = connect(address(server.sockets[0].getsockname()[1]), patience=0)
        with pytest.raises(Unreachable):
            await client.__aenter__()
        assert client.link.retry_after == seconds


async def test_leave_ends_the_readers_of_a_session(hub: Hub) -> None:
    """The hub sends no more of its events, and the client can join it again."""
    await hub.start()
    async with connect(address(hub.port)) as client:
        session = await client.session("s1", agent="echo")
        events = session.events()
        session.leave()
        assert [event async for event in events] == []
        await client.session("s2")
        (connection,) = hub.node.registry.connections
        assert list(connection.subscriptions) == ["s2"]
        assert await session.ask("hi") == "hi "


def test_the_backoff_grows_from_a_quarter_of_a_second_to_fifteen_seconds() -> None:
    """Full jitter: each delay is between zero and a bound, and the bound doubles."""
    bounds = [retry_delay(failures, lambda least, most: most if least == 0 else -1) for failures in range(60)]
    assert bounds[:3] == [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY]
    assert bounds == sorted(bounds) and bounds[-1] == LONGEST_DELAY


async def test_the_client_refuses_frames_over_the_limit_of_the_hub(hub: Hub) -> None:
    """The hub would close the connection for them. The connection stays open, and the next chat works."""
    await hub.start(frame_bytes=2000)
    async with connect(address(hub.port)) as client:
        session = await client.session("s1", agent="echo")
        with pytest.raises(Refusal, match="2000 bytes") as refused:
            await session.ask("x" * 2000)
        assert refused.value.code == "too_large"
        with pytest.raises(Refusal, match="2000"):
            await client.command(type="typing", sessionId="s" * 2000)
        assert await session.ask("hello") == "hello "


def test_close_codes_decide_whether_the_client_reconnects() -> None:
    """docs/protocol.md lists the final codes."""
    assert [code for code in range(1000, 5000) if is_final(code)] == [
        *(1000, 1002, 1003, 1007, 1008, 1009, 1010),
        *range(4500, 5000),
    ]

"""The extended protocol: opting in, accepted chats, subscriptions, presence, typing, state."""

import asyncio
from typing import Any

import pytest
from support.hub import Hub
from support.late import hold_results
from support.waiting import eventually

from hub.ids import Key
from hub.limits import MiB
from hub.node import expiring


async def test_hello_as_the_first_frame_selects_the_protocol(hub: Hub) -> None:
    """The answer is `welcome`; after it, events have their own types."""
    await hub.start()
    client = await hub.connect()
    await client.send(type="hello", client="test", ref="h1")
    welcome = await client.next()
    assert welcome["type"] == "welcome" and welcome["protocol"] == "hubbub.v1" and welcome["ref"] == "h1"
    assert welcome["hub"]["name"] == "hubbub" and welcome["heartbeatMs"] == 25000
    assert {agent["agentId"] for agent in welcome["agents"]} == {"echo", "gated"}
    await client.send(type="chat", agentId="echo", message="hi")
    await client.until_done()
    kinds = [frame["type"] for frame in client.frames]
    assert [k for k in kinds if k not in ("state", "presence")] == [
        "welcome",
        "accepted",
        "user_message",
        "run_started",
        "stream",
        "run_finished",
    ]


async def test_a_later_hello_is_refused(hub: Hub) -> None:
    """A plain client cannot change its protocol after its first frame."""
    await hub.start()
    client = await hub.connect()
    await client.send(type="ping")
    await client.next()
    await client.send(type="hello")
    assert (await client.next())["code"] == "bad_frame"


async def test_a_subscriber_receives_every_event_in_order_without_gaps(hub: Hub) -> None:
    """user_message, run_started, chunks with their offsets and run_finished have the seqs 1, 2, 3 ..."""
    await hub.start()
    watcher = await hub.connect(extended=True)
    await watcher.send(type="subscribe", sessionId="s1", ref=7)
    subscribed = await watcher.until_type("subscribed")
    assert subscribed["ref"] == 7 and subscribed["seq"] == 0 and subscribed["active"] == []
    client = await hub.connect()
    await client.send(type="chat", agentId="echo", sessionId="s1", message="a 你 b")
    await watcher.until_done()
    events = [frame for frame in watcher.frames if "seq" in frame and frame["type"] != "subscribed"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["type"] == "user_message" and events[0]["content"] == "a 你 b"
    assert events[0]["author"] == {"id": "local", "name": "local"}
    assert events[1]["type"] == "run_started" and events[1]["attempt"] == 1
    offset = 0
    for event in events[2:-1]:
        assert event["type"] == "stream" and event["offset"] == offset
        offset += len(event["content"])
    assert events[-1]["type"] == "run_finished" and events[-1]["stopReason"] == "end_turn"
    assert not any("done" in event for event in events)


async def test_a_client_msg_id_runs_once_even_across_a_restart(hub: Hub) -> None:
    """The duplicate gets the same answer, and its sender receives the run from its message on."""
    await hub.start()
    client = await hub.connect(extended=True)
    chat = {"type": "chat", "agentId": "echo", "sessionId": "s1", "message": "once", "clientMsgId": "c1"}
    await client.send(**chat)
    await client.send(**chat, ref="again")
    first = await client.until_type("accepted")
    second = await client.until_type("accepted")
    assert first["status"] == "started" and second["status"] == "duplicate" and second["ref"] == "again"
    same = ("sessionId", "clientMsgId", "messageId", "runId", "seq")
    assert [first[key] for key in same] == [second[key] for key in same]
    await client.find(lambda f: f["type"] == "run_finished")
    await hub.stop()
    await hub.start()
    later = await hub.connect(extended=True)
    await later.send(**chat)
    third = await later.until_type("accepted")
    assert third["status"] == "duplicate" and [first[key] for key in same] == [third[key] for key in same]
    await later.until_done()
    assert later.text() == "once "
    assert len(await hub.node.log.sessions.read_last_messages(Key("s1"), 10, MiB)) == 2
    await later.send(**(chat | {"message": "other"}))
    assert (await later.until_type("error"))["code"] == "id_reused"


async def test_concurrent_duplicates_of_several_connections_run_once(hub: Hub) -> None:
    """A duplicate waits for the commit of the first chat."""
    await hub.start()
    clients = [await hub.connect(extended=True) for _ in range(4)]
    chat = {"type": "chat", "agentId": "echo", "sessionId": "s1", "message": "once", "clientMsgId": "c1"}
    await asyncio.gather(*(client.send(**chat) for client in clients))
    answers = [await client.until_type("accepted") for client in clients]
    assert len({answer["runId"] for answer in answers}) == 1
    assert sorted(answer["status"] for answer in answers) == ["duplicate"] * 3 + ["started"]
    for client in clients:
        await client.until_done()
        assert client.text() == "once "


async def test_a_chat_with_client_msg_id_needs_a_session(hub: Hub) -> None:
    """The id is unique in its session."""
    await hub.start()
    client = await hub.connect()
    await client.send(type="chat", agentId="echo", message="x", clientMsgId="c1")
    assert (await client.next())["code"] == "bad_frame"


async def test_a_plain_client_gets_accepted_only_for_a_client_msg_id(hub: Hub) -> None:
    """Without one, the first frame of the answer comes instead."""
    await hub.start()
    client = await hub.connect()
    await client.send(type="chat", agentId="echo", sessionId="s1", message="x", clientMsgId="c1")
    assert (await client.next())["type"] == "accepted"
    await client.until_done()


async def test_subscribed_contains_the_history_without_seqs(hub: Hub) -> None:
    """The history is the last n finished messages, oldest first."""
    await hub.start()
    client = await hub.connect(extended=True)
    for word in ("one", "two"):
        await client.send(type="chat", agentId="echo", sessionId="s1", message=word)
        await client.until_done()
    late = await hub.connect(extended=True)
    await late.send(type="subscribe", sessionId="s1", history=3)
    answer = await late.until_type("subscribed")
    messages = [(message["role"], message["content"]) for message in answer["history"]]
    assert messages == [("assistant", "one "), ("user", "two"), ("assistant", "two ")]
    assert not any("seq" in message for message in answer["history"])


@pytest.mark.parametrize("fields", [{"history": 9}, {"afterSeq": 1, "epoch": "old"}])
async def test_the_history_contains_an_answer_that_ends_while_it_is_read(hub: Hub, fields: dict[str, Any]) -> None:
    """A client misses no message between the history and the first event."""
    await hub.start()
    client, late = await hub.connect(extended=True), await hub.connect(extended=True)
    await client.send(type="chat", agentId="echo", sessionId="s1", message="one")
    await client.until_done()
    store, reads = hub.node.log.sessions, 0
    read_last_messages = store.read_last_messages

    async def slow(*values: Any) -> Any:
        nonlocal reads
        messages = await read_last_messages(*values)
        reads += 1
        if reads == 1:
            await client.send(type="chat", agentId="echo", sessionId="s1", message="two")
            await client.until_done()
        return messages

    store.read_last_messages = slow  # type: ignore[method-assign, assignment]
    await late.send(type="subscribe", sessionId="s1", **fields)
    kind = "subscribed" if "history" in fields else "reset"
    answer = await late.until_type(kind)
    messages = answer["history" if kind == "subscribed" else "messages"]
    assert [message["content"] for message in messages] == ["one", "one ", "two", "two "] and reads == 2


@pytest.mark.parametrize("fields", [{"history": 9}, {"afterSeq": 1, "epoch": "old"}])
async def test_the_history_contains_no_message_that_comes_live(hub: Hub, fields: dict[str, Any]) -> None:
    """The log has a message a moment before the hub delivers its event: a subscription may begin in between."""
    await hub.start()
    client, late = await hub.connect(extended=True), await hub.connect(extended=True)
    await client.send(type="chat", agentId="echo", sessionId="s1", message="one")
    await client.until_done()
    with hold_results(hub):
        await client.send(type="chat", agentId="echo", sessionId="s1", message="two")
        while len(await hub.node.log.sessions.read_last_messages(Key("s1"), 9, MiB)) < 3:
            pass
        await late.send(type="subscribe", sessionId="s1", **fields)
        kind = "subscribed" if "history" in fields else "reset"
        answer = await late.until_type(kind)
    messages = answer["history" if kind == "subscribed" else "messages"]
    assert [message["content"] for message in messages] == ["one", "one "]
    assert (await late.until_type("user_message"))["content"] == "two"


async def test_a_reset_contains_the_messages(hub: Hub) -> None:
    """The cursor has another epoch, or is older than the stored events (`too_old`)."""
    await hub.start()
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="echo", sessionId="s1", message="one")
    end = await client.until_done()
    await expiring.expire_events(hub.node, end["ts"] + 1)
    for ask, reason in (({"afterSeq": 1, "epoch": "old"}, "epoch_changed"), ({"afterSeq": 1}, "too_old")):
        late = await hub.connect(extended=True)
        await late.send(type="subscribe", sessionId="s1", **ask)
        assert (await late.until_type("subscribed"))["seq"] == end["seq"]
        reset = await late.until_type("reset")
        assert reset["reason"] == reason and reset["epoch"] == end["epoch"]
        assert [message["content"] for message in reset["messages"]] == ["one", "one "]


async def test_resume_by_after_seq_merges_and_loses_nothing(hub: Hub) -> None:
    """The hub merges the missed chunks into one, with the seq of the last."""
    hub.agent(
        "slow.py",
        """
        import asyncio

        async def slow(message: str):
            for n in range(20):
                yield f"{n} "
                await asyncio.sleep(0.02)
        """,
    )
    await hub.start()
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="slow", sessionId="s1", message="go")
    await client.until_done()
    chunks = [frame for frame in client.frames if frame["type"] == "stream"]
    again = await hub.connect(extended=True)
    await again.send(type="subscribe", sessionId="s1", afterSeq=chunks[0]["seq"], epoch=chunks[0]["epoch"])
    await again.until_done()
    assert chunks[0]["content"] + again.text() == client.text()
    assert len([frame for frame in again.frames if frame["type"] == "stream"]) == 1 < len(chunks)


async def test_a_client_receives_no_event_after_unsubscribe(hub: Hub) -> None:
    """`ok` is the last frame about the session."""
    await hub.start()
    watcher = await hub.connect(extended=True)
    await watcher.send(type="subscribe", sessionId="s1")
    await watcher.until_type("subscribed")
    await watcher.send(type="unsubscribe", sessionId="s1", ref=1)
    assert (await watcher.until_type("ok"))["ref"] == 1
    client = await hub.connect()
    await client.send(type="chat", agentId="echo", sessionId="s1", message="x")
    await client.until_done()
    await watcher.send(type="ping")
    assert await watcher.until_type("pong")
    assert watcher.text() == ""


async def test_presence_and_typing_reach_the_other_subscribers(hub: Hub) -> None:
    """These notices have no seq and are not in the log."""
    await hub.start(presence_seconds=0.05)
    one, two = [await hub.connect(extended=True) for _ in range(2)]
    for client in (one, two):
        await client.send(type="subscribe", sessionId="s1")
    presence = await one.find(lambda f: f["type"] == "presence" and f["count"] == 2)
    assert len(presence["members"]) == 2 and "seq" not in presence
    await two.send(type="typing", sessionId="s1")
    assert (await one.until_type("typing"))["author"]["id"] == "local"
    await two.close()
    await one.until(lambda f: f["type"] == "presence" and f["count"] == 1)
    assert hub.node.sessions[Key("s1")].channel.head == 0


async def test_state_lists_active_and_queued_runs(hub: Hub) -> None:
    """The state is `running` with a queue, then `idle`."""
    await hub.start()
    gate = hub.folder / "gate"
    client = await hub.connect(extended=True)
    for _ in range(2):
        await client.send(type="chat", agentId="gated", sessionId="s1", message=str(gate))
    first, second = [await client.until_type("accepted") for _ in range(2)]
    assert second["status"] == "queued" and second["position"] == 1
    state = await client.find(lambda f: f["type"] == "state" and f["queue"])
    assert state["state"] == "running"
    runs = [(run["runId"], run["userMessageId"]) for run in state["active"] + state["queue"]]
    assert runs == [(one["runId"], one["messageId"]) for one in (first, second)]
    gate.touch()
    await client.until(lambda f: f["type"] == "state" and f["state"] == "idle")


@pytest.mark.parametrize("over", [0, 1])
async def test_a_connection_has_a_limit_of_subscriptions(hub: Hub, over: int) -> None:
    """A subscribe past the limit gets only an error; the connection stays open."""
    await hub.start(subscriptions=3)
    client = await hub.connect(extended=True)
    for number in range(3 + over):
        await client.send(type="subscribe", sessionId=f"s{number}", ref=number)
    for number in range(3 + over):
        answer = await client.find(lambda frame: frame.get("ref") == number)
        assert answer.get("code") == (None if number < 3 else "too_many_subscriptions")
    await client.send(type="ping")
    await client.until_type("pong")
    assert len([f for f in client.frames if f["type"] == "subscribed"]) == 3


async def test_an_unused_session_leaves_memory(hub: Hub) -> None:
    """A later chat loads it again, and its seqs continue."""
    await hub.start()
    client = await hub.connect()
    await client.send(type="chat", agentId="echo", sessionId="s1", message="x")
    last = await client.until_done()
    await client.close()
    await eventually(lambda: "s1" not in hub.node.sessions)
    again = await hub.connect()
    await again.send(type="chat", agentId="echo", sessionId="s1", message="y")
    assert (await again.next())["seq"] > last["seq"]


async def test_a_chat_past_the_limit_of_subscriptions_is_not_stored(hub: Hub) -> None:
    """Its sender could not receive the answer."""
    await hub.start(subscriptions=1)
    client = await hub.connect(extended=True)
    await client.send(type="subscribe", sessionId="s1")
    await client.until_type("subscribed")
    await client.send(type="chat", agentId="echo", sessionId="s2", message="x")
    assert (await client.until_type("error"))["code"] == "too_many_subscriptions"
    assert await hub.node.log.sessions.find(Key("s2")) is None


async def test_welcome_is_the_first_frame_after_hello_even_with_a_session_in_the_url(hub: Hub) -> None:
    """The state of the session comes after it."""
    await hub.start()
    client = await hub.connect("?sessionId=s1")
    await client.send(type="hello")
    assert (await client.next())["type"] == "welcome"
    assert (await client.until_type("state"))["state"] == "idle"

"""Commands that remove or copy messages: regenerate, edit, fork, and chats with `ifBusy: rollback`."""

import asyncio
from typing import Any

import aiohttp
import pytest
from support.hub import Client, Hub
from support.process import HubProcess
from support.sse import call, post
from support.waiting import PATIENCE, eventually

from hub.errors import StorageUnavailable
from hub.ids import Key
from hub.limits import MiB
from hub.node.upkeep import reload_agent_file
from hub.sessions.run_states import RunState
from hub.storage.log import AppendCallback
from hub.storage.records import Append

REMEMBERS = """
    async def remembers(run):
        history = "/".join(past.content for past in run.history)
        yield f"[{history}] {run.message}"
    """
# Yields "a ", and ignores every cancel until the file named by the message exists.
STUBBORN = """
    import asyncio, pathlib

    async def stubborn(message: str):
        yield "a "
        while not pathlib.Path(message).exists():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                pass
    """

SINGLE = """
    import asyncio, pathlib
    from hub import agent

    @agent(max_runs=1)
    async def single(message: str):
        while not pathlib.Path(message).exists():
            await asyncio.sleep(0.01)
        yield "done"
    """


async def begin(hub: Hub, **limits: Any) -> Client:
    hub.agent("remembers.py", REMEMBERS)
    hub.agent("stubborn.py", STUBBORN)
    await hub.start(**limits)
    return await hub.connect("?agentId=remembers", extended=True)


async def say(client: Client, message: str, agent: str = "remembers", **extra: Any) -> dict[str, Any]:
    """Chat, and return `accepted` once the answer has ended, with the id of its last message as `answerId`."""
    await client.send(type="chat", agentId=agent, sessionId="s1", message=message, **extra)
    accepted = await client.until_type("accepted")
    end = await client.until(lambda f: f["type"] == "run_finished" and f["runId"] == accepted["runId"])
    return accepted | {"answerId": end["messageId"]}


async def start(client: Client, agent: str, message: str, **extra: Any) -> dict[str, Any]:
    """Chat with an agent; return `accepted` once the answer has its first text (or is queued)."""
    await client.send(type="chat", agentId=agent, sessionId="s1", message=message, **extra)
    accepted = await client.until_type("accepted")
    if accepted["status"] == "started":
        await client.find(lambda f: f["type"] == "stream" and f["runId"] == accepted["runId"])
    return accepted


async def find_reply(client: Client, ref: object) -> dict[str, Any]:
    return await client.find(lambda f: f.get("ref") == ref)


async def wait_for_end(client: Client, run_id: str) -> dict[str, Any]:
    return await client.find(lambda f: f["type"] == "run_finished" and f["runId"] == run_id)


async def wait_until_stopping(hub: Hub, run_id: str) -> None:
    """Wait until a run is being stopped: the command that removes its messages has begun."""
    async with asyncio.timeout(PATIENCE):
        while hub.node.sessions[Key("s1")].active_runs[run_id].state is not RunState.ENDING:
            await asyncio.sleep(0)


async def read_history(hub: Hub, session: str = "s1") -> list[str]:
    return [message.content for message in await hub.node.log.sessions.read_last_messages(Key(session), 100, MiB)]


async def read_log(hub: Hub, session: str = "s1") -> list[Any]:
    events: list[Any] = []
    cursor = 0
    while page := await hub.node.log.events.read(Key(session), cursor, 10**6):
        events += page
        cursor = page[-1].seq
    return events


async def read_kinds(hub: Hub, session: str = "s1") -> list[str]:
    return [event.body.type for event in await read_log(hub, session)]


def is_consistent(events: list[Any]) -> bool:
    """Return True if the seqs are dense; fail if a run has events after its end, or a removal names no message."""
    messages: set[str] = set()
    ends: set[str] = set()
    for event in events:
        assert event.runId not in ends
        if event.body.type == "run_finished":
            ends.add(event.runId)
        if event.body.type == "message_removed":
            assert set(event.body.messageIds) <= messages
            messages -= set(event.body.messageIds)
        elif hasattr(event.body, "messageId"):
            messages.add(event.body.messageId)
    return [event.seq for event in events] == list(range(1, len(events) + 1))


# --- regenerate -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["answerId", "messageId"])
async def test_regenerate_replaces_the_answer_and_all_later_messages(hub: Hub, name: str) -> None:
    """By the id of the answer or of its message. One event removes them, and the agent's history lacks them."""
    client = await begin(hub)
    first, second, third = [await say(client, text) for text in ("one", "two", "three")]
    await client.send(type="regenerate", sessionId="s1", messageId=second[name], ref="again")
    accepted = await find_reply(client, "again")
    assert accepted["type"] == "accepted" and accepted["status"] == "started"
    assert accepted["messageId"] == second["messageId"]
    removed = await client.find(lambda f: f["type"] == "message_removed")
    assert removed["reason"] == "edited" and removed["seq"] == accepted["seq"]
    assert removed["messageIds"] == [second["answerId"], third["messageId"], third["answerId"]]
    await wait_for_end(client, accepted["runId"])
    assert client.text(accepted["runId"]) == "[one/[] one] two"
    assert await read_history(hub) == ["one", "[] one", "two", "[one/[] one] two"]
    assert (await read_kinds(hub)).count("user_message") == 3 and is_consistent(await read_log(hub))


async def test_regenerate_may_name_another_agent(hub: Hub) -> None:
    """Without an agent in the command, the agent of the removed answer regenerates it."""
    client = await begin(hub)
    chat = await say(client, "one")
    await client.send(type="regenerate", sessionId="s1", messageId=chat["messageId"], agentId="echo", ref=1)
    await wait_for_end(client, (await find_reply(client, 1))["runId"])
    assert await read_history(hub) == ["one", "one "]
    await client.send(type="regenerate", sessionId="s1", messageId=chat["messageId"], ref=2)
    end = await wait_for_end(client, (await find_reply(client, 2))["runId"])
    assert end["agentId"] == "echo" and await read_history(hub) == ["one", "one "]


async def test_regenerate_stops_a_running_answer(hub: Hub) -> None:
    """The log has the end of the run before the removal of its message."""
    client = await begin(hub)
    first = await start(client, "gated", str(hub.folder / "gate"))
    await client.send(type="regenerate", sessionId="s1", messageId=first["messageId"], ref=1)
    accepted = await find_reply(client, 1)
    end = await wait_for_end(client, first["runId"])
    removed = await client.find(lambda f: f["type"] == "message_removed")
    assert end["stopReason"] == "cancelled" and removed["messageIds"] == [end["messageId"]]
    assert end["seq"] < removed["seq"] == accepted["seq"]
    (hub.folder / "gate").touch()
    await wait_for_end(client, accepted["runId"])
    assert await read_history(hub) == [str(hub.folder / "gate"), "one two"] and is_consistent(await read_log(hub))


# --- edit -------------------------------------------------------------------------------------------------------------


async def test_edit_replaces_a_message(hub: Hub) -> None:
    """One commit removes it and all later messages, and adds the new message and its run."""
    client = await begin(hub)
    first, second, third = [await say(client, text) for text in ("one", "two", "three")]
    await client.send(type="edit", sessionId="s1", messageId=second["messageId"], message="zwei", ref="e")
    accepted = await find_reply(client, "e")
    await wait_for_end(client, accepted["runId"])
    events = [f for f in client.frames if f.get("seq", 0) > third["seq"] and f["type"] != "accepted"]
    index = next(i for i, f in enumerate(events) if f["type"] == "message_removed")
    assert events[index]["messageIds"] == [
        second["messageId"],
        second["answerId"],
        third["messageId"],
        third["answerId"],
    ]
    assert [f["type"] for f in events[index : index + 3]] == ["message_removed", "user_message", "run_started"]
    assert len({f["ts"] for f in events[index : index + 3]}) == 1 and events[index + 1]["seq"] == accepted["seq"]
    assert events[index + 1]["messageId"] == accepted["messageId"] != second["messageId"]
    assert client.text(accepted["runId"]) == "[one/[] one] zwei"
    assert await read_history(hub) == ["one", "[] one", "zwei", "[one/[] one] zwei"] and is_consistent(
        await read_log(hub)
    )


async def test_edit_removes_later_queued_chats_and_keeps_earlier_ones(hub: Hub) -> None:
    """Queued runs of removed messages end as cancelled. The run of an earlier message goes on, and the edit waits."""
    client = await begin(hub)
    gate = str(hub.folder / "gate")
    before = await start(client, "gated", gate)
    edited, behind = [await start(client, "gated", gate) for _ in range(2)]
    await client.send(type="edit", sessionId="s1", messageId=edited["messageId"], message=f"{gate}", ref="e")
    accepted = await find_reply(client, "e")
    assert accepted["status"] == "queued" and accepted["position"] == 1
    for run in (edited, behind):
        assert (await wait_for_end(client, run["runId"]))["stopReason"] == "cancelled"
    (hub.folder / "gate").touch()
    assert (await wait_for_end(client, before["runId"]))["stopReason"] == "end_turn"
    assert (await wait_for_end(client, accepted["runId"]))["stopReason"] == "end_turn"
    started = [event.runId for event in await read_log(hub) if event.body.type == "run_started"]
    assert started == [before["runId"], accepted["runId"]]
    assert await read_history(hub) == [gate, gate, "one two", "one two"] and is_consistent(await read_log(hub))


async def test_a_plain_client_receives_the_ids_of_removed_messages(hub: Hub) -> None:
    """As an error `message_removed`. Then it receives the new answer."""
    extended = await begin(hub)
    chat = await say(extended, "one")
    plain = await hub.connect("?sessionId=s1")
    await extended.send(type="edit", sessionId="s1", messageId=chat["messageId"], message="two")
    await plain.until_done()
    assert [f["type"] for f in plain.frames] == ["error", "stream", "stream"]
    error = plain.frames[0]
    assert error["code"] == "message_removed" and error["messageIds"] == [chat["messageId"], chat["answerId"]]
    assert error["message"].startswith("discard these messages (edited)") and "runId" not in error
    assert plain.text() == "[] two"


async def test_a_command_for_an_unsuitable_message_is_refused(hub: Hub) -> None:
    """An unknown message, an edit of an agent's message, too many messages to remove: the log does not change."""
    client = await begin(hub, taken_messages=3)
    hub.agent("silent.py", "async def silent(message: str):\n    yield ''")
    chat = await say(client, "one")
    before = await read_kinds(hub)
    commands: list[tuple[dict[str, Any], str]] = [
        ({"type": "edit", "messageId": "nothing", "message": "x"}, "unknown_message"),
        ({"type": "regenerate", "messageId": "nothing"}, "unknown_message"),
        ({"type": "fork", "messageId": "nothing"}, "unknown_message"),
        ({"type": "edit", "messageId": chat["answerId"], "message": "x"}, "wrong_message"),
        ({"type": "edit", "messageId": chat["messageId"], "message": "x", "agentId": "nobody"}, "unknown_agent"),
        ({"type": "edit", "messageId": "not an id", "message": "x"}, "bad_id"),
        ({"type": "regenerate", "messageId": chat["messageId"], "agentId": "nobody"}, "unknown_agent"),
    ]
    for number, (command, code) in enumerate(commands):
        await client.send(sessionId="s1", ref=number, **command)
        assert (await find_reply(client, number))["code"] == code
    for kind in ("edit", "regenerate", "fork"):
        await client.send(type=kind, sessionId="s9", messageId="m_1", message="x", ref=kind)
        assert (await find_reply(client, kind))["code"] == "unknown_session"
    assert await hub.node.log.sessions.find(Key("s9")) is None
    assert await read_kinds(hub) == before
    await say(client, "two")
    await client.send(type="edit", sessionId="s1", messageId=chat["messageId"], message="x", ref="far")
    assert (await find_reply(client, "far"))["code"] == "wrong_message"


async def test_an_answer_without_text_is_regenerated(hub: Hub) -> None:
    """By the agent that failed. Only that answer and the later messages are removed."""
    hub.agent("fails.py", "async def fails(message: str):\n    raise ValueError\n    yield ''")
    client = await begin(hub)
    await say(client, "zero")
    chat = await say(client, "one", "fails")
    await say(client, "two")
    await client.send(type="regenerate", sessionId="s1", messageId=chat["messageId"], ref=1)
    again = await find_reply(client, 1)
    removed = await client.find(lambda f: f["type"] == "message_removed")
    assert removed["seq"] == again["seq"] and removed["messageIds"][0] == chat["answerId"]
    assert len(removed["messageIds"]) == 3
    failed = await wait_for_end(client, again["runId"])
    await client.send(type="regenerate", sessionId="s1", messageId=chat["messageId"], ref="once more")
    again = await find_reply(client, "once more")
    removed = await client.find(lambda f: f["type"] == "message_removed" and f["seq"] == again["seq"])
    assert removed["messageIds"] == [failed["messageId"]]
    failed = await wait_for_end(client, again["runId"])
    assert (failed["agentId"], failed["stopReason"]) == ("fails", "error")
    assert await read_history(hub) == ["zero", "[] zero", "one", ""]
    await client.send(type="edit", sessionId="s1", messageId=chat["messageId"], message="uno", ref=2)
    assert (await wait_for_end(client, (await find_reply(client, 2))["runId"]))["agentId"] == "fails"


async def test_regenerate_finds_the_failed_agent_despite_a_later_answer(hub: Hub) -> None:
    """The answer of an earlier message, which was queued, comes after the message in the log."""
    hub.agent("fails.py", "async def fails(message: str):\n    raise ValueError\n    yield ''")
    client = await begin(hub)
    gate = hub.folder / "gate"
    await start(client, "stubborn", str(gate))
    for agent in ("remembers", "fails"):
        await client.send(type="chat", agentId=agent, sessionId="s1", message=agent, ifBusy="enqueue")
        chat = await client.until_type("accepted")
    gate.touch()
    await wait_for_end(client, chat["runId"])
    await client.send(type="regenerate", sessionId="s1", messageId=chat["messageId"], ref=1)
    assert (await wait_for_end(client, (await find_reply(client, 1))["runId"]))["agentId"] == "fails"


async def test_a_message_without_an_agent_can_be_edited_but_not_regenerated(hub: Hub) -> None:
    """For example the last message of a fork. An edit then uses the agent of the connection."""
    client = await begin(hub)
    chat = await say(client, "one")
    await client.send(type="fork", sessionId="s1", messageId=chat["messageId"], newSessionId="f1", ref=0)
    await find_reply(client, 0)
    await client.send(type="regenerate", sessionId="f1", messageId=chat["messageId"], ref=1)
    assert (await find_reply(client, 1))["code"] == "wrong_message"
    await client.send(type="edit", sessionId="f1", messageId=chat["messageId"], message="two", ref=2)
    assert (await wait_for_end(client, (await find_reply(client, 2))["runId"]))["agentId"] == "remembers"
    assert await read_history(hub, "f1") == ["two", "[] two"]


async def test_a_broadcast_is_not_regenerated(hub: Hub) -> None:
    """It answers no message. The agent of a later empty answer must not answer the broadcast."""
    hub.agent("silent.py", "async def silent(message: str):\n    yield ''")
    client = await begin(hub)
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/") as http:
        _, broadcast = await post(http, "agents/echo/broadcast", {"message": "news"})
    session = broadcast["sessionId"]
    await client.send(type="chat", agentId="silent", sessionId=session, message="well?")
    await wait_for_end(client, (await client.until_type("accepted"))["runId"])
    await client.send(type="regenerate", sessionId=session, messageId=broadcast["messageId"], ref=1)
    refusal = await find_reply(client, 1)
    assert refusal["code"] == "wrong_message" and "is a broadcast, which answers no message" in refusal["message"]
    assert await read_history(hub, session) == ["news", "well?"]


async def test_an_editor_that_did_not_subscribe_receives_the_removal_first(hub: Hub) -> None:
    client = await begin(hub)
    chat = await say(client, "one")
    other = await hub.connect(extended=True)
    await other.send(type="edit", sessionId="s1", messageId=chat["messageId"], message="two", ref=1)
    await wait_for_end(other, (await find_reply(other, 1))["runId"])
    types = [frame["type"] for frame in other.frames if "seq" in frame]
    assert types == ["accepted", "message_removed", "user_message", "run_started", "stream", "run_finished"]


# --- repetition and concurrency ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["edit", "regenerate"])
async def test_a_repeated_client_msg_id_changes_nothing(hub: Hub, kind: str) -> None:
    """Also at the same time or after a restart: the response is equal. With another content the command is refused."""
    client = await begin(hub)
    chat = await say(client, "one")
    command = {"type": kind, "sessionId": "s1", "messageId": chat["messageId"], "clientMsgId": "k"}
    command |= {"message": "two"} if kind == "edit" else {}
    for ref in (1, 2):
        await client.send(**command, ref=ref)
    first, second = await find_reply(client, 1), await find_reply(client, 2)
    assert (first["status"], second["status"]) == ("started", "duplicate")
    await wait_for_end(client, first["runId"])
    await hub.stop()
    await hub.start()
    client = await hub.connect(extended=True)
    await client.send(**command, ref=3)
    third = await find_reply(client, 3)
    same = ("messageId", "runId", "seq", "clientMsgId")
    assert third["status"] == "duplicate" and [third[n] for n in same] == [first[n] for n in same]
    await client.send(**command | {"messageId": "m_other"}, ref=4)
    assert (await find_reply(client, 4))["code"] == "id_reused"
    await client.send(type="chat", agentId="echo", sessionId="s1", message="two", clientMsgId="k", ref=5)
    assert (await find_reply(client, 5))["code"] == "id_reused"
    assert (await read_kinds(hub)).count("message_removed") == 1 and is_consistent(await read_log(hub))


async def test_of_concurrent_edits_of_a_message_one_succeeds(hub: Hub) -> None:
    """The others get `unknown_message`, and the log is consistent."""
    client = await begin(hub)
    others = [await hub.connect(extended=True) for _ in range(5)]
    for turn in range(10):
        chat = await say(client, "one")
        for number, other in enumerate(others):
            await other.send(type="edit", sessionId="s1", messageId=chat["messageId"], message=f"{number}", ref=turn)
        answers = [await find_reply(other, turn) for other in others]
        assert sorted(answer.get("code", "") for answer in answers) == ["", *["unknown_message"] * 4]
        (run_id,) = [answer["runId"] for answer in answers if "runId" in answer]
        await wait_for_end(client, run_id)
    assert (await read_kinds(hub)).count("message_removed") == 10 and is_consistent(await read_log(hub))
    assert len(await read_history(hub)) == 20


async def test_many_concurrent_chats_edits_and_regenerates_leave_a_consistent_log(hub: Hub) -> None:
    """Each accepted command has one run with one end. The history has all messages that no event removed."""
    client = await begin(hub)
    chat = await say(client, "one")
    clients = [await hub.connect("?agentId=remembers", extended=True) for _ in range(6)]

    async def act(number: int, other: Client) -> list[str]:
        runs, target = [], chat["messageId"]
        for turn in range(8):
            command: dict[str, Any] = {"sessionId": "s1", "clientMsgId": f"{number}-{turn}", "ref": turn}
            kind = ("chat", "edit", "regenerate", "rollback")[(number + turn) % 4]
            if kind in ("chat", "rollback"):
                extra = {"ifBusy": "rollback"} if kind == "rollback" else {}
                await other.send(type="chat", agentId="remembers", message=f"{number}-{turn}", **command, **extra)
            else:
                await other.send(type=kind, messageId=target, message=f"{number}-{turn}", **command)
            answer = await find_reply(other, turn)
            if answer["type"] == "accepted":
                runs.append(answer["runId"])
                target = answer["messageId"]
            else:
                assert answer["code"] in ("unknown_message", "wrong_message"), answer
        return runs

    runs = [run for some in await asyncio.gather(*map(act, range(6), clients)) for run in some]
    for run in runs:
        await wait_for_end(client, run)
    events = await read_log(hub)
    assert is_consistent(events) and len(set(runs)) == len(runs)
    remaining: dict[str, None] = {}
    for event in events:
        if event.body.type == "message_removed":
            remaining = {name: None for name in remaining if name not in event.body.messageIds}
        elif event.body.type in ("user_message", "stream"):
            remaining[event.body.messageId] = None
    assert {m.messageId for m in await hub.node.log.sessions.read_last_messages(Key("s1"), 10_000, MiB)} == set(
        remaining
    )


async def test_a_chat_during_an_edit_is_admitted_after_it(hub: Hub) -> None:
    """The chat waits while the edit stops a run, and the edit does not remove it."""
    client = await begin(hub)
    gate = str(hub.folder / "gate")
    first = await start(client, "stubborn", gate)
    await client.send(type="edit", sessionId="s1", messageId=first["messageId"], message=gate, ref="e")
    await wait_until_stopping(hub, first["runId"])
    other = await hub.connect(extended=True)
    await other.send(type="chat", agentId="remembers", sessionId="s1", message="late", ref="c")
    async with asyncio.timeout(PATIENCE):  # until the chat waits for the edit
        while hub.node.sessions[Key("s1")].use_count < 2:
            await asyncio.sleep(0)
    (hub.folder / "gate").touch()
    edited, late = await find_reply(client, "e"), await find_reply(other, "c")
    assert edited["type"] == late["type"] == "accepted" and edited["seq"] < late["seq"]
    assert (await wait_for_end(client, late["runId"]))["stopReason"] == "end_turn"
    assert "late" in await read_history(hub) and is_consistent(await read_log(hub))


@pytest.mark.parametrize("is_removed", [False, True])
async def test_a_chat_that_waited_for_an_edit_is_answered_by_the_reloaded_agent(hub: Hub, is_removed: bool) -> None:
    client = await begin(hub)
    hub.agent("fresh.py", "async def fresh(message: str):\n    yield 'old'")
    await reload_agent_file(hub.node, "fresh")
    gate = hub.folder / "gate"
    first = await start(client, "stubborn", str(gate))
    await client.send(type="edit", sessionId="s1", messageId=first["messageId"], message=str(gate), ref="e")
    await wait_until_stopping(hub, first["runId"])
    other = await hub.connect(extended=True)
    await other.send(type="chat", agentId="fresh", sessionId="s1", message="late", ifBusy="parallel", ref="c")
    await eventually(lambda: hub.node.sessions[Key("s1")].use_count == 2)
    if is_removed:
        (hub.folder / "agents" / "fresh.py").unlink()
    else:
        hub.agent("fresh.py", "async def fresh(message: str):\n    yield 'newer'")
    await reload_agent_file(hub.node, "fresh")
    gate.touch()
    late = await find_reply(other, "c")
    if is_removed:
        assert late["code"] == "unknown_agent"
    else:
        await wait_for_end(other, late["runId"])
        assert other.text(late["runId"]) == "newer"


async def test_a_fork_that_waited_for_a_deletion_writes_nothing_into_the_next_session(hub: Hub) -> None:
    client = await begin(hub)
    chat = await say(client, "one")
    gate, read = asyncio.Event(), hub.node.log.sessions.read_messages_from

    async def delayed(*arguments: Any) -> Any:
        await gate.wait()
        return await read(*arguments)

    hub.node.log.sessions.read_messages_from = delayed  # type: ignore[method-assign, assignment]
    await hub.node.log.sessions.make(Key("f1"))
    async with hub.node.loader.use(Key("f1")) as old, aiohttp.ClientSession(f"{hub.url}/api/v1/") as http:
        editor, forker = await hub.connect(extended=True), await hub.connect(extended=True)
        await editor.send(type="edit", sessionId="f1", messageId="m_1", message="x", ref="e")
        await eventually(old.schedule.lock.locked)
        await forker.send(type="fork", sessionId="s1", messageId=chat["answerId"], newSessionId="f1", ref="f")
        await eventually(lambda: old.use_count == 3)
        assert (await call(http, "DELETE", "sessions/f1"))[0] == 204
        assert (await post(http, "sessions", {"sessionId": "f1"}))[0] == 201
        gate.set()
        assert (await find_reply(forker, "f"))["code"] == "session_deleted"
        assert await read_history(hub, "f1") == []


async def test_nothing_is_removed_while_the_log_fails(hub: Hub) -> None:
    """The error is `storage_unavailable`. The log does not change, and the same command succeeds later."""
    client = await begin(hub, retry_seconds=0.02)
    chat = await say(client, "one")
    before = await read_history(hub), await read_kinds(hub)
    log = hub.node.log.events
    original = log.append

    def failing(append: Append, done: AppendCallback) -> None:
        asyncio.get_running_loop().call_soon(done, StorageUnavailable("disk full"))

    edit = {"type": "edit", "sessionId": "s1", "messageId": chat["messageId"], "message": "two", "clientMsgId": "k"}
    fork = {"type": "fork", "sessionId": "s1", "messageId": chat["answerId"], "newSessionId": "f1"}
    log.append = failing  # type: ignore[method-assign]
    for number, command in enumerate((edit, {**edit, "type": "regenerate", "clientMsgId": "l"}, fork)):
        await client.send(**command, ref=number)
        assert (await find_reply(client, number))["code"] == "storage_unavailable"
    log.append = original  # type: ignore[method-assign]
    assert (await read_history(hub), await read_kinds(hub)) == before and await read_kinds(hub, "f1") == []
    await client.send(**fork, ref="f")
    assert (await find_reply(client, "f"))["type"] == "subscribed"
    await client.send(**edit, ref="e")
    accepted = await find_reply(client, "e")
    assert accepted["status"] == "started"
    await wait_for_end(client, accepted["runId"])
    assert await read_history(hub) == ["two", "[] two"] and is_consistent(await read_log(hub))


@pytest.mark.parametrize("command", ["edit", "regenerate", "rollback"])
async def test_nothing_is_removed_if_the_log_fails_while_the_command_stops_a_run(hub: Hub, command: str) -> None:
    """When the log works again, it gets the end of the run. The message and its text stay, and queued runs start."""
    client = await begin(hub, retry_seconds=0.02)
    gate = str(hub.folder / "gate")
    first, second = await start(client, "gated", gate), await start(client, "gated", gate)
    log = hub.node.log.events
    original = log.append

    def failing(append: Append, done: AppendCallback) -> None:
        asyncio.get_running_loop().call_soon(done, StorageUnavailable("disk full"))

    log.append = failing  # type: ignore[method-assign]
    frame = {"type": command, "sessionId": "s1", "messageId": first["messageId"], "message": "x", "ref": "e"}
    await client.send(**frame | ({"type": "chat", "ifBusy": "rollback"} if command == "rollback" else {}))
    assert (await find_reply(client, "e"))["code"] == "storage_unavailable"
    log.append = original  # type: ignore[method-assign]
    assert (await wait_for_end(client, first["runId"]))["stopReason"] == "cancelled"
    if command == "rollback":
        (hub.folder / "gate").touch()
        await wait_for_end(client, second["runId"])
    assert "message_removed" not in await read_kinds(hub)
    assert (await read_history(hub))[:3] == [gate, gate, "one "]


async def test_an_edit_after_a_refused_chat_does_not_hang(hub: Hub) -> None:
    """The edit waits for the commit of the chat, and goes on if the log refuses it."""
    client, other = await begin(hub), await hub.connect(extended=True)
    chat = await say(client, "one")
    log = hub.node.log.events
    original, callbacks = log.append, list[AppendCallback]()
    log.append = lambda append, done: callbacks.append(done)  # type: ignore[method-assign]
    await client.send(type="chat", agentId="echo", sessionId="s1", message="x", ref="c")
    async with asyncio.timeout(PATIENCE):
        while not callbacks:
            await asyncio.sleep(0)
    await other.send(type="edit", sessionId="s1", messageId=chat["messageId"], message="two", ref="e")
    async with asyncio.timeout(PATIENCE):
        while not hub.node.sessions[Key("s1")].schedule.lock.locked():
            await asyncio.sleep(0)
    log.append = original  # type: ignore[method-assign]
    callbacks[0](StorageUnavailable("disk full"))
    assert (await find_reply(client, "c"))["code"] == "storage_unavailable"
    await wait_for_end(other, (await find_reply(other, "e"))["runId"])
    assert await read_history(hub) == ["two", "[] two"] and is_consistent(await read_log(hub))


async def test_a_run_that_ends_while_the_history_is_read_is_removed_too(hub: Hub) -> None:
    """Its answer is after the edited message, so the edit reads the history again and removes the answer, too."""
    client = await begin(hub)
    before = await start(client, "gated", str(hub.folder / "gate"))
    edited = await say(client, "one", ifBusy="parallel")
    store = hub.node.log.sessions
    original, reads = store.read_messages_from, 0

    async def slow(*arguments: Any) -> Any:
        nonlocal reads
        messages = await original(*arguments)
        reads += 1
        if reads != 2:  # the first read finds the message, the second one plans the removal
            return messages
        (hub.folder / "gate").touch()
        async with asyncio.timeout(PATIENCE):
            while "one two" not in await read_history(hub):
                await asyncio.sleep(0)
        return messages

    store.read_messages_from = slow  # type: ignore[method-assign, assignment]
    await client.send(type="edit", sessionId="s1", messageId=edited["messageId"], message="new", ref="e")
    await wait_for_end(client, (await find_reply(client, "e"))["runId"])
    end = await wait_for_end(client, before["runId"])
    assert end["stopReason"] == "end_turn"
    removed = await client.find(lambda f: f["type"] == "message_removed")
    assert removed["messageIds"] == [edited["messageId"], edited["answerId"], end["messageId"]]
    assert await read_history(hub) == [str(hub.folder / "gate"), "new", f"[{hub.folder / 'gate'}] new"]


async def test_runs_that_could_start_during_an_edit_start_after_it(hub: Hub) -> None:
    """An agent gets a free slot during an edit: a run that waits for the slot starts after the edit."""
    hub.agent("single.py", SINGLE)
    client = await begin(hub)
    chat = await say(client, str(hub.folder), agent="single")
    await client.send(type="chat", agentId="single", sessionId="s2", message=str(hub.folder / "slot"))
    await client.until(lambda f: f["type"] == "run_started" and f["sessionId"] == "s2")
    await client.send(type="regenerate", sessionId="s1", messageId=chat["messageId"], ref="r")
    waiting = await find_reply(client, "r")
    assert waiting["status"] == "queued"
    first = await start(client, "stubborn", str(hub.folder / "gate"))
    edit = {"type": "edit", "sessionId": "s1", "messageId": first["messageId"], "agentId": "gated"}
    await client.send(**edit, message="never", ref="e")
    await wait_until_stopping(hub, first["runId"])
    (hub.folder / "slot").touch()
    await client.until(lambda f: f["type"] == "run_finished" and f["sessionId"] == "s2")
    (hub.folder / "gate").touch()
    assert (await find_reply(client, "e"))["status"] == "started"
    assert (await wait_for_end(client, waiting["runId"]))["stopReason"] == "end_turn"


async def test_a_regenerated_answer_waits_for_a_free_slot(hub: Hub) -> None:
    """The command is not refused, because it has already removed an answer. The run starts in the next free slot."""
    hub.agent("single.py", SINGLE)
    client = await begin(hub)
    chat = await say(client, str(hub.folder), agent="single")
    await client.send(type="chat", agentId="single", sessionId="s2", message=str(hub.folder / "gate"))
    await client.until(lambda f: f["type"] == "run_started" and f["sessionId"] == "s2")
    await client.send(type="regenerate", sessionId="s1", messageId=chat["messageId"], ref="r")
    accepted = await find_reply(client, "r")
    assert (accepted["type"], accepted["status"], accepted["position"]) == ("accepted", "queued", 1)
    (hub.folder / "gate").touch()
    assert (await wait_for_end(client, accepted["runId"]))["stopReason"] == "end_turn"


RELOADED = {
    "raised": ("max_runs=1", "max_runs=2", "end_turn"),
    "unlimited": ("(max_runs=1)", "", "end_turn"),
    "broken": ("yield", "yield yield", "error"),
    "gone": (SINGLE, "", "error"),
}


@pytest.mark.parametrize("change", RELOADED)
async def test_a_reload_wakes_a_run_that_waits_for_its_agent(hub: Hub, change: str) -> None:
    """The run starts if the new agent has a free slot, and fails if the agent is broken or removed."""
    hub.agent("single.py", SINGLE)
    client = await begin(hub)
    chat = await say(client, str(hub.folder), agent="single")
    await client.send(type="chat", agentId="single", sessionId="s2", message=str(hub.folder / "gate"))
    await client.until(lambda f: f["type"] == "run_started" and f["sessionId"] == "s2")
    await client.send(type="regenerate", sessionId="s1", messageId=chat["messageId"], ref="r")
    accepted = await find_reply(client, "r")
    assert accepted["status"] == "queued"
    old, new, reason = RELOADED[change]
    hub.agent("single.py", SINGLE.replace(old, new))
    if change == "gone":
        (hub.folder / "agents" / "single.py").unlink()
    await reload_agent_file(hub.node, "single")
    assert (await wait_for_end(client, accepted["runId"]))["stopReason"] == reason


async def test_a_draining_hub_removes_nothing(hub: Hub) -> None:
    """An edit that waits for the end of a run is refused with `draining`. After a restart the message is there."""
    client = await begin(hub)
    gate = str(hub.folder / "gate")
    first = await start(client, "stubborn", gate)
    await client.send(type="edit", sessionId="s1", messageId=first["messageId"], message="x", clientMsgId="k", ref="e")
    other = await hub.connect(extended=True)
    await other.send(type="subscribe", sessionId="s1")
    await other.until_type("subscribed")
    await wait_until_stopping(hub, first["runId"])
    hub.node.drain()
    (hub.folder / "gate").touch()
    assert (await find_reply(client, "e"))["code"] == "draining"
    assert (await wait_for_end(other, first["runId"]))["stopReason"] == "cancelled"
    await hub.stop()
    await hub.start()
    assert await read_history(hub) == [gate, "a "] and "message_removed" not in await read_kinds(hub)


async def open_client(hub: HubProcess) -> Client:
    http = aiohttp.ClientSession()
    ws = await http.ws_connect(f"{hub.url}/api/v1/ws", protocols=("hubbub.v1",), max_msg_size=0)
    return Client(http, ws)


async def test_after_a_kill_an_edit_is_complete_or_absent(tmp_path: Any) -> None:
    """A kill while the edit waits leaves the old message. A kill after `accepted` leaves the new one, with one run."""
    hub = HubProcess(tmp_path)
    hub.agent("stubborn.py", STUBBORN)
    await hub.start()
    try:
        client = await open_client(hub)
        first = await start(client, "stubborn", str(tmp_path / "gate"))
        edit = {"type": "edit", "sessionId": "s1", "messageId": first["messageId"], "clientMsgId": "k", "message": "b"}
        await client.send(**edit)
        await client.send(type="cancel", sessionId="s1")  # the hub handles it after the edit has begun to stop the run
        await hub.kill()
        await client.close()
        await hub.start()
        client = await open_client(hub)
        await client.send(type="subscribe", sessionId="s1", afterSeq=0)
        await wait_for_end(client, first["runId"])  # the start writes it, perhaps after the first connection
        await client.send(type="subscribe", sessionId="s1", history=9, ref="h")
        subscribed = await find_reply(client, "h")
        assert [message["content"] for message in subscribed["history"]] == [str(tmp_path / "gate"), "a "]
        await client.send(**edit, ref="e")
        accepted = await find_reply(client, "e")
        assert accepted["status"] == "started"
        await hub.kill()
        await client.close()
        await hub.start()
        client = await open_client(hub)
        await client.send(type="subscribe", sessionId="s1", afterSeq=0, history=9)
        subscribed = await client.until_type("subscribed")
        assert [message["content"] for message in subscribed["history"] if message["role"] == "user"] == ["b"]
        await wait_for_end(client, accepted["runId"])
        await client.send(**edit, ref="again")
        assert (await find_reply(client, "again"))["status"] == "duplicate"
        assert [f["type"] for f in client.frames].count("message_removed") == 1
        await client.close()
    finally:
        await hub.kill()


# --- rollback ---------------------------------------------------------------------------------------------------------


async def test_a_rollback_replaces_the_running_chat(hub: Hub) -> None:
    """Its message and answer are removed with the reason `rollback`. The new chat runs before the queued ones."""
    client = await begin(hub)
    gate = str(hub.folder / "gate")
    earlier = await say(client, "kept")
    running = await start(client, "gated", gate)
    queued = await start(client, "gated", gate)
    await client.send(type="chat", agentId="remembers", sessionId="s1", message="new", ifBusy="rollback", ref="r")
    accepted = await find_reply(client, "r")
    assert accepted["status"] == "started"
    removed = await client.find(lambda f: f["type"] == "message_removed")
    end = await wait_for_end(client, running["runId"])
    assert end["stopReason"] == "cancelled" and end["seq"] < removed["seq"] < accepted["seq"]
    assert removed["reason"] == "rollback"
    assert removed["messageIds"] == [running["messageId"], end["messageId"]]
    assert client.text((await wait_for_end(client, accepted["runId"]))["runId"]) == "[kept/[] kept] new"
    (hub.folder / "gate").touch()
    assert (await wait_for_end(client, queued["runId"]))["stopReason"] == "end_turn"
    started = [event.runId for event in await read_log(hub) if event.body.type == "run_started"]
    assert started == [earlier["runId"], running["runId"], accepted["runId"], queued["runId"]]
    assert is_consistent(await read_log(hub)) and running["messageId"] not in str(
        await hub.node.log.sessions.read_last_messages(Key("s1"), 9, MiB)
    )


async def test_a_rollback_without_a_running_answer_is_a_chat(hub: Hub) -> None:
    """It removes nothing. If the queue is full, the rollback is refused and stops nothing."""
    client = await begin(hub, queued_runs=1)
    await say(client, "one", ifBusy="rollback")
    assert "message_removed" not in await read_kinds(hub)
    gate = str(hub.folder / "gate")
    running, queued = await start(client, "gated", gate), await start(client, "gated", gate)
    await client.send(type="chat", agentId="echo", sessionId="s1", message="x", ifBusy="rollback", ref="r")
    assert (await find_reply(client, "r"))["code"] == "busy"
    (hub.folder / "gate").touch()
    for run in (running, queued):
        assert (await wait_for_end(client, run["runId"]))["stopReason"] == "end_turn"


# --- fork -------------------------------------------------------------------------------------------------------------


async def test_a_fork_copies_the_history_and_is_independent(hub: Hub) -> None:
    """It has the same messages with new seqs. The sender is subscribed to it, and the old session stays as it was."""
    client = await begin(hub)
    image = {"type": "image", "source": {"type": "url", "value": "https://example.org/a.png"}}
    first = await say(client, "one", parts=[image], metadata={"mood": "good"})
    await say(client, "two")
    before = await read_history(hub), await read_kinds(hub)
    await client.send(type="fork", sessionId="s1", messageId=first["answerId"], newSessionId="f1", ref="f")
    subscribed = await find_reply(client, "f")
    assert (subscribed["type"], subscribed["sessionId"], subscribed["seq"]) == ("subscribed", "f1", 2)
    assert await read_kinds(hub, "f1") == ["user_message", "message"]
    old, new = await hub.node.log.sessions.read_last_messages(
        Key("s1"), 2, MiB, first["answerId"]
    ), await hub.node.log.sessions.read_last_messages(Key("f1"), 9, MiB)
    same = ("messageId", "role", "content", "agentId", "author", "parts", "metadata", "userMessageId")
    assert [[getattr(m, n) for n in same] for m in old] == [[getattr(m, n) for n in same] for m in new]
    assert [m.seq for m in new] == [1, 2] and {m.runId for m in new} == {None} and new[0].parts == (image,)
    events = await read_log(hub, "f1")
    assert events[0].body.parts == (image,) and events[0].body.metadata == {"mood": "good"}
    await client.send(type="chat", agentId="remembers", sessionId="f1", message="more")
    await client.until(lambda f: f["type"] == "run_finished" and f["sessionId"] == "f1")
    assert await read_history(hub, "f1") == ["one", "[] one", "more", "[one/[] one] more"]
    await client.send(type="regenerate", sessionId="f1", messageId=first["answerId"], ref="r")
    await wait_for_end(client, (await find_reply(client, "r"))["runId"])
    assert await read_history(hub, "f1") == ["one", "[] one"]
    assert (await read_history(hub), await read_kinds(hub)) == before


async def test_a_fork_into_an_existing_session_is_refused(hub: Hub) -> None:
    """With `session_exists`, also the second of two concurrent forks. A session without events may be the target."""
    client, other = await begin(hub), await hub.connect(extended=True)
    chat = await say(client, "one")
    fork = {"type": "fork", "sessionId": "s1", "messageId": chat["answerId"]}
    await client.send(type="subscribe", sessionId="f1")
    for one in (client, other):
        await one.send(**fork, newSessionId="f1", ref="f")
    answers = [await find_reply(client, "f"), await find_reply(other, "f")]
    assert sorted(answer.get("code", "") for answer in answers) == ["", "session_exists"]
    assert await read_kinds(hub, "f1") == ["user_message", "message"]
    await client.send(**fork, newSessionId="s1", ref="s")
    assert (await find_reply(client, "s"))["code"] == "session_exists"
    await client.send(**fork, ref="n")
    subscribed = await find_reply(client, "n")
    assert subscribed["sessionId"].startswith("s_") and await read_history(hub, subscribed["sessionId"]) == [
        "one",
        "[] one",
    ]


@pytest.mark.parametrize("limit", [{"fork_messages": 3}, {"fork_bytes": 12}])
async def test_a_fork_copies_the_newest_messages_up_to_the_limit(hub: Hub, limit: dict[str, int]) -> None:
    """The limits are a number of messages and a number of bytes."""
    client = await begin(hub, **limit)
    chats = [await say(client, text, agent="echo") for text in ("abc", "def", "ghi")]
    await client.send(type="fork", sessionId="s1", messageId=chats[1]["answerId"], newSessionId="f1", ref="f")
    assert (await find_reply(client, "f"))["type"] == "subscribed"
    assert await read_history(hub, "f1") == ["abc ", "def", "def "]


async def test_a_fork_of_a_message_above_the_limit_is_refused(hub: Hub) -> None:
    client = await begin(hub, fork_bytes=2)
    chat = await say(client, "one")
    await client.send(type="fork", sessionId="s1", messageId=chat["messageId"], newSessionId="s2", ref="f")
    refused = await find_reply(client, "f")
    assert refused["code"] == "wrong_message" and "2 bytes" in refused["message"]
    assert await hub.node.log.sessions.find(Key("s2")) is None


async def test_a_fork_without_a_free_subscription_creates_no_session(hub: Hub) -> None:
    """Also while the hub drains."""
    client = await begin(hub, subscriptions=1)
    chat = await say(client, "one")
    fork = {"type": "fork", "sessionId": "s1", "messageId": chat["answerId"], "newSessionId": "f1"}
    await client.send(**fork, ref=1)
    assert (await find_reply(client, 1))["code"] == "too_many_subscriptions"
    await client.send(type="unsubscribe", sessionId="s1")
    hub.node.drain()
    await client.send(**fork, ref=2)
    assert (await find_reply(client, 2))["code"] == "draining"
    assert await hub.node.log.sessions.find(Key("f1")) is None


async def test_a_plain_client_receives_a_forks_history_as_messages(hub: Hub) -> None:
    """Each answer of an agent is one message without a run."""
    client = await begin(hub)
    chat = await say(client, "one")
    await client.send(type="fork", sessionId="s1", messageId=chat["answerId"], newSessionId="f1", ref="f")
    await find_reply(client, "f")
    plain = await hub.connect("?sessionId=f1&afterSeq=0")
    frame = await plain.next()
    assert (frame["type"], frame["content"], frame["messageId"]) == ("message", "[] one", chat["answerId"])
    assert "runId" not in frame


# --- over HTTP --------------------------------------------------------------------------------------------------------


async def test_edit_and_regenerate_work_over_http(hub: Hub) -> None:
    """They are the commands of the WebSocket, and everyone in the session gets their events. A key runs them once."""
    client = await begin(hub)
    said = await say(client, "one")
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        body = {"messageId": said["messageId"], "message": "two", "parts": [{"type": "text", "text": "more"}]}
        for expected in ("started", "duplicate"):
            status, edited = await post(http, "sessions/s1/edit", body, **{"Idempotency-Key": "k1"})
            assert (status, edited["type"], edited["status"]) == (202, "accepted", expected)
        removed = await client.until_type("message_removed")
        assert removed["messageIds"] == [said["messageId"], said["answerId"]]
        end = await wait_for_end(client, edited["runId"])
        status, again = await post(http, "sessions/s1/regenerate", {"messageId": end["messageId"]})
        assert (status, again["type"]) == (202, "accepted") and again["runId"] != edited["runId"]
        assert (await client.until_type("message_removed"))["messageIds"] == [end["messageId"]]
        last = await wait_for_end(client, again["runId"])
        _, page = await call(http, "GET", "sessions/s1/messages")
        assert [(one["messageId"], one["content"]) for one in page["data"]] == [
            (edited["messageId"], "two"),
            (last["messageId"], "[] two"),
        ]
        refused = await post(http, "sessions/s1/edit", {"messageId": last["messageId"], "message": "x"})
        assert (refused[0], refused[1]["code"]) == (409, "wrong_message")
        unknown = await post(http, "sessions/nothing/regenerate", {"messageId": "m"})
        assert (unknown[0], unknown[1]["code"]) == (404, "unknown_session")
        bad = await post(http, "sessions/s1/edit", {"message": "x"})
        assert (bad[0], bad[1]["code"]) == (400, "bad_frame")


async def test_fork_over_http_returns_the_new_session(hub: Hub) -> None:
    client = await begin(hub)
    said = await say(client, "one")
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/", timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        status, forked = await post(http, "sessions/s1/fork", {"messageId": said["messageId"]})
        assert (status, forked["state"], forked["seq"]) == (201, "idle", 1)
        assert (await call(http, "GET", f"sessions/{forked['sessionId']}")) == (200, forked)
        _, page = await call(http, "GET", f"sessions/{forked['sessionId']}/messages")
        assert [one["content"] for one in page["data"]] == ["one"]
        body = {"messageId": said["answerId"], "newSessionId": "s2"}
        assert (await post(http, "sessions/s1/fork", body))[1]["sessionId"] == "s2"
        refused = await post(http, "sessions/s1/fork", body)
        assert (refused[0], refused[1]["code"]) == (409, "session_exists")


async def test_typing_over_http_reaches_the_members_of_the_session(hub: Hub) -> None:
    client = await begin(hub)
    await client.send(type="subscribe", sessionId="s1")
    await client.until_type("subscribed")
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/") as http:
        assert await post(http, "sessions/s1/typing") == (204, None)
        assert (await client.until_type("typing"))["author"] == {"id": "local", "name": "local"}
        assert await post(http, "sessions/nobody-is-here/typing") == (204, None)


@pytest.mark.parametrize(("seconds", "count"), [(1000, 1), (1e-6, 5)])
async def test_typing_over_http_is_shown_at_most_once_in_a_while(hub: Hub, seconds: float, count: int) -> None:
    """HTTP has no rate limit for commands, and each notice goes to every member of the session."""
    await hub.start(presence_seconds=seconds)
    client = await hub.connect("?sessionId=s1", extended=True)
    other = await hub.connect("?sessionId=s1", extended=True)
    await hub.wait_until_live("s1", 2)
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/") as http:
        for _ in range(5):
            assert await post(http, "sessions/s1/typing") == (204, None)
    await other.send(type="chat", agentId="echo", sessionId="s1", message="hello")
    await client.until_done()
    assert len([frame for frame in client.frames if frame["type"] == "typing"]) == count

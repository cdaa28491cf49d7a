"""Taking back and branching: regenerate, edit, fork, and chats that roll back."""

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
from hub.sessions.run import RunState
from hub.storage.log import AppendCallback
from hub.storage.records import Append

REMEMBERS = """
    async def remembers(run):
        said = "/".join(past.content for past in run.history)
        yield f"[{said}] {run.message}"
    """
# Says "a ", and takes no notice of its end until the gate is there.
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
    """Chat with an agent; return once it has begun to speak."""
    await client.send(type="chat", agentId=agent, sessionId="s1", message=message, **extra)
    accepted = await client.until_type("accepted")
    if accepted["status"] == "started":
        await client.find(lambda f: f["type"] == "stream" and f["runId"] == accepted["runId"])
    return accepted


async def outcome(client: Client, ref: object) -> dict[str, Any]:
    return await client.find(lambda f: f.get("ref") == ref)


async def ended(client: Client, run_id: str) -> dict[str, Any]:
    return await client.find(lambda f: f["type"] == "run_finished" and f["runId"] == run_id)


async def stopping(hub: Hub, run_id: str) -> None:
    """Wait until a run is being stopped: whatever takes it back has begun."""
    async with asyncio.timeout(PATIENCE):
        while hub.node.sessions[Key("s1")].runs[run_id].state is not RunState.ENDING:
            await asyncio.sleep(0)


async def history(hub: Hub, session: str = "s1") -> list[str]:
    return [message.content for message in await hub.node.log.sessions.read_last_messages(Key(session), 100, MiB)]


async def logged(hub: Hub, session: str = "s1") -> list[Any]:
    events: list[Any] = []
    cursor = 0
    while page := await hub.node.log.events.read(Key(session), cursor, 10**6):
        events += page
        cursor = page[-1].seq
    return events


async def kinds(hub: Hub, session: str = "s1") -> list[str]:
    return [event.body.type for event in await logged(hub, session)]


def sound(events: list[Any]) -> bool:
    """Tell whether seq is dense, each run ends once and says no more, and each removal is of what was there."""
    said: set[str] = set()
    over: set[str] = set()
    for event in events:
        assert event.runId not in over
        if event.body.type == "run_finished":
            over.add(event.runId)
        if event.body.type == "message_removed":
            assert set(event.body.messageIds) <= said
            said -= set(event.body.messageIds)
        elif hasattr(event.body, "messageId"):
            said.add(event.body.messageId)
    return [event.seq for event in events] == list(range(1, len(events) + 1))


# --- regenerate -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["answerId", "messageId"])
async def test_regenerate_replaces_the_answer_and_all_later_messages(hub: Hub, name: str) -> None:
    """By the answer's id or its message's; one removal, no new user_message, and the agent sees nothing of it."""
    client = await begin(hub)
    first, second, third = [await say(client, text) for text in ("one", "two", "three")]
    await client.send(type="regenerate", sessionId="s1", messageId=second[name], ref="again")
    accepted = await outcome(client, "again")
    assert accepted["type"] == "accepted" and accepted["status"] == "started"
    assert accepted["messageId"] == second["messageId"]
    removed = await client.find(lambda f: f["type"] == "message_removed")
    assert removed["reason"] == "edited" and removed["seq"] == accepted["seq"]
    assert removed["messageIds"] == [second["answerId"], third["messageId"], third["answerId"]]
    await ended(client, accepted["runId"])
    assert client.text(accepted["runId"]) == "[one/[] one] two"
    assert await history(hub) == ["one", "[] one", "two", "[one/[] one] two"]
    assert (await kinds(hub)).count("user_message") == 3 and sound(await logged(hub))


async def test_another_agent_may_regenerate(hub: Hub) -> None:
    """The one that the command names; without a name, the one that answered."""
    client = await begin(hub)
    said = await say(client, "one")
    await client.send(type="regenerate", sessionId="s1", messageId=said["messageId"], agentId="echo", ref=1)
    await ended(client, (await outcome(client, 1))["runId"])
    assert await history(hub) == ["one", "one "]
    await client.send(type="regenerate", sessionId="s1", messageId=said["messageId"], ref=2)
    end = await ended(client, (await outcome(client, 2))["runId"])
    assert end["agentId"] == "echo" and await history(hub) == ["one", "one "]


async def test_regenerate_stops_a_running_answer(hub: Hub) -> None:
    """Its end is in the log before the removal, which names what it said."""
    client = await begin(hub)
    first = await start(client, "gated", str(hub.folder / "gate"))
    await client.send(type="regenerate", sessionId="s1", messageId=first["messageId"], ref=1)
    accepted = await outcome(client, 1)
    end = await ended(client, first["runId"])
    removed = await client.find(lambda f: f["type"] == "message_removed")
    assert end["stopReason"] == "cancelled" and removed["messageIds"] == [end["messageId"]]
    assert end["seq"] < removed["seq"] == accepted["seq"]
    (hub.folder / "gate").touch()
    await ended(client, accepted["runId"])
    assert await history(hub) == [str(hub.folder / "gate"), "one two"] and sound(await logged(hub))


# --- edit -------------------------------------------------------------------------------------------------------------


async def test_edit_replaces_a_message(hub: Hub) -> None:
    """It and all after it go, and the new one comes with its run, in one commit; the answer sees what was before."""
    client = await begin(hub)
    first, second, third = [await say(client, text) for text in ("one", "two", "three")]
    await client.send(type="edit", sessionId="s1", messageId=second["messageId"], message="zwei", ref="e")
    accepted = await outcome(client, "e")
    await ended(client, accepted["runId"])
    events = [f for f in client.frames if f.get("seq", 0) > third["seq"] and f["type"] != "accepted"]
    at = next(i for i, f in enumerate(events) if f["type"] == "message_removed")
    assert events[at]["messageIds"] == [second["messageId"], second["answerId"], third["messageId"], third["answerId"]]
    assert [f["type"] for f in events[at : at + 3]] == ["message_removed", "user_message", "run_started"]
    assert len({f["ts"] for f in events[at : at + 3]}) == 1 and events[at + 1]["seq"] == accepted["seq"]
    assert events[at + 1]["messageId"] == accepted["messageId"] != second["messageId"]
    assert client.text(accepted["runId"]) == "[one/[] one] zwei"
    assert await history(hub) == ["one", "[] one", "zwei", "[one/[] one] zwei"] and sound(await logged(hub))


async def test_edit_removes_later_queued_chats_and_keeps_earlier_ones(hub: Hub) -> None:
    """Runs of removed messages end cancelled, never having started; the earlier answer goes on, and is waited for."""
    client = await begin(hub)
    gate = str(hub.folder / "gate")
    before = await start(client, "gated", gate)
    edited, behind = [await start(client, "gated", gate) for _ in range(2)]
    await client.send(type="edit", sessionId="s1", messageId=edited["messageId"], message=f"{gate}", ref="e")
    accepted = await outcome(client, "e")
    assert accepted["status"] == "queued" and accepted["position"] == 1
    for run in (edited, behind):
        assert (await ended(client, run["runId"]))["stopReason"] == "cancelled"
    (hub.folder / "gate").touch()
    assert (await ended(client, before["runId"]))["stopReason"] == "end_turn"
    assert (await ended(client, accepted["runId"]))["stopReason"] == "end_turn"
    started = [event.runId for event in await logged(hub) if event.body.type == "run_started"]
    assert started == [before["runId"], accepted["runId"]]
    assert await history(hub) == [gate, gate, "one two", "one two"] and sound(await logged(hub))


async def test_a_plain_client_is_told_of_removed_messages(hub: Hub) -> None:
    """An error `message_removed` with the ids, then the new answer as ever."""
    extended = await begin(hub)
    said = await say(extended, "one")
    plain = await hub.connect("?sessionId=s1")
    await extended.send(type="edit", sessionId="s1", messageId=said["messageId"], message="two")
    await plain.until_done()
    assert [f["type"] for f in plain.frames] == ["error", "stream", "stream"]
    error = plain.frames[0]
    assert error["code"] == "message_removed" and error["messageIds"] == [said["messageId"], said["answerId"]]
    assert error["message"].startswith("discard these messages (edited)") and "runId" not in error
    assert plain.text() == "[] two"


async def test_the_refusal_names_a_message_that_cannot_be_removed(hub: Hub) -> None:
    """Unknown ones, an agent's to edit, one without an answer to regenerate, too many; nothing changes."""
    client = await begin(hub, taken_messages=3)
    hub.agent("silent.py", "async def silent(message: str):\n    yield ''")
    said = await say(client, "one")
    before = await kinds(hub)
    asked: list[tuple[dict[str, Any], str]] = [
        ({"type": "edit", "messageId": "nothing", "message": "x"}, "unknown_message"),
        ({"type": "regenerate", "messageId": "nothing"}, "unknown_message"),
        ({"type": "fork", "messageId": "nothing"}, "unknown_message"),
        ({"type": "edit", "messageId": said["answerId"], "message": "x"}, "wrong_message"),
        ({"type": "edit", "messageId": said["messageId"], "message": "x", "agentId": "nobody"}, "unknown_agent"),
        ({"type": "edit", "messageId": "not an id", "message": "x"}, "bad_id"),
        ({"type": "regenerate", "messageId": said["messageId"], "agentId": "nobody"}, "unknown_agent"),
    ]
    for number, (command, code) in enumerate(asked):
        await client.send(sessionId="s1", ref=number, **command)
        assert (await outcome(client, number))["code"] == code
    for kind in ("edit", "regenerate", "fork"):
        await client.send(type=kind, sessionId="s9", messageId="m_1", message="x", ref=kind)
        assert (await outcome(client, kind))["code"] == "unknown_session"
    assert await hub.node.log.sessions.find(Key("s9")) is None
    assert await kinds(hub) == before
    await say(client, "two")
    await client.send(type="edit", sessionId="s1", messageId=said["messageId"], message="x", ref="far")
    assert (await outcome(client, "far"))["code"] == "wrong_message"


async def test_an_answer_without_text_is_regenerated(hub: Hub) -> None:
    """By the agent that failed; nothing goes but that answer, and what came after the message."""
    hub.agent("fails.py", "async def fails(message: str):\n    raise ValueError\n    yield ''")
    client = await begin(hub)
    await say(client, "zero")
    said = await say(client, "one", "fails")
    await say(client, "two")
    await client.send(type="regenerate", sessionId="s1", messageId=said["messageId"], ref=1)
    again = await outcome(client, 1)
    removed = await client.find(lambda f: f["type"] == "message_removed")
    assert removed["seq"] == again["seq"] and removed["messageIds"][0] == said["answerId"]
    assert len(removed["messageIds"]) == 3
    failed = await ended(client, again["runId"])
    await client.send(type="regenerate", sessionId="s1", messageId=said["messageId"], ref="once more")
    again = await outcome(client, "once more")
    removed = await client.find(lambda f: f["type"] == "message_removed" and f["seq"] == again["seq"])
    assert removed["messageIds"] == [failed["messageId"]]
    failed = await ended(client, again["runId"])
    assert (failed["agentId"], failed["stopReason"]) == ("fails", "error")
    assert await history(hub) == ["zero", "[] zero", "one", ""]
    await client.send(type="edit", sessionId="s1", messageId=said["messageId"], message="uno", ref=2)
    assert (await ended(client, (await outcome(client, 2))["runId"]))["agentId"] == "fails"


async def test_the_answer_of_another_message_does_not_name_the_failed_agent(hub: Hub) -> None:
    """One that waited, and so began after the message."""
    hub.agent("fails.py", "async def fails(message: str):\n    raise ValueError\n    yield ''")
    client = await begin(hub)
    gate = hub.folder / "gate"
    await start(client, "stubborn", str(gate))
    for agent in ("remembers", "fails"):
        await client.send(type="chat", agentId=agent, sessionId="s1", message=agent, ifBusy="enqueue")
        said = await client.until_type("accepted")
    gate.touch()
    await ended(client, said["runId"])
    await client.send(type="regenerate", sessionId="s1", messageId=said["messageId"], ref=1)
    assert (await ended(client, (await outcome(client, 1))["runId"]))["agentId"] == "fails"


async def test_a_message_without_an_agent_can_be_edited_but_not_regenerated(hub: Hub) -> None:
    """The last message of a fork; the agent of an edit is then the connection's."""
    client = await begin(hub)
    said = await say(client, "one")
    await client.send(type="fork", sessionId="s1", messageId=said["messageId"], newSessionId="f1", ref=0)
    await outcome(client, 0)
    await client.send(type="regenerate", sessionId="f1", messageId=said["messageId"], ref=1)
    assert (await outcome(client, 1))["code"] == "wrong_message"
    await client.send(type="edit", sessionId="f1", messageId=said["messageId"], message="two", ref=2)
    assert (await ended(client, (await outcome(client, 2))["runId"]))["agentId"] == "remembers"
    assert await history(hub, "f1") == ["two", "[] two"]


async def test_an_editor_that_did_not_subscribe_receives_the_removal_first(hub: Hub) -> None:
    client = await begin(hub)
    said = await say(client, "one")
    other = await hub.connect(extended=True)
    await other.send(type="edit", sessionId="s1", messageId=said["messageId"], message="two", ref=1)
    await ended(other, (await outcome(other, 1))["runId"])
    heard = [frame["type"] for frame in other.frames if "seq" in frame]
    assert heard == ["accepted", "message_removed", "user_message", "run_started", "stream", "run_finished"]


# --- once, and together -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["edit", "regenerate"])
async def test_a_client_msg_id_rewrites_once(hub: Hub, kind: str) -> None:
    """Again, together and after a restart, it gets the same answer; with other content, or as a chat, it is refused."""
    client = await begin(hub)
    said = await say(client, "one")
    command = {"type": kind, "sessionId": "s1", "messageId": said["messageId"], "clientMsgId": "k"}
    command |= {"message": "two"} if kind == "edit" else {}
    for ref in (1, 2):
        await client.send(**command, ref=ref)
    first, second = await outcome(client, 1), await outcome(client, 2)
    assert (first["status"], second["status"]) == ("started", "duplicate")
    await ended(client, first["runId"])
    await hub.stop()
    await hub.start()
    client = await hub.connect(extended=True)
    await client.send(**command, ref=3)
    third = await outcome(client, 3)
    same = ("messageId", "runId", "seq", "clientMsgId")
    assert third["status"] == "duplicate" and [third[n] for n in same] == [first[n] for n in same]
    await client.send(**command | {"messageId": "m_other"}, ref=4)
    assert (await outcome(client, 4))["code"] == "id_reused"
    await client.send(type="chat", agentId="echo", sessionId="s1", message="two", clientMsgId="k", ref=5)
    assert (await outcome(client, 5))["code"] == "id_reused"
    assert (await kinds(hub)).count("message_removed") == 1 and sound(await logged(hub))


async def test_the_second_of_two_concurrent_edits_finds_no_message(hub: Hub) -> None:
    """Many at a time: one lands, the others hear `unknown_message`, and the log is sound."""
    client = await begin(hub)
    others = [await hub.connect(extended=True) for _ in range(5)]
    for turn in range(10):
        said = await say(client, "one")
        for number, other in enumerate(others):
            await other.send(type="edit", sessionId="s1", messageId=said["messageId"], message=f"{number}", ref=turn)
        answers = [await outcome(other, turn) for other in others]
        assert sorted(answer.get("code", "") for answer in answers) == ["", *["unknown_message"] * 4]
        (run_id,) = [answer["runId"] for answer in answers if "runId" in answer]
        await ended(client, run_id)
    assert (await kinds(hub)).count("message_removed") == 10 and sound(await logged(hub))
    assert len(await history(hub)) == 20


async def test_many_concurrent_chats_edits_and_regenerates_leave_a_consistent_log(hub: Hub) -> None:
    """Each accepted command has its run, which ends once; what is gone from the history was said to be gone."""
    client = await begin(hub)
    said = await say(client, "one")
    crowd = [await hub.connect("?agentId=remembers", extended=True) for _ in range(6)]

    async def act(number: int, other: Client) -> list[str]:
        runs, target = [], said["messageId"]
        for turn in range(8):
            command: dict[str, Any] = {"sessionId": "s1", "clientMsgId": f"{number}-{turn}", "ref": turn}
            kind = ("chat", "edit", "regenerate", "rollback")[(number + turn) % 4]
            if kind in ("chat", "rollback"):
                extra = {"ifBusy": "rollback"} if kind == "rollback" else {}
                await other.send(type="chat", agentId="remembers", message=f"{number}-{turn}", **command, **extra)
            else:
                await other.send(type=kind, messageId=target, message=f"{number}-{turn}", **command)
            answer = await outcome(other, turn)
            if answer["type"] == "accepted":
                runs.append(answer["runId"])
                target = answer["messageId"]
            else:
                assert answer["code"] in ("unknown_message", "wrong_message"), answer
        return runs

    runs = [run for some in await asyncio.gather(*map(act, range(6), crowd)) for run in some]
    for run in runs:
        await ended(client, run)
    events = await logged(hub)
    assert sound(events) and len(set(runs)) == len(runs)
    there: dict[str, None] = {}
    for event in events:
        if event.body.type == "message_removed":
            there = {name: None for name in there if name not in event.body.messageIds}
        elif event.body.type in ("user_message", "stream"):
            there[event.body.messageId] = None
    assert {m.messageId for m in await hub.node.log.sessions.read_last_messages(Key("s1"), 10_000, MiB)} == set(there)


async def test_a_chat_during_an_edit_is_admitted_after_it(hub: Hub) -> None:
    """It waits for the stubborn run's end, is kept, and is not taken back."""
    client = await begin(hub)
    gate = str(hub.folder / "gate")
    first = await start(client, "stubborn", gate)
    await client.send(type="edit", sessionId="s1", messageId=first["messageId"], message=gate, ref="e")
    await stopping(hub, first["runId"])
    other = await hub.connect(extended=True)
    await other.send(type="chat", agentId="remembers", sessionId="s1", message="late", ref="c")
    async with asyncio.timeout(PATIENCE):  # until it waits at the door
        while hub.node.sessions[Key("s1")].use_count < 2:
            await asyncio.sleep(0)
    (hub.folder / "gate").touch()
    edited, late = await outcome(client, "e"), await outcome(other, "c")
    assert edited["type"] == late["type"] == "accepted" and edited["seq"] < late["seq"]
    assert (await ended(client, late["runId"]))["stopReason"] == "end_turn"
    assert "late" in await history(hub) and sound(await logged(hub))


@pytest.mark.parametrize("gone", [False, True])
async def test_a_chat_that_waited_for_an_edit_is_answered_by_the_reloaded_agent(hub: Hub, gone: bool) -> None:
    client = await begin(hub)
    hub.agent("fresh.py", "async def fresh(message: str):\n    yield 'old'")
    await reload_agent_file(hub.node, "fresh")
    gate = hub.folder / "gate"
    first = await start(client, "stubborn", str(gate))
    await client.send(type="edit", sessionId="s1", messageId=first["messageId"], message=str(gate), ref="e")
    await stopping(hub, first["runId"])
    other = await hub.connect(extended=True)
    await other.send(type="chat", agentId="fresh", sessionId="s1", message="late", ifBusy="parallel", ref="c")
    await eventually(lambda: hub.node.sessions[Key("s1")].use_count == 2)
    if gone:
        (hub.folder / "agents" / "fresh.py").unlink()
    else:
        hub.agent("fresh.py", "async def fresh(message: str):\n    yield 'newer'")
    await reload_agent_file(hub.node, "fresh")
    gate.touch()
    late = await outcome(other, "c")
    if gone:
        assert late["code"] == "unknown_agent"
    else:
        await ended(other, late["runId"])
        assert other.text(late["runId"]) == "newer"


async def test_a_fork_that_waited_for_a_deletion_writes_nothing_into_the_next_session(hub: Hub) -> None:
    client = await begin(hub)
    said = await say(client, "one")
    gate, trail = asyncio.Event(), hub.node.log.sessions.read_messages_from

    async def held(*asked: Any) -> Any:
        await gate.wait()
        return await trail(*asked)

    hub.node.log.sessions.read_messages_from = held  # type: ignore[method-assign, assignment]
    await hub.node.log.sessions.make(Key("f1"))
    async with hub.node.use(Key("f1")) as old, aiohttp.ClientSession(f"{hub.url}/api/v1/") as http:
        editor, forker = await hub.connect(extended=True), await hub.connect(extended=True)
        await editor.send(type="edit", sessionId="f1", messageId="m_1", message="x", ref="e")
        await eventually(old.schedule.lock.locked)
        await forker.send(type="fork", sessionId="s1", messageId=said["answerId"], newSessionId="f1", ref="f")
        await eventually(lambda: old.use_count == 3)
        assert (await call(http, "DELETE", "sessions/f1"))[0] == 204
        assert (await post(http, "sessions", {"sessionId": "f1"}))[0] == 201
        gate.set()
        assert (await outcome(forker, "f"))["code"] == "session_deleted"
        assert await history(hub, "f1") == []


async def test_nothing_is_removed_while_the_log_fails(hub: Hub) -> None:
    """`storage_unavailable`; the history and the log are as before, and the same command works when it can."""
    client = await begin(hub, retry_seconds=0.02)
    said = await say(client, "one")
    before = await history(hub), await kinds(hub)
    log = hub.node.log.events
    whole = log.append

    def failing(append: Append, done: AppendCallback) -> None:
        asyncio.get_running_loop().call_soon(done, StorageUnavailable("disk full"))

    edit = {"type": "edit", "sessionId": "s1", "messageId": said["messageId"], "message": "two", "clientMsgId": "k"}
    fork = {"type": "fork", "sessionId": "s1", "messageId": said["answerId"], "newSessionId": "f1"}
    log.append = failing  # type: ignore[method-assign]
    for number, command in enumerate((edit, {**edit, "type": "regenerate", "clientMsgId": "l"}, fork)):
        await client.send(**command, ref=number)
        assert (await outcome(client, number))["code"] == "storage_unavailable"
    log.append = whole  # type: ignore[method-assign]
    assert (await history(hub), await kinds(hub)) == before and await kinds(hub, "f1") == []
    await client.send(**fork, ref="f")
    assert (await outcome(client, "f"))["type"] == "subscribed"
    await client.send(**edit, ref="e")
    accepted = await outcome(client, "e")
    assert accepted["status"] == "started"
    await ended(client, accepted["runId"])
    assert await history(hub) == ["two", "[] two"] and sound(await logged(hub))


@pytest.mark.parametrize("command", ["edit", "regenerate", "rollback"])
async def test_nothing_is_removed_if_the_log_fails_while_a_run_is_stopped(hub: Hub, command: str) -> None:
    """The run has its end as soon as the log can be written, with its text; the message stays, the queue goes on."""
    client = await begin(hub, retry_seconds=0.02)
    gate = str(hub.folder / "gate")
    first, second = await start(client, "gated", gate), await start(client, "gated", gate)
    log = hub.node.log.events
    whole = log.append

    def failing(append: Append, done: AppendCallback) -> None:
        asyncio.get_running_loop().call_soon(done, StorageUnavailable("disk full"))

    log.append = failing  # type: ignore[method-assign]
    frame = {"type": command, "sessionId": "s1", "messageId": first["messageId"], "message": "x", "ref": "e"}
    await client.send(**frame | ({"type": "chat", "ifBusy": "rollback"} if command == "rollback" else {}))
    assert (await outcome(client, "e"))["code"] == "storage_unavailable"
    log.append = whole  # type: ignore[method-assign]
    assert (await ended(client, first["runId"]))["stopReason"] == "cancelled"
    if command == "rollback":
        (hub.folder / "gate").touch()
        await ended(client, second["runId"])
    assert "message_removed" not in await kinds(hub)
    assert (await history(hub))[:3] == [gate, gate, "one "]


async def test_an_edit_after_a_refused_chat_does_not_hang(hub: Hub) -> None:
    """It waits for the chat's commit; where that fails it goes on, and is refused itself or done."""
    client, other = await begin(hub), await hub.connect(extended=True)
    said = await say(client, "one")
    log = hub.node.log.events
    whole, held = log.append, list[AppendCallback]()
    log.append = lambda append, done: held.append(done)  # type: ignore[method-assign]
    await client.send(type="chat", agentId="echo", sessionId="s1", message="x", ref="c")
    async with asyncio.timeout(PATIENCE):
        while not held:
            await asyncio.sleep(0)
    await other.send(type="edit", sessionId="s1", messageId=said["messageId"], message="two", ref="e")
    async with asyncio.timeout(PATIENCE):
        while not hub.node.sessions[Key("s1")].schedule.lock.locked():
            await asyncio.sleep(0)
    log.append = whole  # type: ignore[method-assign]
    held[0](StorageUnavailable("disk full"))
    assert (await outcome(client, "c"))["code"] == "storage_unavailable"
    await ended(other, (await outcome(other, "e"))["runId"])
    assert await history(hub) == ["two", "[] two"] and sound(await logged(hub))


async def test_a_run_that_ends_while_the_history_is_read_is_removed_too(hub: Hub) -> None:
    """Its answer stands behind the edited message; what was read before it ended is read again."""
    client = await begin(hub)
    before = await start(client, "gated", str(hub.folder / "gate"))
    edited = await say(client, "one", ifBusy="parallel")
    store = hub.node.log.sessions
    whole, reads = store.read_messages_from, 0

    async def slow(*asked: Any) -> Any:
        nonlocal reads
        found = await whole(*asked)
        reads += 1
        if reads != 2:  # the first is to look, the second to act
            return found
        (hub.folder / "gate").touch()
        async with asyncio.timeout(PATIENCE):
            while "one two" not in await history(hub):
                await asyncio.sleep(0)
        return found

    store.read_messages_from = slow  # type: ignore[method-assign, assignment]
    await client.send(type="edit", sessionId="s1", messageId=edited["messageId"], message="new", ref="e")
    await ended(client, (await outcome(client, "e"))["runId"])
    end = await ended(client, before["runId"])
    assert end["stopReason"] == "end_turn"
    removed = await client.find(lambda f: f["type"] == "message_removed")
    assert removed["messageIds"] == [edited["messageId"], edited["answerId"], end["messageId"]]
    assert await history(hub) == [str(hub.folder / "gate"), "new", f"[{hub.folder / 'gate'}] new"]


async def test_runs_that_could_start_during_an_edit_start_after_it(hub: Hub) -> None:
    """An agent gets room while another answer is being taken back: who waited for it is not forgotten."""
    hub.agent("single.py", SINGLE)
    client = await begin(hub)
    said = await say(client, str(hub.folder), agent="single")
    await client.send(type="chat", agentId="single", sessionId="s2", message=str(hub.folder / "room"))
    await client.until(lambda f: f["type"] == "run_started" and f["sessionId"] == "s2")
    await client.send(type="regenerate", sessionId="s1", messageId=said["messageId"], ref="r")
    waiting = await outcome(client, "r")
    assert waiting["status"] == "queued"
    first = await start(client, "stubborn", str(hub.folder / "gate"))
    edit = {"type": "edit", "sessionId": "s1", "messageId": first["messageId"], "agentId": "gated"}
    await client.send(**edit, message="never", ref="e")
    await stopping(hub, first["runId"])
    (hub.folder / "room").touch()
    await client.until(lambda f: f["type"] == "run_finished" and f["sessionId"] == "s2")
    (hub.folder / "gate").touch()
    assert (await outcome(client, "e"))["status"] == "started"
    assert (await ended(client, waiting["runId"]))["stopReason"] == "end_turn"


async def test_the_new_answer_waits_for_a_full_agent(hub: Hub) -> None:
    """It is not refused, for what was stopped cannot be given back; it starts when the agent has room."""
    hub.agent("single.py", SINGLE)
    client = await begin(hub)
    said = await say(client, str(hub.folder), agent="single")
    await client.send(type="chat", agentId="single", sessionId="s2", message=str(hub.folder / "gate"))
    await client.until(lambda f: f["type"] == "run_started" and f["sessionId"] == "s2")
    await client.send(type="regenerate", sessionId="s1", messageId=said["messageId"], ref="r")
    accepted = await outcome(client, "r")
    assert (accepted["type"], accepted["status"], accepted["position"]) == ("accepted", "queued", 1)
    (hub.folder / "gate").touch()
    assert (await ended(client, accepted["runId"]))["stopReason"] == "end_turn"


RELOADED = {
    "raised": ("max_runs=1", "max_runs=2", "end_turn"),
    "unlimited": ("(max_runs=1)", "", "end_turn"),
    "broken": ("yield", "yield yield", "error"),
    "gone": (SINGLE, "", "error"),
}


@pytest.mark.parametrize("change", RELOADED)
async def test_a_reload_wakes_a_run_that_waits_for_its_agent(hub: Hub, change: str) -> None:
    """It starts if the agent has room now, and fails if the agent is broken or gone."""
    hub.agent("single.py", SINGLE)
    client = await begin(hub)
    said = await say(client, str(hub.folder), agent="single")
    await client.send(type="chat", agentId="single", sessionId="s2", message=str(hub.folder / "gate"))
    await client.until(lambda f: f["type"] == "run_started" and f["sessionId"] == "s2")
    await client.send(type="regenerate", sessionId="s1", messageId=said["messageId"], ref="r")
    accepted = await outcome(client, "r")
    assert accepted["status"] == "queued"
    old, new, reason = RELOADED[change]
    hub.agent("single.py", SINGLE.replace(old, new))
    if change == "gone":
        (hub.folder / "agents" / "single.py").unlink()
    await reload_agent_file(hub.node, "single")
    assert (await ended(client, accepted["runId"]))["stopReason"] == reason


async def test_a_draining_hub_removes_nothing(hub: Hub) -> None:
    """An edit that waits for a run's end hears `draining`; the message stays, and a new hub has it."""
    client = await begin(hub)
    gate = str(hub.folder / "gate")
    first = await start(client, "stubborn", gate)
    await client.send(type="edit", sessionId="s1", messageId=first["messageId"], message="x", clientMsgId="k", ref="e")
    other = await hub.connect(extended=True)
    await other.send(type="subscribe", sessionId="s1")
    await other.until_type("subscribed")
    await stopping(hub, first["runId"])
    hub.node.drain()
    (hub.folder / "gate").touch()
    assert (await outcome(client, "e"))["code"] == "draining"
    assert (await ended(other, first["runId"]))["stopReason"] == "cancelled"
    await hub.stop()
    await hub.start()
    assert await history(hub) == [gate, "a "] and "message_removed" not in await kinds(hub)


async def open_client(hub: HubProcess) -> Client:
    http = aiohttp.ClientSession()
    ws = await http.ws_connect(f"{hub.url}/api/v1/ws", protocols=("hubbub.v1",), max_msg_size=0)
    return Client(http, ws)


async def test_after_a_kill_an_edit_is_complete_or_absent(tmp_path: Any) -> None:
    """Killed while an edit waits, the message is there still; killed after `accepted`, the edit is, and runs once."""
    hub = HubProcess(tmp_path)
    hub.agent("stubborn.py", STUBBORN)
    await hub.start()
    try:
        client = await open_client(hub)
        first = await start(client, "stubborn", str(tmp_path / "gate"))
        edit = {"type": "edit", "sessionId": "s1", "messageId": first["messageId"], "clientMsgId": "k", "message": "b"}
        await client.send(**edit)
        await client.send(type="cancel", sessionId="s1")  # it is answered when the edit has stopped the run
        await hub.kill()
        await client.close()
        await hub.start()
        client = await open_client(hub)
        await client.send(type="subscribe", sessionId="s1", afterSeq=0)
        await ended(client, first["runId"])  # by the start, which may be done before its end is in the log
        await client.send(type="subscribe", sessionId="s1", history=9, ref="h")
        told = await outcome(client, "h")
        assert [message["content"] for message in told["history"]] == [str(tmp_path / "gate"), "a "]
        await client.send(**edit, ref="e")
        accepted = await outcome(client, "e")
        assert accepted["status"] == "started"
        await hub.kill()
        await client.close()
        await hub.start()
        client = await open_client(hub)
        await client.send(type="subscribe", sessionId="s1", afterSeq=0, history=9)
        told = await client.until_type("subscribed")
        assert [message["content"] for message in told["history"] if message["role"] == "user"] == ["b"]
        await ended(client, accepted["runId"])
        await client.send(**edit, ref="again")
        assert (await outcome(client, "again"))["status"] == "duplicate"
        assert [f["type"] for f in client.frames].count("message_removed") == 1
        await client.close()
    finally:
        await hub.kill()


# --- rollback ---------------------------------------------------------------------------------------------------------


async def test_a_rollback_replaces_the_running_chat(hub: Hub) -> None:
    """Its message and answer go, for the reason `rollback`; the new chat is next, and the queued stay queued."""
    client = await begin(hub)
    gate = str(hub.folder / "gate")
    kept = await say(client, "kept")
    running = await start(client, "gated", gate)
    queued = await start(client, "gated", gate)
    await client.send(type="chat", agentId="remembers", sessionId="s1", message="new", ifBusy="rollback", ref="r")
    accepted = await outcome(client, "r")
    assert accepted["status"] == "started"
    removed = await client.find(lambda f: f["type"] == "message_removed")
    end = await ended(client, running["runId"])
    assert end["stopReason"] == "cancelled" and end["seq"] < removed["seq"] < accepted["seq"]
    assert removed["reason"] == "rollback"
    assert removed["messageIds"] == [running["messageId"], end["messageId"]]
    assert client.text((await ended(client, accepted["runId"]))["runId"]) == "[kept/[] kept] new"
    (hub.folder / "gate").touch()
    assert (await ended(client, queued["runId"]))["stopReason"] == "end_turn"
    started = [event.runId for event in await logged(hub) if event.body.type == "run_started"]
    assert started == [kept["runId"], running["runId"], accepted["runId"], queued["runId"]]
    assert sound(await logged(hub)) and running["messageId"] not in str(
        await hub.node.log.sessions.read_last_messages(Key("s1"), 9, MiB)
    )


async def test_a_rollback_without_a_run_is_a_chat(hub: Hub) -> None:
    """Where nothing is being answered nothing is removed; where the queue is full, nothing is stopped either."""
    client = await begin(hub, queued_runs=1)
    await say(client, "one", ifBusy="rollback")
    assert "message_removed" not in await kinds(hub)
    gate = str(hub.folder / "gate")
    running, queued = await start(client, "gated", gate), await start(client, "gated", gate)
    await client.send(type="chat", agentId="echo", sessionId="s1", message="x", ifBusy="rollback", ref="r")
    assert (await outcome(client, "r"))["code"] == "busy"
    (hub.folder / "gate").touch()
    for run in (running, queued):
        assert (await ended(client, run["runId"]))["stopReason"] == "end_turn"


# --- fork -------------------------------------------------------------------------------------------------------------


async def test_a_fork_copies_the_history_and_is_independent(hub: Hub) -> None:
    """Same messages by the same authors, numbered anew; the sender hears it; the old session is as it was."""
    client = await begin(hub)
    image = {"type": "image", "source": {"type": "url", "value": "https://example.org/a.png"}}
    first = await say(client, "one", parts=[image], metadata={"mood": "good"})
    await say(client, "two")
    before = await history(hub), await kinds(hub)
    await client.send(type="fork", sessionId="s1", messageId=first["answerId"], newSessionId="f1", ref="f")
    told = await outcome(client, "f")
    assert (told["type"], told["sessionId"], told["seq"]) == ("subscribed", "f1", 2)
    assert await kinds(hub, "f1") == ["user_message", "message"]
    old, new = await hub.node.log.sessions.read_last_messages(
        Key("s1"), 2, MiB, first["answerId"]
    ), await hub.node.log.sessions.read_last_messages(Key("f1"), 9, MiB)
    same = ("messageId", "role", "content", "agentId", "author", "parts", "metadata", "userMessageId")
    assert [[getattr(m, n) for n in same] for m in old] == [[getattr(m, n) for n in same] for m in new]
    assert [m.seq for m in new] == [1, 2] and {m.runId for m in new} == {None} and new[0].parts == (image,)
    events = await logged(hub, "f1")
    assert events[0].body.parts == (image,) and events[0].body.metadata == {"mood": "good"}
    await client.send(type="chat", agentId="remembers", sessionId="f1", message="more")
    await client.until(lambda f: f["type"] == "run_finished" and f["sessionId"] == "f1")
    assert await history(hub, "f1") == ["one", "[] one", "more", "[one/[] one] more"]
    await client.send(type="regenerate", sessionId="f1", messageId=first["answerId"], ref="r")
    await ended(client, (await outcome(client, "r"))["runId"])
    assert await history(hub, "f1") == ["one", "[] one"]
    assert (await history(hub), await kinds(hub)) == before


async def test_a_fork_into_an_existing_session_is_refused(hub: Hub) -> None:
    """`session_exists`; of two at once one lands; a session in which nothing was said yet may be taken."""
    client, other = await begin(hub), await hub.connect(extended=True)
    said = await say(client, "one")
    fork = {"type": "fork", "sessionId": "s1", "messageId": said["answerId"]}
    await client.send(type="subscribe", sessionId="f1")
    for one in (client, other):
        await one.send(**fork, newSessionId="f1", ref="f")
    answers = [await outcome(client, "f"), await outcome(other, "f")]
    assert sorted(answer.get("code", "") for answer in answers) == ["", "session_exists"]
    assert await kinds(hub, "f1") == ["user_message", "message"]
    await client.send(**fork, newSessionId="s1", ref="s")
    assert (await outcome(client, "s"))["code"] == "session_exists"
    await client.send(**fork, ref="n")
    told = await outcome(client, "n")
    assert told["sessionId"].startswith("s_") and await history(hub, told["sessionId"]) == ["one", "[] one"]


@pytest.mark.parametrize("limit", [{"fork_messages": 3}, {"fork_bytes": 12}])
async def test_a_fork_copies_the_newest_messages_up_to_the_limit(hub: Hub, limit: dict[str, int]) -> None:
    """Older messages are left out, by their number and by their size."""
    client = await begin(hub, **limit)
    said = [await say(client, text, agent="echo") for text in ("abc", "def", "ghi")]
    await client.send(type="fork", sessionId="s1", messageId=said[1]["answerId"], newSessionId="f1", ref="f")
    assert (await outcome(client, "f"))["type"] == "subscribed"
    assert await history(hub, "f1") == ["abc ", "def", "def "]


async def test_a_fork_of_one_too_large_message_is_refused(hub: Hub) -> None:
    client = await begin(hub, fork_bytes=2)
    said = await say(client, "one")
    await client.send(type="fork", sessionId="s1", messageId=said["messageId"], newSessionId="s2", ref="f")
    refused = await outcome(client, "f")
    assert refused["code"] == "wrong_message" and "2 bytes" in refused["message"]
    assert await hub.node.log.sessions.find(Key("s2")) is None


async def test_a_fork_without_a_free_subscription_creates_no_session(hub: Hub) -> None:
    """One subscription too many, or a hub that goes down."""
    client = await begin(hub, subscriptions=1)
    said = await say(client, "one")
    fork = {"type": "fork", "sessionId": "s1", "messageId": said["answerId"], "newSessionId": "f1"}
    await client.send(**fork, ref=1)
    assert (await outcome(client, 1))["code"] == "too_many_subscriptions"
    await client.send(type="unsubscribe", sessionId="s1")
    hub.node.drain()
    await client.send(**fork, ref=2)
    assert (await outcome(client, 2))["code"] == "draining"
    assert await hub.node.log.sessions.find(Key("f1")) is None


async def test_a_plain_client_receives_a_forks_history_as_messages(hub: Hub) -> None:
    """From its beginning; what agents said is whole, and belongs to no run."""
    client = await begin(hub)
    said = await say(client, "one")
    await client.send(type="fork", sessionId="s1", messageId=said["answerId"], newSessionId="f1", ref="f")
    await outcome(client, "f")
    plain = await hub.connect("?sessionId=f1&afterSeq=0")
    frame = await plain.next()
    assert (frame["type"], frame["content"], frame["messageId"]) == ("message", "[] one", said["answerId"])
    assert "runId" not in frame

"""The commands of one connection: each session's in order, no session waits for another, and some wait for nothing."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from support.hub import Client, Hub
from support.waiting import PATIENCE, eventually

from hub.access.principal import LOCAL
from hub.commands import table as commands
from hub.commands.queues import Queues
from hub.ids import Key
from hub.limits import KiB, Limits
from hub.messages import Command, PageRequest, Unsubscribe
from hub.protocols.extended import ExtendedProtocol
from hub.web.websocket import close_all_sockets

NEVER = 1e6  # seconds: longer than any test
# Says "one ", ignores that it is cancelled, and ends when the file is there that the message names.
DEAF = """
import asyncio, pathlib

async def deaf(message: str):
    yield "one "
    while not pathlib.Path(message).exists():
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            pass
"""


@pytest.fixture
async def gate(hub: Hub) -> AsyncIterator[Path]:
    """The file that lets slow commands end; it is there when the hub stops."""
    hub.agent("deaf.py", DEAF)
    file = hub.folder / "gate"
    yield file
    file.touch()


async def begin(hub: Hub, **limits: Any) -> Client:
    await hub.start(grace_seconds=NEVER, **limits)
    return await hub.connect(extended=True)


async def answer(client: Client, ref: str | int) -> dict[str, Any]:
    return await client.find(lambda frame: frame.get("ref") == ref)


async def start_deaf(client: Client, gate: Path, session: str) -> dict[str, Any]:
    """Let an agent that ignores its cancel answer in a session; return what its message was answered."""
    await client.send(type="chat", agentId="deaf", sessionId=session, message=str(gate), ref=f"deaf {session}")
    accepted = await answer(client, f"deaf {session}")
    await client.find(lambda f: f["type"] == "stream" and f["runId"] == accepted["runId"])
    return accepted


async def rollback(client: Client, session: str) -> None:
    """Send a chat that waits until the deaf agent has ended."""
    chat = {"agentId": "echo", "message": "instead", "ifBusy": "rollback"}
    await client.send(type="chat", sessionId=session, ref=f"slow {session}", **chat)


async def said(hub: Hub, session: str) -> list[str]:
    """Return what people said in a session, in the order of the log."""
    messages = await commands.list_messages(hub.door, LOCAL, session, PageRequest(99))
    return [message.content for message in messages.rows if message.role == "user"]


SLOW: list[dict[str, Any]] = [
    {"type": "chat", "agentId": "echo", "message": "instead", "ifBusy": "rollback"},
    {"type": "edit", "agentId": "echo", "message": "instead"},
    {"type": "regenerate", "agentId": "echo"},
]


@pytest.mark.parametrize("slow", SLOW, ids=[command["type"] for command in SLOW])
async def test_a_slow_command_holds_up_nothing_that_takes_no_time(hub: Hub, gate: Path, slow: dict[str, Any]) -> None:
    """Nor a command for another session. `ping`, `cancel`, `typing` and `unsubscribe` of its own session are done."""
    client = await begin(hub)
    accepted = await start_deaf(client, gate, "s1")
    other = await hub.connect("?sessionId=s1", extended=True)
    await hub.wait_until_live("s1", 2)  # who is behind misses notices
    await client.send(**slow, sessionId="s1", messageId=accepted["messageId"], ref="slow")
    await client.send(type="ping", ref="ping")
    assert (await answer(client, "ping"))["type"] == "pong"
    await client.send(type="typing", sessionId="s1")
    await other.until_type("typing")
    await client.send(type="cancel", sessionId="s1", ref="cancel")
    assert (await answer(client, "cancel"))["runIds"] == [accepted["runId"]]
    await client.send(type="unsubscribe", sessionId="s1", ref="unsubscribe")
    assert (await answer(client, "unsubscribe"))["type"] == "ok"
    await client.send(type="chat", agentId="echo", sessionId="s2", message="hello", ref="chat")
    assert (await answer(client, "chat"))["type"] == "accepted"
    assert not any(frame.get("ref") == "slow" for frame in client.frames)
    gate.touch()
    assert (await answer(client, "slow"))["type"] == "accepted"


async def test_the_commands_for_a_session_are_done_in_the_order_in_which_they_came(hub: Hub, gate: Path) -> None:
    """Each is answered once; what comes for other sessions is done beside them."""
    client = await begin(hub)
    await start_deaf(client, gate, "s1")
    await rollback(client, "s1")
    texts = [str(number) for number in range(12)]
    for text in texts:
        for session in ("s1", "s2"):
            chat = {"agentId": "echo", "message": text, "ifBusy": "parallel"}
            await client.send(type="chat", sessionId=session, ref=f"{session} {text}", **chat)
    for text in texts:
        assert (await answer(client, f"s2 {text}"))["type"] == "accepted"
    assert not any(str(frame.get("ref")).startswith("s1") for frame in client.frames)
    gate.touch()
    for text in texts:
        assert (await answer(client, f"s1 {text}"))["type"] == "accepted"
    assert await said(hub, "s1") == ["instead", *texts]
    assert await said(hub, "s2") == texts


async def test_chats_without_a_session_go_to_one_session_in_order(hub: Hub) -> None:
    """Also beside those that name the connection's own session; another agent's is another one."""
    await hub.start()
    client = await hub.connect("?agentId=echo", extended=True)
    texts = [str(number) for number in range(6)]
    for text in texts:
        agent = {} if int(text) % 2 else {"agentId": "echo"}
        await client.send(type="chat", message=text, ref=text, **agent)
    session = (await answer(client, "0"))["sessionId"]
    for number in range(6, 18):
        texts.append(str(number))
        own = {"sessionId": session} if number % 2 else {}
        await client.send(type="chat", message=texts[-1], ref=texts[-1], **own)
    await client.send(type="chat", agentId="gated", message=str(hub.folder / "agents"), ref="other")
    answers = [await answer(client, text) for text in texts]
    assert {one["sessionId"] for one in answers} == {session}
    assert (await answer(client, "other"))["sessionId"] != session
    assert await said(hub, session) == texts


async def test_a_cancel_stops_what_was_sent_before_it(hub: Hub, gate: Path) -> None:
    """Two chats that have no run yet, in one go: the cancel waits for them, and names both."""
    client = await begin(hub)
    for ref in ("one", "two"):
        await client.send(type="chat", agentId="gated", sessionId="s1", message=str(gate), ref=ref)
    await client.send(type="cancel", sessionId="s1", ref="cancel")
    run_ids = {(await answer(client, ref))["runId"] for ref in ("one", "two")}
    assert set((await answer(client, "cancel"))["runIds"]) == run_ids
    for run_id in run_ids:
        end = await client.find(lambda f: f["type"] == "run_finished" and f["runId"] == run_id)
        assert end["stopReason"] == "cancelled"


@pytest.mark.parametrize("queued", [True, False])
async def test_a_cancel_that_is_done_at_once_holds_for_chats_that_wait(hub: Hub, gate: Path, queued: bool) -> None:
    """It stops what runs, and then what the chats before it start; those after it, and with `queued: false` those
    that only wait, are answered."""
    client = await begin(hub)
    running = await start_deaf(client, gate, "s1")
    await rollback(client, "s1")
    await client.send(type="chat", agentId="echo", sessionId="s1", message="before", ref="before")
    await client.send(type="cancel", sessionId="s1", queued=queued, ref="cancel")
    assert (await answer(client, "cancel"))["runIds"] == [running["runId"]]
    await client.send(type="chat", agentId="echo", sessionId="s1", message="after", ref="after")
    gate.touch()
    reasons = {}
    for ref in ("slow s1", "before", "after"):
        accepted = await answer(client, ref)
        end = await client.find(lambda f: f["type"] == "run_finished" and f["runId"] == accepted["runId"])
        reasons[ref] = (accepted["status"], end["stopReason"])
    assert reasons["slow s1"] == ("started", "cancelled")
    assert reasons["after"][1] == "end_turn"
    stopped = queued or reasons["before"][0] == "started"
    assert reasons["before"][1] == ("cancelled" if stopped else "end_turn")


async def test_a_cancel_of_a_session_in_which_nothing_runs_is_refused(hub: Hub, gate: Path) -> None:
    """At once where nothing waits; after the others where they start nothing. One of a run waits for nobody."""
    client = await begin(hub)
    await client.send(type="cancel", sessionId="s1", ref=1)
    assert (await answer(client, 1))["code"] == "not_running"
    await client.send(type="chat", agentId="nobody", sessionId="s1", message="x", ref=2)
    await client.send(type="cancel", sessionId="s1", ref=3)
    assert (await answer(client, 3))["code"] == "not_running"
    assert [frame["ref"] for frame in client.frames if frame.get("ref") in (2, 3)] == [2, 3]
    await start_deaf(client, gate, "s1")
    await rollback(client, "s1")
    await client.send(type="cancel", sessionId="s1", runId="r_none", ref=4)
    assert (await answer(client, 4))["code"] == "not_running"


async def test_an_unsubscribe_holds_for_what_was_sent_before_it(hub: Hub, gate: Path) -> None:
    """After its `ok` nothing of the session is heard, though a chat before it, done later, would join; until a
    `subscribe` after it."""
    client = await begin(hub)
    await start_deaf(client, gate, "s1")
    await rollback(client, "s1")
    await client.send(type="chat", agentId="echo", sessionId="s1", message="unheard", ref="chat")
    await client.send(type="unsubscribe", sessionId="s1", ref="unsubscribe")
    await answer(client, "unsubscribe")
    before = len(client.frames)
    gate.touch()
    await answer(client, "chat")
    await eventually(lambda: not hub.node.sessions)  # all is answered, and nobody hears
    await client.send(type="subscribe", sessionId="s1", ref="subscribe")
    head = (await answer(client, "subscribe"))["seq"]
    assert {frame["type"] for frame in client.frames[before:]} == {"accepted", "subscribed"}
    await client.send(type="chat", agentId="echo", sessionId="s1", message="heard")
    assert (await client.until_done())["seq"] > head


@pytest.mark.parametrize("queues", [1, 8])
async def test_a_fork_is_done_before_a_later_chat_in_its_session(hub: Hub, gate: Path, queues: int) -> None:
    """And after the earlier commands of both its sessions; it may need two queues where there is one."""
    client = await begin(hub, command_queues=queues)
    await client.send(type="chat", agentId="echo", sessionId="s1", message="hello", ref="hello")
    message_id = (await answer(client, "hello"))["messageId"]
    await client.until_done()
    await start_deaf(client, gate, "s1")
    await rollback(client, "s1")
    await client.send(type="subscribe", sessionId="s2", ref="subscribe")
    await client.send(type="fork", sessionId="s1", messageId=message_id, newSessionId="s2", ref="fork")
    await client.send(type="chat", agentId="echo", sessionId="s2", message="there", ref="there")
    await client.send(type="chat", agentId="echo", sessionId="s1", message="here", ref="here")
    if queues > 1:
        await answer(client, "subscribe")
    gate.touch()
    for ref, kind in (("subscribe", "subscribed"), ("fork", "subscribed"), ("there", "accepted"), ("here", "accepted")):
        assert (await answer(client, ref))["type"] == kind
    assert await said(hub, "s2") == ["hello", "there"]


async def test_a_fork_back_and_forth_waits_for_nobody_for_ever(hub: Hub) -> None:
    """Two forks that name each other's sessions."""
    await hub.start()
    client = await hub.connect(extended=True)
    for ref, session, new in ((1, "s1", "s2"), (2, "s2", "s1"), (3, "s1", "s1")):
        await client.send(type="fork", sessionId=session, messageId="m", newSessionId=new, ref=ref)
    for ref in (1, 2, 3):
        assert (await answer(client, ref))["code"] == "unknown_session"


async def test_chats_beside_each_other_share_the_room_for_sessions(hub: Hub) -> None:
    """The one that comes first has it, and the others are refused before they are kept: one answer each."""
    await hub.start(subscriptions=2)
    client = await hub.connect(extended=True)
    for number in range(5):
        await client.send(type="chat", agentId="echo", sessionId=f"s{number}", message="x", ref=number)
    codes = [(await answer(client, number)).get("code") for number in range(5)]
    assert codes == [None, None, *["too_many_subscriptions"] * 3]
    listed = await commands.list_sessions(hub.door, LOCAL, PageRequest(9))
    assert sorted(session.sessionId for session in listed.rows) == ["s0", "s1"]


async def test_the_first_of_two_subscribes_has_the_last_room(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though its session takes longer to come."""
    await hub.start(subscriptions=1)
    client = await hub.connect(extended=True)
    find, go_on = hub.node.log.sessions.find, asyncio.Event()

    async def find_late(key: str) -> Any:
        if key == "s1":
            await go_on.wait()
        return await find(Key(key))

    monkeypatch.setattr(hub.node.log.sessions, "find", find_late)
    for session in ("s1", "s2"):
        await client.send(type="subscribe", sessionId=session, ref=session)
    assert (await answer(client, "s2"))["code"] == "too_many_subscriptions"
    go_on.set()
    assert (await answer(client, "s1"))["type"] == "subscribed"


async def pong(client: Client) -> None:
    """Send a control frame, and wait for the one that answers it."""
    await client.ws.ping(b"there?")
    async with asyncio.timeout(PATIENCE):
        while (message := await client.ws.receive()).type is not aiohttp.WSMsgType.PONG:
            client.frames.append(message.json())


async def all_busy(hub: Hub, gate: Path, **limits: Any) -> Client:
    """Return a client whose one queue is busy, with a command for another session that waits for it."""
    await hub.start(grace_seconds=NEVER, command_queues=1, **limits)
    client = await hub.connect(extended=True, autoping=False)
    await start_deaf(client, gate, "s1")
    await rollback(client, "s1")
    await client.send(type="chat", agentId="echo", sessionId="s2", message="hello", ref="chat")
    return client


async def test_control_frames_are_answered_while_all_queues_are_busy(hub: Hub, gate: Path) -> None:
    """Also behind commands, which are taken when there is a queue again, in order; and again after that."""
    client = await all_busy(hub, gate)
    await pong(client)
    for number in range(5):
        await client.send(type="ping", ref=number)
        await pong(client)
    assert not any(frame.get("ref") in ("chat", *range(5)) for frame in client.frames)
    gate.touch()
    await answer(client, 4)
    assert (await answer(client, "chat"))["type"] == "accepted"
    assert [frame["ref"] for frame in client.frames if frame["type"] == "pong"] == [*range(5)]
    gate.unlink()
    await start_deaf(client, gate, "s3")
    await rollback(client, "s3")
    await client.send(type="chat", agentId="echo", sessionId="s2", message="again", ref="again")
    await pong(client)
    gate.touch()
    assert (await answer(client, "again"))["type"] == "accepted"


def unread(hub: Hub) -> int:
    """Return from how many connections the hub reads nothing now."""
    return sum(connection.receive_time == float("inf") for connection in hub.node.registry.connections)


async def test_a_client_that_is_not_read_is_not_taken_for_lost(hub: Hub, gate: Path) -> None:
    """Its pong would stand behind more than the hub holds; when that is read its silence counts again."""
    hub.limits = Limits(ping_seconds=1e-9, pong_seconds=1e-9)
    client = await all_busy(hub, gate, command_bytes=KiB)
    await client.send(type="ping", ref="ping")
    await eventually(lambda: unread(hub))
    for _ in range(3):
        await hub.door.upkeep._sweep()
    assert [connection.is_closed for connection in hub.node.registry.connections] == [False]
    gate.touch()
    await eventually(lambda: not unread(hub))


async def test_a_close_is_answered_while_all_queues_are_busy(hub: Hub, gate: Path) -> None:
    """What was sent before it is done."""
    client = await all_busy(hub, gate)
    async with asyncio.timeout(PATIENCE):
        await client.ws.close(code=4321)
    assert client.ws.close_code == 4321
    gate.touch()
    await eventually(lambda: not hub.node.sessions and not hub.node.registry.connections)
    assert await said(hub, "s2") == ["hello"]


@pytest.mark.parametrize("way", ["close", "abort"])
async def test_what_a_client_sent_is_done_when_it_has_gone(hub: Hub, gate: Path, way: str) -> None:
    """In its order; then no task is left."""
    await hub.start(grace_seconds=NEVER)
    before = len(asyncio.all_tasks())
    client = await hub.connect(extended=True)
    await start_deaf(client, gate, "s1")
    await rollback(client, "s1")
    for text in ("a", "b", "c"):
        await client.send(type="chat", agentId="echo", sessionId="s1", message=text, ifBusy="parallel")
    await client.send(type="ping")
    await client.until_type("pong")
    if way == "abort":
        client.ws._writer.transport.abort()
    await client.close()
    await eventually(lambda: not hub.node.registry.connections)
    assert await said(hub, "s1") == [str(gate)]
    gate.touch()
    await eventually(lambda: not hub.node.sessions and len(asyncio.all_tasks()) <= before)
    assert await said(hub, "s1") == ["instead", "a", "b", "c"]


async def test_what_waits_while_the_hub_goes_down_is_refused(hub: Hub, gate: Path) -> None:
    """Each with its `ref`, when its turn comes."""
    client = await begin(hub)
    await start_deaf(client, gate, "s1")
    await rollback(client, "s1")
    await client.send(type="chat", agentId="echo", sessionId="s1", message="x", ref="chat")
    await client.send(type="ping")
    await client.until_type("pong")
    hub.door.drain()
    gate.touch()
    for ref in ("slow s1", "chat"):
        assert (await answer(client, ref))["code"] == "draining"


async def test_a_command_that_fails_is_answered_and_holds_up_none(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged, and those after it in its queue are done."""
    await hub.start()
    client = await hub.connect(extended=True)

    async def fail(key: str) -> None:
        monkeypatch.undo()
        raise RuntimeError("a fault of the hub")

    monkeypatch.setattr(hub.node.log.sessions, "find", fail)
    with structlog.testing.capture_logs() as lines:
        await client.send(type="edit", sessionId="s1", messageId="m", message="x", ref="edit")
        await client.send(type="chat", agentId="echo", sessionId="s1", message="x", ref="chat")
        assert (await answer(client, "edit"))["code"] == "internal"
        assert (await answer(client, "chat"))["type"] == "accepted"
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["a command failed"]


class Failing(ExtendedProtocol):
    """A protocol of another package, with a fault."""

    name = "failing"

    def command(self, data: bytes, limits: Limits) -> Command:
        raise LookupError("a fault of the protocol")


async def test_a_protocol_that_fails_is_logged_and_answered(hub: Hub) -> None:
    """The connection stays."""
    await hub.start()
    client = await hub.connect(extended=True)
    (connection,) = hub.node.registry.connections
    connection.protocol = Failing()
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            await client.send(type="ping")
            assert (await client.next())["code"] == "internal"
    assert [line["event"] for line in lines] == ["a command failed"] * 2


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_hub_that_ends_waits_for_no_command(hub: Hub, gate: Path, is_there: bool) -> None:
    """It cancels those that are under way, also of a client that has gone, and no task is left."""
    client = await begin(hub)
    await start_deaf(client, gate, "s1")
    await rollback(client, "s1")
    await client.send(type="ping")
    await client.until_type("pong")
    if not is_there:
        await client.close()
        await eventually(lambda: not hub.node.registry.connections)
    assert len(queue_tasks()) == 1
    async with asyncio.timeout(PATIENCE):
        await close_all_sockets(hub.app, hub.door, 1012)
    assert not queue_tasks()


def queue_tasks() -> list[Any]:
    return [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "") == "Queues._run"]


# --- the queues alone -------------------------------------------------------------------------------------------------


async def test_cancelled_queues_end_their_tasks(hub: Hub) -> None:
    """Also one that had not begun, and where it is the waiting for them that is cancelled."""
    for is_begun in (True, False):
        before = asyncio.all_tasks()
        queues, never = Queues(limits=Limits(), follow_up=lambda command, result: None), asyncio.Event()
        for key in ("a", "b"):
            for _ in range(2):
                queues.put((key,), 1, never.wait)
        if is_begun:
            waiting = asyncio.create_task(queues.wait_until_finished())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting], timeout=PATIENCE)
            assert waiting.cancelled()
        else:
            queues.cancel()
            async with asyncio.timeout(PATIENCE):
                await queues.wait_until_finished()
        assert asyncio.all_tasks() == before


async def test_cancelled_queues_have_room_again(hub: Hub) -> None:
    """One who waits for room is woken and finds it: what was dropped counts no more."""
    queues, never = Queues(limits=Limits(command_bytes=4096), follow_up=lambda command, result: None), asyncio.Event()
    for _ in range(4):
        queues.put(("a",), 1024, never.wait)
    assert not queues.has_capacity(("a",))
    changed = asyncio.create_task(queues.wait_for_change())
    await asyncio.sleep(0)
    queues.cancel()
    async with asyncio.timeout(PATIENCE):
        await changed
    assert queues.has_capacity(("a",))


async def test_a_mark_follows_the_jobs_before_it_alone() -> None:
    """The one under way, too; the same mark later holds for those before that."""
    done: list[Any] = []
    gates = [asyncio.Event() for _ in range(4)]

    async def job(number: int) -> int:
        await gates[number].wait()
        return number

    mark = Unsubscribe(sessionId="a")
    queues = Queues(limits=Limits(), follow_up=lambda command, result: done.append((command, result)))
    for number in range(2):
        queues.put(("a",), 1, partial(job, number))
    queues.mark("a", mark)
    queues.put(("a",), 1, partial(job, 2))
    gates[0].set()
    await eventually(lambda: done == [(mark, 0)])
    queues.mark("a", mark)
    queues.put(("a",), 1, partial(job, 3))
    for gate in gates:
        gate.set()
    async with asyncio.timeout(PATIENCE):
        await queues.wait_until_finished()
    assert done == [(mark, 0), (mark, 1), (mark, 2)]
    queues.mark("a", mark)  # nothing is there to follow
    assert not queues.is_busy("a")


async def test_room_is_counted_in_queues_and_in_bytes() -> None:
    """A queue that is there takes more until the bytes are full; each job counts 1 KiB or more."""
    end = asyncio.Event()
    queues = Queues(limits=Limits(command_queues=2, command_bytes=3 * KiB), follow_up=lambda command, result: None)
    assert queues.has_capacity(("a", "b", "c"))  # where none is there, one command has all that it needs
    queues.put(("a",), 1, end.wait)
    assert queues.has_capacity(("b",)) and not queues.has_capacity(("b", "c"))
    queues.put(("b",), 2 * KiB - 1, end.wait)
    assert queues.has_capacity(("a", "b")) and not queues.has_capacity(("c",))
    queues.put(("a",), 1, end.wait)
    assert not queues.has_capacity(("a",))
    waiting = asyncio.create_task(queues.wait_for_change())
    await asyncio.sleep(0)
    end.set()
    async with asyncio.timeout(PATIENCE):
        await waiting
        await queues.wait_until_finished()
    assert queues.has_capacity(("a", "b", "c"))

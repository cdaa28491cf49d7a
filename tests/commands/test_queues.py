"""The command queues of a connection: commands of one session run in order, and sessions do not wait for each other."""

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
# Yields "one ", ignores its cancellation, and ends when the file named by the message exists.
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
    """The file that lets slow commands end. It exists at the latest when the hub stops."""
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
    """Start a run of an agent that ignores its cancellation; return the `accepted` frame of its chat."""
    await client.send(type="chat", agentId="deaf", sessionId=session, message=str(gate), ref=f"deaf {session}")
    accepted = await answer(client, f"deaf {session}")
    await client.find(lambda f: f["type"] == "stream" and f["runId"] == accepted["runId"])
    return accepted


async def rollback(client: Client, session: str) -> None:
    """Send a chat with `rollback`: its command waits until the deaf agent has ended."""
    chat = {"agentId": "echo", "message": "instead", "ifBusy": "rollback"}
    await client.send(type="chat", sessionId=session, ref=f"slow {session}", **chat)


async def user_texts(hub: Hub, session: str) -> list[str]:
    """Return the texts of the user messages of a session, in the order of the log."""
    messages = await commands.list_messages(hub.door, LOCAL, session, PageRequest(99))
    return [message.content for message in messages.rows if message.role == "user"]


SLOW: list[dict[str, Any]] = [
    {"type": "chat", "agentId": "echo", "message": "instead", "ifBusy": "rollback"},
    {"type": "edit", "agentId": "echo", "message": "instead"},
    {"type": "regenerate", "agentId": "echo"},
]


@pytest.mark.parametrize("slow", SLOW, ids=[command["type"] for command in SLOW])
async def test_a_slow_command_does_not_delay_immediate_commands(hub: Hub, gate: Path, slow: dict[str, Any]) -> None:
    """`ping`, `cancel`, `typing` and `unsubscribe` of its session run at once, and so do commands of other sessions."""
    client = await begin(hub)
    accepted = await start_deaf(client, gate, "s1")
    other = await hub.connect("?sessionId=s1", extended=True)
    await hub.wait_until_live("s1", 2)  # a client that lags gets no notices
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


async def test_commands_of_a_session_run_in_the_order_of_arrival(hub: Hub, gate: Path) -> None:
    """Each command is answered once. Commands of other sessions run at the same time."""
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
    assert await user_texts(hub, "s1") == ["instead", *texts]
    assert await user_texts(hub, "s2") == texts


async def test_chats_without_a_session_id_go_to_one_session_in_order(hub: Hub) -> None:
    """Also between chats that name this session. A chat with another agent goes to another session."""
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
    assert {reply["sessionId"] for reply in answers} == {session}
    assert (await answer(client, "other"))["sessionId"] != session
    assert await user_texts(hub, session) == texts


async def test_a_cancel_stops_the_chats_that_were_sent_before_it(hub: Hub, gate: Path) -> None:
    """Two chats are sent together with a cancel. The cancel waits for them, and names both runs."""
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
async def test_a_cancel_also_stops_the_runs_of_waiting_chats(hub: Hub, gate: Path, queued: bool) -> None:
    """It stops the active runs at once, and the runs of earlier chats when they start. Later chats are answered, and
    with `queued: false` also earlier chats whose runs are only queued."""
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


async def test_a_cancel_of_an_idle_session_is_refused(hub: Hub, gate: Path) -> None:
    """It is refused at once if no command waits, else after the waiting commands. With a `runId` it never waits."""
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


async def test_an_unsubscribe_also_holds_for_earlier_commands(hub: Hub, gate: Path) -> None:
    """After its `ok` the client gets no event of the session, even though an earlier chat, executed later, would
    subscribe it. A later `subscribe` works."""
    client = await begin(hub)
    await start_deaf(client, gate, "s1")
    await rollback(client, "s1")
    await client.send(type="chat", agentId="echo", sessionId="s1", message="unheard", ref="chat")
    await client.send(type="unsubscribe", sessionId="s1", ref="unsubscribe")
    await answer(client, "unsubscribe")
    before = len(client.frames)
    gate.touch()
    await answer(client, "chat")
    await eventually(lambda: not hub.node.sessions)  # no run is active, and no client is subscribed
    await client.send(type="subscribe", sessionId="s1", ref="subscribe")
    head = (await answer(client, "subscribe"))["seq"]
    assert {frame["type"] for frame in client.frames[before:]} == {"accepted", "subscribed"}
    await client.send(type="chat", agentId="echo", sessionId="s1", message="heard")
    assert (await client.until_done())["seq"] > head


@pytest.mark.parametrize("queues", [1, 8])
async def test_a_fork_runs_before_a_later_chat_in_its_session(hub: Hub, gate: Path, queues: int) -> None:
    """It runs after the earlier commands of both of its sessions, even if the limit is one queue."""
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
    assert await user_texts(hub, "s2") == ["hello", "there"]


async def test_two_forks_between_the_same_sessions_do_not_deadlock(hub: Hub) -> None:
    """Each fork names the session of the other one as its target."""
    await hub.start()
    client = await hub.connect(extended=True)
    for ref, session, new in ((1, "s1", "s2"), (2, "s2", "s1"), (3, "s1", "s1")):
        await client.send(type="fork", sessionId=session, messageId="m", newSessionId=new, ref=ref)
    for ref in (1, 2, 3):
        assert (await answer(client, ref))["code"] == "unknown_session"


async def test_concurrent_chats_share_the_limit_of_subscriptions(hub: Hub) -> None:
    """The first chats get the free subscriptions. The others are refused before the hub stores them."""
    await hub.start(subscriptions=2)
    client = await hub.connect(extended=True)
    for number in range(5):
        await client.send(type="chat", agentId="echo", sessionId=f"s{number}", message="x", ref=number)
    codes = [(await answer(client, number)).get("code") for number in range(5)]
    assert codes == [None, None, *["too_many_subscriptions"] * 3]
    listed = await commands.list_sessions(hub.door, LOCAL, PageRequest(9))
    assert sorted(session.sessionId for session in listed.rows) == ["s0", "s1"]


async def test_the_first_of_two_subscribes_gets_the_last_free_subscription(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if its session takes longer to load."""
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


async def ping_and_wait(client: Client) -> None:
    """Send a ping frame, and wait for its pong frame."""
    await client.ws.ping(b"there?")
    async with asyncio.timeout(PATIENCE):
        while (message := await client.ws.receive()).type is not aiohttp.WSMsgType.PONG:
            client.frames.append(message.json())


async def start_busy(hub: Hub, gate: Path, **limits: Any) -> Client:
    """Return a client whose only queue is busy, while a command of another session waits for a queue."""
    await hub.start(grace_seconds=NEVER, command_queues=1, **limits)
    client = await hub.connect(extended=True, autoping=False)
    await start_deaf(client, gate, "s1")
    await rollback(client, "s1")
    await client.send(type="chat", agentId="echo", sessionId="s2", message="hello", ref="chat")
    return client


async def test_control_frames_are_answered_while_all_queues_are_busy(hub: Hub, gate: Path) -> None:
    """Also after waiting commands. The hub takes these, in order, when a queue is free; then it works again."""
    client = await start_busy(hub, gate)
    await ping_and_wait(client)
    for number in range(5):
        await client.send(type="ping", ref=number)
        await ping_and_wait(client)
    assert not any(frame.get("ref") in ("chat", *range(5)) for frame in client.frames)
    gate.touch()
    await answer(client, 4)
    assert (await answer(client, "chat"))["type"] == "accepted"
    assert [frame["ref"] for frame in client.frames if frame["type"] == "pong"] == [*range(5)]
    gate.unlink()
    await start_deaf(client, gate, "s3")
    await rollback(client, "s3")
    await client.send(type="chat", agentId="echo", sessionId="s2", message="again", ref="again")
    await ping_and_wait(client)
    gate.touch()
    assert (await answer(client, "again"))["type"] == "accepted"


def count_unread(hub: Hub) -> int:
    """Return the number of connections that the hub does not read now."""
    return sum(connection.receive_time == float("inf") for connection in hub.node.registry.connections)


async def test_a_client_that_the_hub_does_not_read_is_not_dropped_as_silent(hub: Hub, gate: Path) -> None:
    """Its pong is behind commands that the hub has not read yet. When the hub reads again, silence counts again."""
    hub.limits = Limits(ping_seconds=1e-9, pong_seconds=1e-9)
    client = await start_busy(hub, gate, command_bytes=KiB)
    await client.send(type="ping", ref="ping")
    await eventually(lambda: count_unread(hub))
    for _ in range(3):
        await hub.door.upkeep._sweep()
    assert [connection.is_closed for connection in hub.node.registry.connections] == [False]
    gate.touch()
    await eventually(lambda: not count_unread(hub))


async def test_a_close_is_answered_while_all_queues_are_busy(hub: Hub, gate: Path) -> None:
    """Commands sent before the close are executed."""
    client = await start_busy(hub, gate)
    async with asyncio.timeout(PATIENCE):
        await client.ws.close(code=4321)
    assert client.ws.close_code == 4321
    gate.touch()
    await eventually(lambda: not hub.node.sessions and not hub.node.registry.connections)
    assert await user_texts(hub, "s2") == ["hello"]


@pytest.mark.parametrize("way", ["close", "abort"])
async def test_commands_of_a_disconnected_client_are_executed(hub: Hub, gate: Path, way: str) -> None:
    """They run in order, and then no task is left."""
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
    assert await user_texts(hub, "s1") == [str(gate)]
    gate.touch()
    await eventually(lambda: not hub.node.sessions and len(asyncio.all_tasks()) <= before)
    assert await user_texts(hub, "s1") == ["instead", "a", "b", "c"]


async def test_waiting_commands_are_refused_while_the_hub_drains(hub: Hub, gate: Path) -> None:
    """Each command gets an error with its `ref` when its queue reaches it."""
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


async def test_a_failed_command_is_answered_and_does_not_block_its_queue(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure is logged, and later commands of the queue are executed."""
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
    """A protocol of another package that has a bug."""

    name = "failing"

    def command(self, data: bytes, limits: Limits) -> Command:
        raise LookupError("a fault of the protocol")


async def test_a_failure_of_a_protocol_is_logged_and_answered(hub: Hub) -> None:
    """The connection stays open."""
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
async def test_a_hub_that_stops_does_not_wait_for_commands(hub: Hub, gate: Path, is_there: bool) -> None:
    """It cancels running commands, also those of a disconnected client, and no task is left."""
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
    """Also a task that has not begun, and if the wait for the queues is cancelled instead."""
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


async def test_cancelled_queues_have_free_capacity_again(hub: Hub) -> None:
    """Dropped jobs no longer count, and a task that waits for capacity wakes up."""
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


async def test_a_mark_applies_only_to_the_jobs_before_it() -> None:
    """Also to the running job. A second, equal mark applies to the jobs before that mark."""
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
    queues.mark("a", mark)  # there is no job that the mark could apply to
    assert not queues.is_busy("a")


async def test_capacity_is_counted_in_queues_and_in_bytes() -> None:
    """An existing queue takes jobs until the byte limit is reached. Each job counts at least 1 KiB."""
    end = asyncio.Event()
    queues = Queues(limits=Limits(command_queues=2, command_bytes=3 * KiB), follow_up=lambda command, result: None)
    assert queues.has_capacity(("a", "b", "c"))  # without any queue, one command may exceed the limit
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

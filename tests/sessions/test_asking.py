"""Agents that ask people with `run.ask`: the first answer wins, and every question is closed."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.hub import Client, Hub
from support.process import HubProcess
from support.waiting import PATIENCE, eventually

from hub.access.principal import Principal
from hub.commands import table as commands
from hub.errors import AlreadyResolved, StorageUnavailable
from hub.ids import Key
from hub.messages import Ok, Resume, UserMessage
from hub.node.draining import finish_runs, flush_all
from hub.sessions.outbox import OutboxState
from hub.sessions.pending import PendingEvent, attach_future
from hub.storage.log import AppendCallback
from hub.storage.records import Append

ASKS = """
async def asks(run):
    yield "Well. "
    reply = await run.ask(run.message, reason="confirmation", schema={"type": "boolean"}, tool_call_id="c1")
    yield f"{reply.by.id if reply.by else None} {reply.status} {reply.payload}"
"""
TWO = """
import asyncio

async def two(run):
    replies = await asyncio.gather(run.ask("first"), run.ask("second"))
    yield " ".join(str(reply.payload) for reply in replies)
"""
BESIDE = """
import asyncio

async def beside(run):
    question = asyncio.create_task(run.ask("Go on?"))
    count = 0
    while not question.done():
        yield f"{count} "
        count += 1
        await asyncio.sleep(0.001)
    yield f"{question.result().payload} {count}"
"""
ANN = Principal(id="ann", name="Ann", role="operator")


async def start(hub: Hub, code: str = ASKS, name: str = "asks", **limits: Any) -> None:
    hub.agent(f"{name}.py", code)
    await hub.start(**limits)


async def ask(client: Client, agent: str = "asks", session: str = "s1", message: str = "Sure?") -> dict[str, Any]:
    """Chat, and return the first `interrupt` event."""
    await client.send(type="chat", agentId=agent, sessionId=session, message=message)
    return await client.until_type("interrupt")


async def answer(client: Client, question: dict[str, Any], payload: Any = True, **more: Any) -> None:
    fields = {"sessionId": question["sessionId"], "interruptId": question["id"], "status": "resolved"}
    await client.send(type="resume", **(fields | {"payload": payload} | more))


def list_types(client: Client) -> list[str]:
    return [frame["type"] for frame in client.frames if "seq" in frame and frame["type"] != "accepted"]


class HeldLog:
    """The log of a hub. Its appends wait until the test commits or refuses them."""

    def __init__(self, hub: Hub) -> None:
        self.original = hub.node.log.events.append
        self.log = hub.node.log.events
        self.waiting: list[tuple[Append, AppendCallback]] = []
        self.has_appends = asyncio.Event()
        self.log.append = self.hold  # type: ignore[method-assign]

    def hold(self, append: Append, done: AppendCallback) -> None:
        self.waiting.append((append, done))
        self.has_appends.set()

    async def wait_for_answer(self) -> None:
        """Wait for an append with an answer to a question; commit all appends before it."""
        async with asyncio.timeout(PATIENCE):
            while True:
                await self.has_appends.wait()
                self.has_appends.clear()
                ((append, _),) = self.waiting
                if "interrupt_resolved" in [entry.body.type for entry in append.events]:
                    return
                self.original(*self.waiting.pop())

    def release(self, refuse: bool = False) -> None:
        """Commit or refuse the waiting appends; later appends do not wait."""
        self.log.append = self.original  # type: ignore[method-assign]
        for append, done in self.waiting:
            if refuse:
                done(StorageUnavailable("disk full"))
            else:
                self.original(append, done)


async def wait_until_log_works(hub: Hub) -> None:
    """Wait until the outbox tries the log again after a failure."""
    async with asyncio.timeout(PATIENCE):
        while hub.node.sessions[Key("s1")].outbox.state is OutboxState.BACKING_OFF:
            await asyncio.sleep(0.001)


def record_event_types(hub: Hub) -> list[list[str]]:
    """Return a list to which each append adds the list of its event types."""
    original, types = hub.node.log.events.append, []

    def append(append: Append, done: AppendCallback) -> None:
        types.append([entry.body.type for entry in append.events])
        original(append, done)

    hub.node.log.events.append = append  # type: ignore[method-assign]
    return types


# --- asking and answering ---------------------------------------------------------------------------------------------


async def test_a_question_and_its_answer_are_events_of_the_run(hub: Hub) -> None:
    """With the field names of AG-UI. The state of the session is `requires_action`."""
    await start(hub)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client)
    assert {name: question[name] for name in ("reason", "message", "toolCallId", "responseSchema")} == {
        "reason": "confirmation",
        "message": "Sure?",
        "toolCallId": "c1",
        "responseSchema": {"type": "boolean"},
    }
    assert "expiresAt" not in question
    state = await client.until(lambda f: f["type"] == "state" and f["state"] == "requires_action")
    assert state["interrupts"] == [{"id": question["id"], "runId": question["runId"]}]
    await answer(client, question, {"yes": [1, "ä"]}, ref="a")
    assert (await client.until_type("ok"))["ref"] == "a"
    resolved = await client.find(lambda f: f["type"] == "interrupt_resolved")
    assert (resolved["interruptId"], resolved["status"]) == (question["id"], "resolved")
    assert resolved["resolvedBy"] == {"id": "local", "name": "local"} and resolved["payload"] == {"yes": [1, "ä"]}
    await client.until_done()
    assert client.text() == "Well. local resolved {'yes': [1, 'ä']}"
    assert list_types(client) == [
        *("user_message", "run_started", "stream", "interrupt", "interrupt_resolved", "stream", "run_finished")
    ]
    assert "interrupts" not in await client.until(lambda f: f["type"] == "state" and f["state"] == "idle")


async def test_a_question_is_shown_only_after_the_log_has_it(hub: Hub) -> None:
    """Then it is in the state of the session, too."""
    code = """
        import asyncio, pathlib

        async def asks(run):
            yield "Well. "
            while not pathlib.Path(run.message).exists():
                await asyncio.sleep(0.01)
            await run.ask("Sure?")
        """
    await start(hub, code)
    gate = hub.folder / "gate"
    client = await hub.connect("?sessionId=s1", extended=True)
    await client.send(type="chat", agentId="asks", sessionId="s1", message=str(gate))
    await client.until_type("stream")
    held_log = HeldLog(hub)
    gate.touch()
    await asyncio.wait_for(held_log.has_appends.wait(), PATIENCE)
    assert [entry.body.type for entry in held_log.waiting[0][0].events] == ["interrupt"]
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/") as http:
        async with http.get("sessions/s1") as response:
            assert "interrupts" not in await response.json()
        held_log.release()
        question = await client.until_type("interrupt")
        async with http.get("sessions/s1") as response:
            assert [one["id"] for one in (await response.json())["interrupts"]] == [question["id"]]


async def test_the_agent_gets_its_answer_after_the_log_has_it(hub: Hub) -> None:
    """During the commit the agent does not go on, and clients receive no event."""
    await start(hub)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client)
    held_log = HeldLog(hub)
    await answer(client, question)
    await held_log.wait_for_answer()
    assert [entry.body.type for append, _ in held_log.waiting for entry in append.events] == ["interrupt_resolved"]
    assert list_types(client)[-1] == "interrupt" and len(hub.node.sessions[Key("s1")].active_runs) == 1
    held_log.release()
    await client.until_done()


async def test_a_question_may_be_declined(hub: Hub) -> None:
    """The agent gets an answer with the status `cancelled`, and goes on."""
    await start(hub)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client)
    await client.send(type="resume", sessionId="s1", interruptId=question["id"], status="cancelled")
    end = await client.until_done()
    assert end["stopReason"] == "end_turn" and client.text() == "Well. local cancelled None"


async def test_a_plain_client_receives_no_question_but_may_answer(hub: Hub) -> None:
    """It receives the text, and `ok` for its answer."""
    await start(hub)
    plain = await hub.connect("?sessionId=s1")
    other = await hub.connect("?sessionId=s1", extended=True)
    await plain.send(type="chat", agentId="asks", sessionId="s1", message="Sure?")
    await answer(plain, await other.until_type("interrupt"))
    await plain.until_done()
    assert {frame["type"] for frame in plain.frames} == {"stream", "ok"}
    assert plain.text() == "Well. local resolved True"


async def test_several_questions_may_be_open_at_once(hub: Hub) -> None:
    """Each question gets its own answer, in any order."""
    await start(hub, TWO, "two")
    client = await hub.connect("?sessionId=s1", extended=True)
    first = await ask(client, "two")
    second = await client.until_type("interrupt")
    state = await client.until(lambda f: f["type"] == "state" and len(f.get("interrupts", ())) == 2)
    assert [one["id"] for one in state["interrupts"]] == [first["id"], second["id"]]
    await answer(client, second, "b")
    await client.until_type("interrupt_resolved")
    await answer(client, first, "a")
    await client.until_done()
    assert client.text() == "a b"


async def test_a_question_is_shown_and_answered_over_http(hub: Hub) -> None:
    """The session has the fields of each open question, and `resume` has the same errors as the command."""
    await start(hub)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client)
    body = {"interruptId": question["id"], "status": "resolved", "payload": 7}
    async with aiohttp.ClientSession(hub.url) as http:
        async with http.get("/api/v1/sessions/s1") as response:
            shown = await response.json()
        names = ("id", "runId", "reason", "message", "toolCallId", "responseSchema")
        assert shown["state"] == "requires_action"
        assert shown["interrupts"] == [{name: question[name] for name in names}]
        answers = []
        for change in ({}, {}, {"interruptId": "i_none"}, {"status": "maybe"}):
            async with http.post("/api/v1/sessions/s1/resume", json=body | change) as response:
                answers.append((response.status, (await response.json()).get("code")))
    assert answers == [(200, None), (409, "already_resolved"), (404, "unknown_interrupt"), (400, "bad_frame")]
    await client.until_done()
    assert client.text() == "Well. local resolved 7"


async def test_the_envelope_protocol_sends_a_question_as_a_status(hub: Hub) -> None:
    """The payload has the type of the event in `event`."""
    await start(hub)
    http = aiohttp.ClientSession()
    client = Client(http, await http.ws_connect(f"{hub.url}/api/v1/agents/asks/ws?sessionId=s1"))
    hub.clients.append(client)
    await client.send(type="chat", message="Sure?")
    question = await client.until(lambda f: f["payload"].get("event") == "interrupt")
    assert question["type"] == "status" and question["payload"]["message"] == "Sure?"
    await answer(client, question["payload"])
    resolved = await client.until(lambda f: f["payload"].get("event") == "interrupt_resolved")
    assert resolved["type"] == "status" and resolved["payload"]["payload"] is True and "id" in resolved


# --- the first answer wins --------------------------------------------------------------------------------------------


async def test_a_later_answer_is_refused(hub: Hub) -> None:
    """Also after the end of the run, and after a restart. An unknown question has another error."""
    await start(hub)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client)
    await answer(client, question, 1)
    await client.until_type("interrupt_resolved")
    await answer(client, question, 2)
    error = await client.until_type("error")
    assert (error["code"], error["sessionId"]) == ("already_resolved", "s1")
    await client.find(lambda f: f["type"] == "run_finished")
    await hub.stop()
    await hub.start()
    later = await hub.connect(extended=True)
    for wrong, code in (({}, "already_resolved"), ({"interruptId": "i_1"}, "unknown_interrupt")):
        await answer(later, question, 3, **wrong)
        assert (await later.until_type("error"))["code"] == code
    for wrong, code in (({"sessionId": "s2"}, "unknown_interrupt"), ({"interruptId": "no id"}, "bad_id")):
        await answer(later, question, 3, **wrong)
        assert (await later.until_type("error"))["code"] == code
    assert client.text() == "Well. local resolved 1"
    assert await hub.node.log.sessions.find(Key("s2")) is None


def make_resume(question: dict[str, Any], payload: Any) -> Resume:
    return Resume(sessionId="s1", interruptId=question["id"], status="resolved", payload=payload)


async def test_two_answers_race_and_one_is_logged(hub: Hub) -> None:
    """The second answer arrives during the commit of the first one."""
    await start(hub)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client)
    held_log = HeldLog(hub)
    both = [asyncio.create_task(commands.resume(hub.door, ANN, make_resume(question, n))) for n in (1, 2)]
    await held_log.wait_for_answer()
    await asyncio.sleep(0)
    held_log.release()
    first, second = await asyncio.gather(*both, return_exceptions=True)
    assert first == Ok() and isinstance(second, AlreadyResolved)
    await client.until_done()
    assert client.text() == "Well. ann resolved 1" and list_types(client).count("interrupt_resolved") == 1


async def test_a_question_stays_open_if_its_answer_cannot_be_logged(hub: Hub) -> None:
    """The answer is refused, and the next one is accepted."""
    await start(hub, retry_seconds=0.02)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client)
    held_log = HeldLog(hub)
    first = asyncio.create_task(commands.resume(hub.door, ANN, make_resume(question, 1)))
    await held_log.wait_for_answer()
    held_log.release(refuse=True)
    with pytest.raises(StorageUnavailable):
        await first
    await answer(client, question, 2)
    await client.until_done()
    assert client.text() == "Well. local resolved 2" and list_types(client).count("interrupt_resolved") == 1


async def test_answers_are_refused_while_the_log_fails(hub: Hub) -> None:
    """The answer would wait for a disk that may never work again."""
    await start(hub, BESIDE, "beside", retry_seconds=0.02)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client, "beside")
    held_log, outbox = HeldLog(hub), hub.node.sessions[Key("s1")].outbox
    held_log.log.append = lambda _, done: done(StorageUnavailable("disk full"))  # type: ignore[method-assign]
    async with asyncio.timeout(PATIENCE):
        while outbox.state is not OutboxState.BACKING_OFF:
            await asyncio.sleep(0.001)
    await answer(client, question)
    assert (await client.until_type("error"))["code"] == "storage_unavailable"
    held_log.release()
    await wait_until_log_works(hub)
    await answer(client, question)
    await client.until_done()
    *numbers, payload, count = client.text().split()
    assert numbers == [str(n) for n in range(int(count))] and payload == "True"


@pytest.mark.parametrize("refuse", [False, True])
async def test_a_run_that_ends_during_the_commit_of_an_answer_closes_its_question_once(hub: Hub, refuse: bool) -> None:
    """With the answer if the log accepts it, and otherwise with the end of the run."""
    await start(hub, retry_seconds=0.02)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client)
    held_log = HeldLog(hub)
    task = asyncio.create_task(commands.resume(hub.door, ANN, make_resume(question, 1)))
    await held_log.wait_for_answer()
    run = hub.node.sessions[Key("s1")].active_runs[question["runId"]]
    run.stop("cancelled")
    async with asyncio.timeout(PATIENCE):
        while not run.has_ended:
            await asyncio.sleep(0)
    held_log.release(refuse)
    (result,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(result, StorageUnavailable) if refuse else result == Ok()
    assert (await client.until_done())["stopReason"] == "cancelled"
    (resolved,) = [frame for frame in client.frames if frame["type"] == "interrupt_resolved"]
    assert resolved["status"] == ("cancelled" if refuse else "resolved")
    assert list_types(client)[-2:] == ["interrupt_resolved", "run_finished"]


@pytest.mark.parametrize("over", [0, 1])
async def test_the_payload_of_an_answer_has_a_limit(hub: Hub, over: int) -> None:
    """A larger answer is refused, and the question stays open."""
    await start(hub, reply_bytes=100)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client)
    await answer(client, question, "x" * (98 + over))
    if over:
        assert (await client.until_type("error"))["code"] == "bad_frame"
        await answer(client, question, "x" * 98)
    await client.until_done()
    assert client.text().endswith("x" * 98)


@pytest.mark.parametrize("count, code", [(2, None), (3, "too_many_questions")])
async def test_the_open_questions_of_a_run_have_a_limit(hub: Hub, count: int, code: str | None) -> None:
    """Above the limit `run.ask` raises an error, which ends the run if the agent does not catch it."""
    many = "import asyncio\n\nasync def many(run):\n"
    many += "    await asyncio.gather(*(run.ask('?') for _ in range(int(run.message))))\n    yield 'done'"
    await start(hub, many, "many", open_questions=2)
    client = await hub.connect("?sessionId=s1", extended=True)
    questions = [await ask(client, "many", message=str(count)), await client.until_type("interrupt")]
    if code is None:
        for question in questions:
            await answer(client, question)
    end = await client.until_done()
    assert [frame["code"] for frame in client.frames if frame["type"] == "run_error"] == ([code] if code else [])
    assert end["stopReason"] == ("error" if code else "end_turn")


# --- limits and ends --------------------------------------------------------------------------------------------------


async def test_the_silence_limit_does_not_count_while_a_question_is_open(hub: Hub) -> None:
    """It counts again after the answer. Meanwhile it ends another run."""
    silent = ASKS.replace('{reply.payload}"', '{reply.payload}"\n    import asyncio\n    await asyncio.Event().wait()')
    await start(hub, silent, silence_seconds=0.2)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client)
    other = await hub.connect(extended=True)
    for _ in range(2):
        await other.send(type="chat", agentId="gated", sessionId="s2", message=str(hub.folder / "gate"))
        assert (await other.until_done())["stopReason"] == "timeout"
    await answer(client, question)
    assert (await client.until_done())["stopReason"] == "timeout"
    assert client.text() == "Well. local resolved True"


async def test_the_silence_limit_counts_from_the_answer(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from the question."""
    loop, ahead = asyncio.get_running_loop(), [0.0]
    time = loop.time
    monkeypatch.setattr(loop, "time", lambda: time() + ahead[0])
    code = """
        import asyncio, pathlib

        async def asks(run):
            await run.ask("Sure?")
            while not pathlib.Path(run.message).exists():
                await asyncio.sleep(0.01)
            yield "done"
        """
    await start(hub, code, silence_seconds=600, ping_seconds=10_000)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client, message=str(hub.folder / "gate"))
    ahead[0] = 590.0
    await answer(client, question)
    await client.until_type("interrupt_resolved")
    ahead[0] = 690.0  # after the hub's first check of the silence limit
    other = await hub.connect(extended=True)
    await other.send(type="chat", agentId="echo", sessionId="s2", message="x")
    await other.until_done()
    (hub.folder / "gate").touch()
    assert (await client.until_done())["stopReason"] == "end_turn"


RAISES = """
import asyncio

async def raises(run):
    async def fail():
        await run.ask("second")
        raise ValueError("no")
    yield "Well. "
    await asyncio.gather(run.ask("first"), fail())
"""


async def end_by_cancel(hub: Hub, client: Client) -> None:
    await client.send(type="cancel", sessionId="s1")


async def end_by_error(hub: Hub, client: Client) -> None:
    second = await client.until_type("interrupt")
    await answer(client, second)


async def end_by_drain(hub: Hub, client: Client) -> None:
    hub.node.drain()
    hurry = asyncio.Event()
    hurry.set()
    await finish_runs(hub.node, 0, hurry)


async def end_by_time_limit(hub: Hub, client: Client) -> None:
    """Do nothing: the run reaches its time limit."""


ENDS = [
    ("asks", ASKS, end_by_cancel, {}, "cancelled"),
    ("asks", ASKS, end_by_time_limit, {"run_seconds": 0.3}, "timeout"),
    ("raises", RAISES, end_by_error, {}, "error"),
    ("asks", ASKS, end_by_drain, {}, "aborted"),
]


@pytest.mark.parametrize("name, code, end, limits, reason", ENDS, ids=[end[-1] for end in ENDS])
async def test_a_run_that_ends_closes_its_questions_in_the_same_commit(
    hub: Hub, name: str, code: str, end: Callable[..., Any], limits: dict[str, float], reason: str
) -> None:
    """The questions are `cancelled` without an author, just before the end of the run."""
    await start(hub, code, name, **limits)
    client = await hub.connect("?sessionId=s1", extended=True)
    commits = record_event_types(hub)
    question = await ask(client, name)
    await end(hub, client)
    assert (await client.until_done())["stopReason"] == reason
    resolved = [f for f in client.frames if f["type"] == "interrupt_resolved" and f["interruptId"] == question["id"]]
    assert [(frame["status"], "resolvedBy" in frame, "payload" in frame) for frame in resolved] == [
        ("cancelled", False, False)
    ]
    last = ["interrupt_resolved", *(["run_error"] if reason == "error" else []), "run_finished"]
    assert any(types[-len(last) :] == last for types in commits)  # after a slow commit, the question is in it, too


async def test_a_draining_hub_accepts_answers_to_questions(hub: Hub) -> None:
    """It waits for the running answers."""
    await start(hub)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client)
    hub.node.drain()
    await answer(client, question)
    assert (await client.until_done())["stopReason"] == "end_turn"


async def test_an_answer_is_logged_after_a_drain_has_suspended_its_run(hub: Hub) -> None:
    """The caller gets its result, and the outbox becomes empty."""
    await start(hub, "from hub import agent\n\n@agent(restartable=True)" + ASKS)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client)
    held_log = HeldLog(hub)
    answering = asyncio.create_task(commands.resume(hub.door, ANN, make_resume(question, True)))
    await held_log.wait_for_answer()
    hub.node.drain()
    hurry = asyncio.Event()
    hurry.set()
    await finish_runs(hub.node, 0, hurry)
    held_log.release()
    await asyncio.wait_for(answering, PATIENCE)
    await client.until_type("interrupt_resolved")
    await flush_all(hub.node, PATIENCE)
    assert all(session.outbox.is_empty for session in hub.node.sessions.values())


@pytest.mark.parametrize("refuse", [False, True])
async def test_a_failing_callback_does_not_stop_other_callbacks(hub: Hub, refuse: bool) -> None:
    await start(hub)
    client = await hub.connect("?sessionId=s1", extended=True)
    await ask(client)
    outbox = hub.node.sessions[Key("s1")].outbox

    def fails(_: object) -> None:
        raise KeyError("x")

    held_log = HeldLog(hub)
    items = [
        PendingEvent(None, None, UserMessage(messageId=f"m{n}", author=ANN.author, content="hello"), is_refusable=True)
        for n in range(2)
    ]
    waits = [attach_future(items[0], fails), attach_future(items[1])]
    outbox.put(*items)
    held_log.release(refuse)
    results = await asyncio.wait_for(asyncio.gather(*waits, return_exceptions=True), PATIENCE)
    assert [isinstance(seq, StorageUnavailable) for seq in results] == [refuse, refuse]
    later = PendingEvent(None, None, UserMessage(messageId="m2", author=ANN.author, content="later"))
    commit = attach_future(later)
    outbox.put(later)
    assert await asyncio.wait_for(commit, PATIENCE)


async def test_after_kill_9_the_next_start_closes_open_questions(tmp_path: Path) -> None:
    """Just before the end of the run. An answer that was logged before the kill stays."""
    hub = HubProcess(tmp_path)
    hub.agent("two.py", TWO)
    await hub.start()
    try:
        async with aiohttp.ClientSession() as http:
            client = Client(http, await http.ws_connect(f"{hub.url}/api/v1/ws", protocols=["hubbub.v1"]))
            first = await ask(client, "two")
            second = await client.until_type("interrupt")
            await answer(client, first)
            last = await client.until_type("interrupt_resolved")
            await hub.kill()
            await hub.start()
            client = Client(http, await http.ws_connect(f"{hub.url}/api/v1/ws", protocols=["hubbub.v1"]))
            await client.send(type="subscribe", sessionId="s1", afterSeq=last["seq"], epoch=last["epoch"])
            assert (await client.until_done())["stopReason"] == "aborted"
            assert list_types(client)[-2:] == ["interrupt_resolved", "run_finished"]
            closed = await client.find(lambda f: f["type"] == "interrupt_resolved")
            assert (closed["interruptId"], closed["status"]) == (second["id"], "cancelled")
            await answer(client, second)
            assert (await client.until_type("error"))["code"] == "already_resolved"
    finally:
        await hub.kill()


async def test_a_run_that_starts_again_asks_again(hub: Hub) -> None:
    """The question of the first attempt is closed before the restart of the run."""
    await start(hub, "from hub import agent\n\n@agent(restartable=True)" + ASKS)
    client = await hub.connect("?sessionId=s1", extended=True)
    first = await ask(client)
    await hub.stop()
    await hub.start()
    client = await hub.connect(f"?sessionId=s1&afterSeq={first['seq']}", extended=True)
    second = await client.until_type("interrupt")
    assert list_types(client) == ["interrupt_resolved", "message_removed", "run_started", "stream", "interrupt"]
    await answer(client, first)
    assert (await client.until_type("error"))["code"] == "already_resolved"
    await answer(client, second, 2)
    await client.until_done()
    assert client.text() == "Well. local resolved 2"


async def test_a_question_of_a_suspended_run_cannot_be_answered(hub: Hub) -> None:
    """The hub drains, and the next start runs the agent again."""
    await start(hub, "from hub import agent\n\n@agent(restartable=True)" + ASKS)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client)
    commits = record_event_types(hub)
    await end_by_drain(hub, client)
    await answer(client, question)
    assert (await client.until_type("error"))["code"] == "draining"
    await hub.stop()
    assert commits == []  # the next start closes the questions that are open in the log


async def test_an_agent_may_withdraw_its_question(hub: Hub) -> None:
    """For example after its own timeout. The run goes on, and a late answer is refused."""
    code = """
        import asyncio

        async def hasty(run):
            try:
                async with asyncio.timeout(0.1):
                    await run.ask("Quick?")
            except TimeoutError:
                yield "never mind"
            await run.ask("And now?")
        """
    await start(hub, code, "hasty")
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client, "hasty")
    closed = await client.until_type("interrupt_resolved")
    assert (closed["interruptId"], closed["status"], "resolvedBy" in closed) == (question["id"], "cancelled", False)
    second = await client.until_type("interrupt")
    await answer(client, question)
    assert (await client.until_type("error"))["code"] == "already_resolved"
    await answer(client, second)
    assert (await client.until_done())["stopReason"] == "end_turn" and client.text() == "never mind"


async def test_a_withdrawn_question_is_closed_when_its_answer_is_refused(hub: Hub) -> None:
    """No task of the agent waits for another answer."""
    code = """
        import asyncio, pathlib

        async def hasty(run):
            gate, question = pathlib.Path(run.message), asyncio.create_task(run.ask("Quick?"))
            while not gate.exists():
                await asyncio.sleep(0.005)
            question.cancel()
            await asyncio.wait([question])
            gate.unlink()
            await run.ask("And now?")
        """
    await start(hub, code, "hasty", retry_seconds=0.02)
    client = await hub.connect("?sessionId=s1", extended=True)
    gate = hub.folder / "gate"
    question = await ask(client, "hasty", message=str(gate))
    held_log = HeldLog(hub)
    late = asyncio.create_task(commands.resume(hub.door, ANN, make_resume(question, 1)))
    await held_log.wait_for_answer()
    gate.touch()
    await eventually(lambda: not gate.exists())
    held_log.release(refuse=True)
    with pytest.raises(StorageUnavailable):
        await late
    closed = await client.until_type("interrupt_resolved")
    assert (closed["interruptId"], closed["status"]) == (question["id"], "cancelled")


async def test_a_stopped_run_does_not_wait_for_answers(hub: Hub) -> None:
    """Its questions accept no answer any more, and are closed with the end of the run."""
    code = """
        import asyncio, pathlib

        async def slow(run):
            gate = pathlib.Path(run.message)
            try:
                await run.ask("Sure?")
            finally:
                gate.touch()
                while gate.exists():
                    await asyncio.sleep(0.005)
        """
    await start(hub, code, "slow")
    client = await hub.connect("?sessionId=s1", extended=True)
    gate = hub.folder / "gate"
    question = await ask(client, "slow", message=str(gate))
    await client.send(type="cancel", sessionId="s1")
    await eventually(gate.exists)
    state = hub.node.sessions[Key("s1")].make_state()
    assert (state.state, state.interrupts) == ("running", None)
    await answer(client, question)
    assert (await client.until_type("error"))["code"] == "already_resolved"
    gate.unlink()
    await client.until_done()
    assert list_types(client)[-2:] == ["interrupt_resolved", "run_finished"]


# --- text and questions -----------------------------------------------------------------------------------------------


async def test_text_around_an_open_question_is_complete_in_every_protocol(hub: Hub) -> None:
    """The events of a question begin a new message, also if the log has refused an earlier answer."""
    await start(hub, BESIDE.replace("0.001", "0"), "beside", retry_seconds=0.02)
    client = await hub.connect("?sessionId=s1", extended=True)
    unstreamed = await hub.connect("?sessionId=s1&stream=false")
    question = await ask(client, "beside")
    await client.until_type("stream")
    held_log = HeldLog(hub)
    refused = asyncio.create_task(commands.resume(hub.door, ANN, make_resume(question, 1)))
    await held_log.wait_for_answer()
    held_log.release(refuse=True)
    with pytest.raises(StorageUnavailable):
        await refused
    await wait_until_log_works(hub)
    held_log = HeldLog(hub)
    accepted = asyncio.create_task(commands.resume(hub.door, ANN, make_resume(question, "yes")))
    await held_log.wait_for_answer()
    for _ in range(100):
        await asyncio.sleep(0)  # text of the agent on both sides of the answer
    held_log.release()
    await accepted
    await client.until_done()
    await unstreamed.until_done()
    assert client.text() == unstreamed.text()
    words = client.text().split()
    assert words == [*(str(n) for n in range(int(words[-1]))), "yes", words[-1]]
    for message_id in {f["messageId"] for f in client.frames if f["type"] == "stream"}:
        chunks = [f for f in client.frames if f["type"] == "stream" and f["messageId"] == message_id]
        assert [c["offset"] for c in chunks] == [
            sum(len(before["content"]) for before in chunks[:n]) for n in range(len(chunks))
        ]
    message_ids = [frame["messageId"] for frame in unstreamed.frames if frame["type"] == "message"]
    assert len(message_ids) == len(set(message_ids)) == 3


# --- called agents, OpenAI's clients and invalid questions ------------------------------------------------------------


async def test_a_called_agent_asks_in_the_run_of_its_caller(hub: Hub) -> None:
    """The question has the agent of the run, which is the caller."""
    hub.agent("caller.py", 'async def caller(run):\n    yield "It said: " + await run.call("asks", run.message)')
    await start(hub)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client, "caller")
    assert question["agentId"] == "caller" and question["message"] == "Sure?"
    await answer(client, question, "yes")
    await client.until_done()
    assert client.text() == "It said: Well. local resolved yes"


async def test_an_agent_without_a_session_cannot_ask(hub: Hub) -> None:
    """`run.ask` raises an error, also in a called agent. If the agent does not catch it, the request fails."""
    hub.agent("caller.py", 'async def caller(run):\n    yield await run.call("asks", run.message)')
    await start(hub)
    async with aiohttp.ClientSession(hub.url) as http:
        for model in ("asks", "caller"):
            body = {"model": model, "messages": [{"role": "user", "content": "Sure?"}]}
            async with http.post("/v1/chat/completions", json=body) as response:
                body = await response.json()
            assert response.status == 422 and body["error"]["code"] == "nobody_to_ask"


@pytest.mark.parametrize(
    "code, error",
    [
        ("def odd(run):\n    return run.ask('?')", "nobody_to_ask"),  # in a thread, with a loop of its own
        ("async def odd(run):\n    await run.ask('\\ud800')", "agent_bad_output"),
        ("async def odd(run):\n    await run.ask('?', schema='boolean')", "agent_bad_output"),
        ("async def odd(run):\n    await run.ask('x' * 300_000)", "answer_too_long"),
    ],
)
async def test_a_bad_question_is_an_error_of_the_agent(hub: Hub, code: str, error: str) -> None:
    """The log has no question."""
    await start(hub, code, "odd")
    client = await hub.connect("?sessionId=s1", extended=True)
    await client.send(type="chat", agentId="odd", sessionId="s1", message="x")
    assert (await client.until_type("run_error"))["code"] == error
    await client.until_done()
    assert "interrupt" not in list_types(client)


async def test_a_stopped_run_cannot_ask(hub: Hub) -> None:
    """In an agent that cleans up after a cancel, `run.ask` raises an error at once."""
    code = """
        import pathlib
        from hub import AgentError

        async def late(run):
            try:
                await run.ask("first")
            finally:
                try:
                    await run.ask("last words?")
                except AgentError as error:
                    pathlib.Path(run.message).write_text(error.code)
        """
    await start(hub, code, "late")
    client = await hub.connect("?sessionId=s1", extended=True)
    await ask(client, "late", message=str(hub.folder / "code"))
    await client.send(type="cancel", sessionId="s1")
    await client.until_done()
    assert (hub.folder / "code").read_text() == "nobody_to_ask" and list_types(client).count("interrupt") == 1

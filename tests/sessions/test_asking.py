"""Runs that ask people: the first answer wins, and every question is closed."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.hub import Client, Hub
from support.process import HubProcess
from support.waiting import PATIENCE, eventually

from hub.access.principal import ALL_ACTIONS, Principal
from hub.commands import table as commands
from hub.errors import AlreadyResolved, StorageUnavailable
from hub.ids import Key
from hub.messages import Ok, Resume, UserMessage
from hub.node.draining import finish_runs, flush_all
from hub.sessions.outbox import OutboxState, PendingEvent, attach_future
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
    said = 0
    while not question.done():
        yield f"{said} "
        said += 1
        await asyncio.sleep(0.001)
    yield f"{question.result().payload} {said}"
"""
ANN = Principal(id="ann", name="Ann", may=ALL_ACTIONS)


async def start(hub: Hub, code: str = ASKS, name: str = "asks", **limits: Any) -> None:
    hub.agent(f"{name}.py", code)
    await hub.start(**limits)


async def ask(client: Client, agent: str = "asks", session: str = "s1", message: str = "Sure?") -> dict[str, Any]:
    """Chat, and return the question that comes of it."""
    await client.send(type="chat", agentId=agent, sessionId=session, message=message)
    return await client.until_type("interrupt")


async def answer(client: Client, question: dict[str, Any], payload: Any = True, **more: Any) -> None:
    known = {"sessionId": question["sessionId"], "interruptId": question["id"], "status": "resolved"}
    await client.send(type="resume", **(known | {"payload": payload} | more))


def kinds(client: Client) -> list[str]:
    return [frame["type"] for frame in client.frames if "seq" in frame and frame["type"] != "accepted"]


class Held:
    """The hub's log, with its appends held back until they are let through or refused."""

    def __init__(self, hub: Hub) -> None:
        self.whole = hub.node.log.events.append
        self.log = hub.node.log.events
        self.waiting: list[tuple[Append, AppendCallback]] = []
        self.came = asyncio.Event()
        self.log.append = self.hold  # type: ignore[method-assign]

    def hold(self, append: Append, done: AppendCallback) -> None:
        self.waiting.append((append, done))
        self.came.set()

    async def until_held(self) -> None:
        """Wait for an append that holds an answer; let through what comes before it."""
        async with asyncio.timeout(PATIENCE):
            while True:
                await self.came.wait()
                self.came.clear()
                ((append, _),) = self.waiting
                if "interrupt_resolved" in [entry.body.type for entry in append.events]:
                    return
                self.whole(*self.waiting.pop())

    def let_go(self, refuse: bool = False) -> None:
        """Refuse what is held or let it through, and hold nothing any more."""
        self.log.append = self.whole  # type: ignore[method-assign]
        for append, done in self.waiting:
            if refuse:
                done(StorageUnavailable("disk full"))
            else:
                self.whole(append, done)


async def until_it_writes(hub: Hub) -> None:
    """Wait until the log is tried again after a failure."""
    async with asyncio.timeout(PATIENCE):
        while hub.node.sessions[Key("s1")].outbox.state is OutboxState.BACKING_OFF:
            await asyncio.sleep(0.001)


def seen_appends(hub: Hub) -> list[list[str]]:
    """Return a list that fills with the kinds of events of each append, one commit each."""
    whole, seen = hub.node.log.events.append, []

    def append(given: Append, done: AppendCallback) -> None:
        seen.append([entry.body.type for entry in given.events])
        whole(given, done)

    hub.node.log.events.append = append  # type: ignore[method-assign]
    return seen


# --- asking and answering ---------------------------------------------------------------------------------------------


async def test_the_log_has_a_question_before_its_event_and_its_answer_before_the_agent(hub: Hub) -> None:
    """By AG-UI's fields; the session says that it waits for people."""
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
    assert kinds(client) == [
        *("user_message", "run_started", "stream", "interrupt", "interrupt_resolved", "stream", "run_finished")
    ]
    assert "interrupts" not in await client.until(lambda f: f["type"] == "state" and f["state"] == "idle")


async def test_a_question_that_is_not_logged_is_sent_to_nobody(hub: Hub) -> None:
    """Once it is there, whoever asks how things stand is."""
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
    held = Held(hub)
    gate.touch()
    await asyncio.wait_for(held.came.wait(), PATIENCE)
    assert [entry.body.type for entry in held.waiting[0][0].events] == ["interrupt"]
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/") as http:
        async with http.get("sessions/s1") as said:
            assert "interrupts" not in await said.json()
        held.let_go()
        question = await client.until_type("interrupt")
        async with http.get("sessions/s1") as said:
            assert [one["id"] for one in (await said.json())["interrupts"]] == [question["id"]]


async def test_the_agent_gets_its_answer_after_the_log_has_it(hub: Hub) -> None:
    """While the commit is under way nothing is said, and nobody is told."""
    await start(hub)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client)
    held = Held(hub)
    await answer(client, question)
    await held.until_held()
    assert [entry.body.type for append, _ in held.waiting for entry in append.events] == ["interrupt_resolved"]
    assert kinds(client)[-1] == "interrupt" and len(hub.node.sessions[Key("s1")].runs) == 1
    held.let_go()
    await client.until_done()


async def test_people_may_decline(hub: Hub) -> None:
    """`cancelled` is an answer like another; what to do is the agent's to say."""
    await start(hub)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client)
    await client.send(type="resume", sessionId="s1", interruptId=question["id"], status="cancelled")
    end = await client.until_done()
    assert end["stopReason"] == "end_turn" and client.text() == "Well. local cancelled None"


async def test_a_plain_client_receives_no_question(hub: Hub) -> None:
    """But text; it may answer, and hears `ok`."""
    await start(hub)
    plain = await hub.connect("?sessionId=s1")
    other = await hub.connect("?sessionId=s1", extended=True)
    await plain.send(type="chat", agentId="asks", sessionId="s1", message="Sure?")
    await answer(plain, await other.until_type("interrupt"))
    await plain.until_done()
    assert {frame["type"] for frame in plain.frames} == {"stream", "ok"}
    assert plain.text() == "Well. local resolved True"


async def test_several_questions_may_be_open_at_once(hub: Hub) -> None:
    """Each gets its own answer, in whatever order they come."""
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


async def test_a_question_is_answered_over_http(hub: Hub) -> None:
    """The same command; the session shows what is open."""
    await start(hub)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client)
    body = {"interruptId": question["id"], "status": "resolved", "payload": 7}
    async with aiohttp.ClientSession(hub.url) as http:
        async with http.get("/api/v1/sessions/s1") as shown:
            said = await shown.json()
        assert said["state"] == "requires_action" and said["interrupts"][0]["id"] == question["id"]
        answers = []
        for change in ({}, {}, {"interruptId": "i_none"}, {"status": "maybe"}):
            async with http.post("/api/v1/sessions/s1/resume", json=body | change) as response:
                answers.append((response.status, (await response.json()).get("code")))
    assert answers == [(200, None), (409, "already_resolved"), (404, "unknown_interrupt"), (400, "bad_frame")]
    await client.until_done()
    assert client.text() == "Well. local resolved 7"


async def test_the_envelope_shows_a_question_as_a_status(hub: Hub) -> None:
    """With the names of the events."""
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


async def test_the_first_answer_wins(hub: Hub) -> None:
    """Whoever comes later hears so, also after the run's end and after a restart; what was never asked is unknown."""
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


def given(question: dict[str, Any], payload: Any) -> Resume:
    return Resume(sessionId="s1", interruptId=question["id"], status="resolved", payload=payload)


async def test_two_answers_race_and_one_is_logged(hub: Hub) -> None:
    """The second comes while the first one's commit is in flight."""
    await start(hub)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client)
    held = Held(hub)
    both = [asyncio.create_task(commands.resume(hub.door, ANN, given(question, n))) for n in (1, 2)]
    await held.until_held()
    await asyncio.sleep(0)
    held.let_go()
    first, second = await asyncio.gather(*both, return_exceptions=True)
    assert first == Ok() and isinstance(second, AlreadyResolved)
    await client.until_done()
    assert client.text() == "Well. ann resolved 1" and kinds(client).count("interrupt_resolved") == 1


async def test_an_answer_that_cannot_be_logged_is_refused_and_its_question_stays_open(hub: Hub) -> None:
    """So are those that wait for it; the next answer is as good as the first."""
    await start(hub, retry_seconds=0.02)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client)
    held = Held(hub)
    first = asyncio.create_task(commands.resume(hub.door, ANN, given(question, 1)))
    await held.until_held()
    held.let_go(refuse=True)
    with pytest.raises(StorageUnavailable):
        await first
    await answer(client, question, 2)
    await client.until_done()
    assert client.text() == "Well. local resolved 2" and kinds(client).count("interrupt_resolved") == 1


async def test_answers_are_refused_while_the_log_fails(hub: Hub) -> None:
    """It would wait for a disk that may never come back."""
    await start(hub, BESIDE, "beside", retry_seconds=0.02)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client, "beside")
    held, outbox = Held(hub), hub.node.sessions[Key("s1")].outbox
    held.log.append = lambda _, done: done(StorageUnavailable("disk full"))  # type: ignore[method-assign]
    async with asyncio.timeout(PATIENCE):
        while outbox.state is not OutboxState.BACKING_OFF:
            await asyncio.sleep(0.001)
    await answer(client, question)
    assert (await client.until_type("error"))["code"] == "storage_unavailable"
    held.let_go()
    await until_it_writes(hub)
    await answer(client, question)
    await client.until_done()
    said = client.text().split()
    assert said[:-2] == [str(n) for n in range(int(said[-1]))] and said[-2] == "True"


@pytest.mark.parametrize("refuse", [False, True])
async def test_a_run_that_ends_while_an_answer_is_on_its_way_closes_its_question_once(hub: Hub, refuse: bool) -> None:
    """By the answer where that is kept, else with its end."""
    await start(hub, retry_seconds=0.02)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client)
    held = Held(hub)
    task = asyncio.create_task(commands.resume(hub.door, ANN, given(question, 1)))
    await held.until_held()
    run = hub.node.sessions[Key("s1")].runs[question["runId"]]
    run.stop("cancelled")
    async with asyncio.timeout(PATIENCE):
        while not run.has_ended:
            await asyncio.sleep(0)
    held.let_go(refuse)
    (said,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(said, StorageUnavailable) if refuse else said == Ok()
    assert (await client.until_done())["stopReason"] == "cancelled"
    (resolved,) = [frame for frame in client.frames if frame["type"] == "interrupt_resolved"]
    assert resolved["status"] == ("cancelled" if refuse else "resolved")
    assert kinds(client)[-2:] == ["interrupt_resolved", "run_finished"]


@pytest.mark.parametrize("over", [0, 1])
async def test_the_payload_of_an_answer_has_a_limit(hub: Hub, over: int) -> None:
    """Past the limit it is refused, and the question stays open."""
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
    """Past the limit the agent gets an error, which ends it where it does not catch it."""
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


async def test_the_silence_limit_does_not_tick_while_a_question_is_open(hub: Hub) -> None:
    """Another run falls silent meanwhile and ends; when the answer is there, silence counts again."""
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


async def test_silence_counts_from_the_answer_on(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long people took."""
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
    ahead[0] = 690.0  # past the moment at which the hub first looks whether the answer has fallen silent
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


async def by_cancel(hub: Hub, client: Client) -> None:
    await client.send(type="cancel", sessionId="s1")


async def by_error(hub: Hub, client: Client) -> None:
    second = await client.until_type("interrupt")
    await answer(client, second)


async def by_drain(hub: Hub, client: Client) -> None:
    hub.node.drain()
    hurry = asyncio.Event()
    hurry.set()
    await finish_runs(hub.node, 0, hurry)


async def by_time(hub: Hub, client: Client) -> None:
    """Wait for the limit."""


ENDS = [
    ("asks", ASKS, by_cancel, {}, "cancelled"),
    ("asks", ASKS, by_time, {"run_seconds": 0.3}, "timeout"),
    ("raises", RAISES, by_error, {}, "error"),
    ("asks", ASKS, by_drain, {}, "aborted"),
]


@pytest.mark.parametrize("name, code, end, limits, reason", ENDS, ids=[end[-1] for end in ENDS])
async def test_a_run_that_ends_closes_its_questions_in_the_same_commit(
    hub: Hub, name: str, code: str, end: Callable[..., Any], limits: dict[str, float], reason: str
) -> None:
    """As cancelled by nobody, just before its end."""
    await start(hub, code, name, **limits)
    client = await hub.connect("?sessionId=s1", extended=True)
    commits = seen_appends(hub)
    question = await ask(client, name)
    await end(hub, client)
    assert (await client.until_done())["stopReason"] == reason
    resolved = [f for f in client.frames if f["type"] == "interrupt_resolved" and f["interruptId"] == question["id"]]
    assert [(frame["status"], "resolvedBy" in frame, "payload" in frame) for frame in resolved] == [
        ("cancelled", False, False)
    ]
    error = ["run_error"] if reason == "error" else []
    assert ["interrupt_resolved", *error, "run_finished"] in commits


async def test_while_the_hub_goes_down_a_question_may_still_be_answered(hub: Hub) -> None:
    """It waits for what runs; a chat it refuses."""
    await start(hub)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client)
    hub.node.drain()
    await answer(client, question)
    assert (await client.until_done())["stopReason"] == "end_turn"


async def test_an_answer_is_logged_after_a_drain_has_suspended_its_run(hub: Hub) -> None:
    """Whoever gave it hears so, and the outbox goes on; the next start runs the agent again."""
    await start(hub, "from hub import agent\n\n@agent(restartable=True)" + ASKS)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client)
    held = Held(hub)
    answering = asyncio.create_task(commands.resume(hub.door, ANN, given(question, True)))
    await held.until_held()
    hub.node.drain()
    hurry = asyncio.Event()
    hurry.set()
    await finish_runs(hub.node, 0, hurry)
    held.let_go()
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

    held = Held(hub)
    items = [
        PendingEvent(None, None, UserMessage(messageId=f"m{n}", author=ANN.author, content="hello"), is_refusable=True)
        for n in range(2)
    ]
    waits = [attach_future(items[0], fails), attach_future(items[1])]
    outbox.put(*items)
    held.let_go(refuse)
    told = await asyncio.wait_for(asyncio.gather(*waits, return_exceptions=True), PATIENCE)
    assert [isinstance(seq, StorageUnavailable) for seq in told] == [refuse, refuse]
    later = PendingEvent(None, None, UserMessage(messageId="m2", author=ANN.author, content="later"))
    kept = attach_future(later)
    outbox.put(later)
    assert await asyncio.wait_for(kept, PATIENCE)


async def test_after_kill_9_the_next_start_closes_open_questions(tmp_path: Path) -> None:
    """Just before the end that it writes; an answer that was there before stands."""
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
            assert kinds(client)[-2:] == ["interrupt_resolved", "run_finished"]
            closed = await client.find(lambda f: f["type"] == "interrupt_resolved")
            assert (closed["interruptId"], closed["status"]) == (second["id"], "cancelled")
            await answer(client, second)
            assert (await client.until_type("error"))["code"] == "already_resolved"
    finally:
        await hub.kill()


async def test_a_run_that_starts_again_asks_again(hub: Hub) -> None:
    """The question of its first attempt is closed first."""
    await start(hub, "from hub import agent\n\n@agent(restartable=True)" + ASKS)
    client = await hub.connect("?sessionId=s1", extended=True)
    first = await ask(client)
    await hub.stop()
    await hub.start()
    client = await hub.connect(f"?sessionId=s1&afterSeq={first['seq']}", extended=True)
    second = await client.until_type("interrupt")
    assert kinds(client) == ["interrupt_resolved", "message_removed", "run_started", "stream", "interrupt"]
    await answer(client, first)
    assert (await client.until_type("error"))["code"] == "already_resolved"
    await answer(client, second, 2)
    await client.until_done()
    assert client.text() == "Well. local resolved 2"


async def test_a_question_of_a_suspended_run_cannot_be_answered(hub: Hub) -> None:
    """The hub is going down; the same question comes anew."""
    await start(hub, "from hub import agent\n\n@agent(restartable=True)" + ASKS)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client)
    commits = seen_appends(hub)
    await by_drain(hub, client)
    await answer(client, question)
    assert (await client.until_type("error"))["code"] == "draining"
    await hub.stop()
    assert commits == []  # what is open in the log, the next start closes


async def test_an_agent_may_withdraw_its_question(hub: Hub) -> None:
    """With a limit of its own, say; the run goes on, and a late answer is refused."""
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
    """It has nobody who waits for another answer."""
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
    held = Held(hub)
    late = asyncio.create_task(commands.resume(hub.door, ANN, given(question, 1)))
    await held.until_held()
    gate.touch()
    await eventually(lambda: not gate.exists())
    held.let_go(refuse=True)
    with pytest.raises(StorageUnavailable):
        await late
    closed = await client.until_type("interrupt_resolved")
    assert (closed["interruptId"], closed["status"]) == (question["id"], "cancelled")


async def test_a_stopped_run_does_not_wait_for_answers(hub: Hub) -> None:
    """Its question is closed with its end, and takes no answer before."""
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
    assert kinds(client)[-2:] == ["interrupt_resolved", "run_finished"]


# --- beside the text --------------------------------------------------------------------------------------------------


async def test_text_beside_an_open_question_is_complete_in_every_protocol(hub: Hub) -> None:
    """Its events end messages where they stand in the log, also where an answer was refused before."""
    await start(hub, BESIDE.replace("0.001", "0"), "beside", retry_seconds=0.02)
    client = await hub.connect("?sessionId=s1", extended=True)
    whole = await hub.connect("?sessionId=s1&stream=false")
    question = await ask(client, "beside")
    await client.until_type("stream")
    held = Held(hub)
    refused = asyncio.create_task(commands.resume(hub.door, ANN, given(question, 1)))
    await held.until_held()
    held.let_go(refuse=True)
    with pytest.raises(StorageUnavailable):
        await refused
    await until_it_writes(hub)
    held = Held(hub)
    kept = asyncio.create_task(commands.resume(hub.door, ANN, given(question, "yes")))
    await held.until_held()
    for _ in range(100):
        await asyncio.sleep(0)  # what the agent says now would stand on both sides of the answer
    held.let_go()
    await kept
    await client.until_done()
    await whole.until_done()
    assert client.text() == whole.text()
    said = client.text().split()
    assert said == [*(str(n) for n in range(int(said[-1]))), "yes", said[-1]]
    for message_id in {f["messageId"] for f in client.frames if f["type"] == "stream"}:
        chunks = [f for f in client.frames if f["type"] == "stream" and f["messageId"] == message_id]
        assert [c["offset"] for c in chunks] == [
            sum(len(before["content"]) for before in chunks[:n]) for n in range(len(chunks))
        ]
    parted = [frame["messageId"] for frame in whole.frames if frame["type"] == "message"]
    assert len(parted) == len(set(parted)) == 3


# --- who can ask ------------------------------------------------------------------------------------------------------


async def test_an_agent_that_is_called_asks_in_its_callers_run(hub: Hub) -> None:
    """People see one answer, and that asks."""
    hub.agent("caller.py", 'async def caller(run):\n    yield "It said: " + await run.call("asks", run.message)')
    await start(hub)
    client = await hub.connect("?sessionId=s1", extended=True)
    question = await ask(client, "caller")
    assert question["agentId"] == "caller" and question["message"] == "Sure?"
    await answer(client, question, "yes")
    await client.until_done()
    assert client.text() == "It said: Well. local resolved yes"


async def test_without_a_session_there_is_nobody_to_ask(hub: Hub) -> None:
    """The agent gets an error, and so does its client where it does not catch it; the same for one that it calls."""
    hub.agent("caller.py", 'async def caller(run):\n    yield await run.call("asks", run.message)')
    await start(hub)
    async with aiohttp.ClientSession(hub.url) as http:
        for model in ("asks", "caller"):
            body = {"model": model, "messages": [{"role": "user", "content": "Sure?"}]}
            async with http.post("/v1/chat/completions", json=body) as response:
                said = await response.json()
            assert response.status == 422 and said["error"]["code"] == "nobody_to_ask"


async def test_an_openai_client_in_a_session_waits_for_the_people_there(hub: Hub) -> None:
    """They answer, and it hears the rest."""
    await start(hub)
    client = await hub.connect("?sessionId=s1", extended=True)
    body = {"model": "asks", "sessionId": "s1", "messages": [{"role": "user", "content": "Sure?"}]}
    async with aiohttp.ClientSession(hub.url) as http:
        async with asyncio.timeout(PATIENCE):
            asking = asyncio.create_task(http.post("/v1/chat/completions", json=body).__aenter__())
            await answer(client, await client.until_type("interrupt"))
            said = await (await asking).json()
    assert said["choices"][0]["message"]["content"] == "Well. local resolved True"


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
    """Nothing of it is logged."""
    await start(hub, code, "odd")
    client = await hub.connect("?sessionId=s1", extended=True)
    await client.send(type="chat", agentId="odd", sessionId="s1", message="x")
    assert (await client.until_type("run_error"))["code"] == error
    await client.until_done()
    assert "interrupt" not in kinds(client)


async def test_a_stopped_run_cannot_ask(hub: Hub) -> None:
    """An agent that would ask while it cleans up gets an error at once."""
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
    await ask(client, "late", message=str(hub.folder / "said"))
    await client.send(type="cancel", sessionId="s1")
    await client.until_done()
    assert (hub.folder / "said").read_text() == "nobody_to_ask" and kinds(client).count("interrupt") == 1

"""AG-UI: checked against its own models, and driven by its own client."""

import asyncio
import json
from pathlib import Path
from typing import Any, get_args

import aiohttp
import pytest
from ag_ui.core import Event as AgUiEvent
from ag_ui.core import ImagePart, ResumeEntry, RunAgentInput, TextPart, UrlSource
from pydantic import TypeAdapter
from support.agents import EVERYTHING
from support.agui import asked, events, text
from support.hub import Hub
from support.node import needs_node, run_node
from support.waiting import PATIENCE

from hub.ids import Key
from hub.limits import MiB
from hub.messages import RunFinished, StopReason
from hub.protocols.agui import TRANSLATIONS

CHECK: TypeAdapter[Any] = TypeAdapter(AgUiEvent)


async def test_every_event_is_one_of_ag_uis(hub: Hub) -> None:
    """Its own models read each of them; a run begins and ends once, by the id that its client gave it."""
    hub.agent("everything.py", EVERYTHING)
    await hub.start()
    said = await events(hub, "everything", asked("x"))
    for event in said:
        CHECK.validate_python(event)
    assert [event["type"] for event in said] == [
        *("RUN_STARTED", "TEXT_MESSAGE_CHUNK", "REASONING_MESSAGE_CHUNK", "REASONING_MESSAGE_CHUNK"),
        *("TEXT_MESSAGE_CHUNK", "REASONING_MESSAGE_CHUNK", "STEP_STARTED", "TOOL_CALL_START", "TOOL_CALL_ARGS"),
        *("TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT", "STEP_FINISHED", "CUSTOM", "CUSTOM"),
        *("STATE_SNAPSHOT", "STATE_DELTA", "TEXT_MESSAGE_CHUNK", "RUN_FINISHED"),
    ]
    assert {(event["threadId"], event["runId"]) for event in (said[0], said[-1])} == {("t1", "run-1")}
    assert text(said) == "before between after"


async def test_a_run_is_heard_by_all_in_its_session(hub: Hub) -> None:
    """The thread is a session like any other."""
    await hub.start()
    socket = await hub.connect("?sessionId=t1")
    said = await events(hub, "echo", asked("hello there"))
    await socket.until_done()
    assert text(said) == socket.text() == "hello there "


@pytest.mark.parametrize("reason", ["timeout", "cancelled"])
async def test_a_run_that_was_cut_says_so(hub: Hub, tmp_path: Path, reason: str) -> None:
    """One end: an error for a run that took too long, the outcome `cancelled` for one that somebody stopped."""
    await hub.start(run_seconds=0.5 if reason == "timeout" else 3600)
    socket = await hub.connect("?sessionId=t1", extended=True)
    running = asyncio.create_task(events(hub, "gated", asked(str(tmp_path / "gate"))))
    await socket.until_type("stream")
    if reason == "cancelled":
        await socket.send(type="cancel", sessionId="t1")
    said = await asyncio.wait_for(running, PATIENCE)
    for event in said:
        CHECK.validate_python(event)
    if reason == "timeout":
        assert (said[-1]["type"], said[-1]["code"]) == ("RUN_ERROR", "timeout")
    else:
        assert (said[-1]["type"], said[-1]["outcome"]) == ("RUN_FINISHED", {"type": "cancelled"})
    assert [event["type"] for event in said[:-1]] == ["RUN_STARTED", "TEXT_MESSAGE_CHUNK"]


def test_the_end_of_each_run() -> None:
    """By its stop reason; `error` has had its RUN_ERROR."""
    errors = {"timeout": "RUN_ERROR", "aborted": "RUN_ERROR", "error": ""}
    for reason in get_args(StopReason):
        kind, _ = TRANSLATIONS[RunFinished](RunFinished("m1", reason))
        assert kind == errors.get(reason, "RUN_FINISHED"), reason


async def test_a_lost_stream_is_taken_up_again(hub: Hub, tmp_path: Path) -> None:
    """The same request with the last id goes on with the same run; without it, from its beginning; it runs once."""
    gate = tmp_path / "gate"
    await hub.start()
    first = await events(hub, "gated", asked(str(gate)), most=2)
    assert [event["type"] for event in first] == ["RUN_STARTED", "TEXT_MESSAGE_CHUNK"]
    gate.touch()
    rest = await events(hub, "gated", asked(str(gate)), **{"Last-Event-ID": first[-1]["id"]})
    assert text(first) + text(rest) == "one two" and rest[-1]["type"] == "RUN_FINISHED"
    whole = await events(hub, "gated", asked(str(gate)))
    assert text(whole) == "one two" and whole[0]["type"] == "RUN_STARTED"
    assert len(await hub.node.read_history(Key("t1"), 100)) == 2


async def test_what_a_user_sends_beside_text_becomes_parts(hub: Hub) -> None:
    """In their order, with the text as the message; where there is text alone it is the message, and no part."""
    hub.agent("parts.py", "async def parts(run):\n    yield f'{run.message} {[part[\"type\"] for part in run.parts]}'")
    await hub.start()
    image = ImagePart(source=UrlSource(value="https://example.org/a.png"))
    content = [TextPart(text="look "), image, TextPart(text="here")]
    assert text(await events(hub, "parts", asked(content))) == "look here ['text', 'image', 'text']"
    assert text(await events(hub, "parts", asked([TextPart(text="only")], "run-2"))) == "only []"
    first, *_ = await hub.node.log.sessions.read_last_messages(Key("t1"), 9, MiB)
    assert first.parts is not None and first.parts[1]["source"] == {"type": "url", "value": "https://example.org/a.png"}


async def test_a_run_that_fails_ends_with_its_error(hub: Hub) -> None:
    """And with nothing after it."""
    hub.agent("failing.py", "async def failing(message: str):\n    yield 'one '\n    raise ValueError(message)")
    await hub.start()
    said = await events(hub, "failing", asked("x"))
    assert [event["type"] for event in said] == ["RUN_STARTED", "TEXT_MESSAGE_CHUNK", "RUN_ERROR"]
    assert said[-1]["code"] == "agent_error"


@pytest.mark.parametrize(
    "agent, body, status",
    [
        ("nobody", {}, 404),
        ("echo", {"messages": []}, 400),
        ("echo", {"messages": [{"id": "a", "role": "assistant", "content": "x"}]}, 400),
        ("echo", {"messages": [{"id": "a", "role": "user", "content": [{"type": "hologram"}]}]}, 400),
        ("echo", {"messages": [{"id": "a", "role": "user", "content": 7}]}, 400),
        ("echo", {"threadId": "a b"}, 400),
        ("echo", {"runId": 7}, 400),
    ],
)
async def test_a_bad_request_is_refused(hub: Hub, agent: str, body: dict[str, Any], status: int) -> None:
    """Before a stream begins."""
    await hub.start()
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{hub.url}/api/v1/agents/{agent}/agui", json=asked("x") | body) as response:
            assert response.status == status and set(await response.json()) == {"error", "code"}


async def test_a_large_tool_result_is_short_here(hub: Hub) -> None:
    """AG-UI has no name for a file: its clients hear the start."""
    hub.agent(
        "large.py", "from hub import *\n\nasync def large(message: str):\n    yield ToolCallResult('c', 'x' * 40_000)"
    )
    await hub.start()
    (result,) = [one for one in await events(hub, "large", asked("x")) if one["type"] == "TOOL_CALL_RESULT"]
    CHECK.validate_python(result)
    assert result["content"] == "x" * 1024


@needs_node
async def test_the_client_for_node(hub: Hub) -> None:
    """AG-UI's HttpAgent puts text, tool calls and state together."""
    hub.agent("everything.py", EVERYTHING)
    await hub.start()
    made = json.loads(await run_node("agui.js", f"{hub.url}/api/v1/agents/everything/agui", "t1", "x"))
    answers = [message for message in made["messages"] if message["role"] == "assistant"]
    assert [one["content"] for one in answers if one.get("content")] == ["before ", "between ", "after"]
    calls = [call for one in answers for call in one.get("toolCalls") or ()]
    assert [(call["function"]["name"], call["function"]["arguments"]) for call in calls] == [("search", '{"q":1}')]
    assert made["state"] == {"n": 2}
    assert made["events"][0] == "RUN_STARTED" and made["events"][-1] == "RUN_FINISHED"


# --- questions --------------------------------------------------------------------------------------------------------

ASKS = """
async def asks(run):
    yield "Well. "
    reply = await run.ask(run.message, schema={"type": "boolean"}, tool_call_id="c1")
    yield f"{reply.status} {reply.payload}. "
    reply = await run.ask("And now?")
    yield f"{reply.status} {reply.payload}."
"""


TWO = """
import asyncio

async def two(run):
    replies = await asyncio.gather(run.ask("a"), run.ask("b"))
    yield " ".join(str(reply.payload) for reply in replies)
"""


def resumed(question: dict[str, Any], run_id: str, payload: Any = True, status: str = "resolved") -> dict[str, Any]:
    """Return the answer to a question as AG-UI's package for Python makes it."""
    entry = ResumeEntry(interrupt_id=question["id"], status=status, payload=payload)  # type: ignore[arg-type]
    given = RunAgentInput(thread_id="t1", run_id=run_id, messages=[], tools=[], context=[], resume=[entry])
    body: dict[str, Any] = json.loads(given.model_dump_json(by_alias=True, exclude_none=True))
    return body


def question(said: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the one question that a run ended with."""
    assert said[-1]["type"] == "RUN_FINISHED" and said[-1]["outcome"]["type"] == "interrupt"
    (asked,) = said[-1]["outcome"]["interrupts"]
    return dict(asked)


async def test_a_run_that_asks_ends_and_its_answer_begins_the_next(hub: Hub) -> None:
    """As AG-UI's models have it: each of these is a run of AG-UI's, and all are one of the hub's."""
    hub.agent("asks.py", ASKS)
    await hub.start()
    first = await events(hub, "asks", asked("Sure?"))
    asks = question(first)
    assert {name: asks[name] for name in asks if name != "id"} == {
        "reason": "input_required",
        "message": "Sure?",
        "toolCallId": "c1",
        "responseSchema": {"type": "boolean"},
    }
    second = await events(hub, "asks", resumed(asks, "run-2"))
    third = await events(hub, "asks", resumed(question(second), "run-3", None, "cancelled"))
    for said, run_id in ((first, "run-1"), (second, "run-2"), (third, "run-3")):
        for event in said:
            CHECK.validate_python(event)
        assert [event["type"] for event in said].count("RUN_STARTED") == 1
        assert {(event["threadId"], event["runId"]) for event in (said[0], said[-1])} == {("t1", run_id)}
    assert [text(said) for said in (first, second, third)] == ["Well. ", "resolved True. ", "cancelled None."]
    assert third[-1]["result"] == {"stopReason": "end_turn"} and "outcome" not in third[-1]
    (told,) = [event["value"] for event in second if event["type"] == "CUSTOM"]
    assert told["interruptId"] == asks["id"] and told["payload"] is True and told["resolvedBy"]["id"] == "local"


async def test_a_lost_answer_is_sent_again(hub: Hub, tmp_path: Path) -> None:
    """It counts once; with the last id the stream goes on exactly, without it from its beginning, also later."""
    hub.agent("asks.py", ASKS)
    await hub.start()
    again = resumed(question(await events(hub, "asks", asked("Sure?"))), "run-2")
    cut = await events(hub, "asks", again, most=2)
    assert [event["type"] for event in cut] == ["RUN_STARTED", "CUSTOM"]
    rest = await events(hub, "asks", again, **{"Last-Event-ID": cut[-1]["id"]})
    assert text(rest) == "resolved True. " and "RUN_STARTED" not in [event["type"] for event in rest]
    end = await events(hub, "asks", resumed(question(rest), "run-3", 7))
    whole = await events(hub, "asks", again)
    assert [event["type"] for event in whole].count("RUN_STARTED") == 1 and whole[0]["runId"] == "run-2"
    assert text(whole) == "resolved True. " + text(end)  # what was asked then has its answer now
    await hub.stop()
    await hub.start()
    assert [event["type"] for event in await events(hub, "asks", again)] == [event["type"] for event in whole]


async def test_a_question_that_somebody_else_answered_is_refused_or_let_go(hub: Hub) -> None:
    """The first answer wins. Who `cancelled` it instead hears what was answered, and the rest."""
    hub.agent("asks.py", ASKS)
    await hub.start()
    asks = question(await events(hub, "asks", asked("Sure?")))
    socket = await hub.connect("?sessionId=t1", extended=True)
    await socket.send(type="resume", sessionId="t1", interruptId=asks["id"], status="resolved", payload="theirs")
    await socket.until_type("ok")
    url = f"{hub.url}/api/v1/agents/asks/agui"
    async with aiohttp.ClientSession() as http:
        async with http.post(url, json=resumed(asks, "run-2", "mine")) as response:
            assert response.status == 409 and (await response.json())["code"] == "already_resolved"
        async with http.post(url, json=resumed({"id": "i_none"}, "run-2")) as response:
            assert response.status == 404 and (await response.json())["code"] == "unknown_interrupt"
        async with http.post(url, json=resumed(asks, "run-2") | {"threadId": "t2"}) as response:
            assert response.status == 404
    assert await hub.node.log.sessions.find(Key("t2")) is None
    said = await events(hub, "asks", resumed(asks, "run-2", None, "cancelled"))
    assert text(said) == "resolved theirs. " and said[1]["value"]["payload"] == "theirs"
    assert question(said)["message"] == "And now?"


async def test_a_stream_does_not_end_with_a_question_that_has_its_answer(hub: Hub) -> None:
    """A request that is sent again hears on past it."""
    hub.agent("asks.py", ASKS)
    await hub.start()
    first = await events(hub, "asks", asked("Sure?"), most=2)
    socket = await hub.connect("?sessionId=t1", extended=True)
    for payload in (1, 2):
        open_now = await socket.find(lambda f: f["type"] == "interrupt" and (payload == 1) == (f["message"] == "Sure?"))
        told = {"interruptId": open_now["id"], "status": "resolved", "payload": payload}
        await socket.send(type="resume", sessionId="t1", **told)
        await socket.until_type("ok")
    rest = await events(hub, "asks", asked("Sure?"), **{"Last-Event-ID": first[-1]["id"]})
    assert text(first) + text(rest) == "Well. resolved 1. resolved 2."
    assert rest[-1]["type"] == "RUN_FINISHED" and "outcome" not in rest[-1]


async def test_questions_at_once_are_asked_one_after_the_other(hub: Hub) -> None:
    """Each run of AG-UI's ends with the next that is open; answers to several may come in one request."""
    hub.agent("two.py", TWO)
    await hub.start()
    first = question(await events(hub, "two", asked("x")))
    second = question(await events(hub, "two", resumed(first, "run-2", 1)))
    assert (first["message"], second["message"]) == ("a", "b")
    assert text(await events(hub, "two", resumed(second, "run-3", 2))) == "1 2"
    first = question(await events(hub, "two", asked("x", "run-4")))
    socket = await hub.connect("?sessionId=t1", extended=True)
    second = await socket.until(lambda f: f["type"] == "interrupt" and f["message"] == "b")
    both = resumed(first, "run-5", 3)
    both["resume"] += resumed(second, "run-5", 4)["resume"]
    assert text(await events(hub, "two", both)) == "3 4"
    other = question(await events(hub, "two", asked("x", "run-6")))
    both["resume"][0]["interruptId"] = other["id"]
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{hub.url}/api/v1/agents/two/agui", json=both) as response:
            assert response.status == 400  # questions of two runs


@pytest.mark.parametrize("payload, status", [(9, 409), ("x" * 70_000, 400)])
async def test_of_several_answers_all_are_taken_or_none(hub: Hub, payload: Any, status: int) -> None:
    """The second question has its answer already, or gets too large a one."""
    hub.agent("two.py", TWO)
    await hub.start()
    socket = await hub.connect("?sessionId=t1", extended=True)
    await socket.send(type="chat", agentId="two", sessionId="t1", message="x")
    first, second = [await socket.until_type("interrupt") for _ in range(2)]
    if status == 409:
        given = {"interruptId": second["id"], "status": "resolved", "payload": 2}
        await socket.send(type="resume", sessionId="t1", **given)
        await socket.until_type("ok")
    both = resumed(first, "run-2", 1)
    both["resume"] += resumed(second, "run-2", payload)["resume"]
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{hub.url}/api/v1/agents/two/agui", json=both) as response:
            assert response.status == status
    assert hub.node.sessions[Key("t1")].find_questions(first["id"]) is not None


@needs_node
async def test_the_client_for_node_answers(hub: Hub) -> None:
    """AG-UI's HttpAgent knows what is open, and goes on with its answer."""
    hub.agent("asks.py", ASKS)
    await hub.start()
    made = json.loads(await run_node("agui_resume.js", f"{hub.url}/api/v1/agents/asks/agui", "t1", "Sure?"))
    assert made["asked"] == ["Sure?", "And now?"] and made["pending"] == 0
    answers = [message["content"] for message in made["messages"] if message["role"] == "assistant"]
    assert answers == ["Well. ", "resolved yes. ", "resolved yes."]
    assert made["outcomes"] == ["interrupt", "interrupt", "success"]

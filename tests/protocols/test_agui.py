"""AG-UI: events are checked with its own models, and the hub is used with its own client."""

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
from support.agui import events, run_request, text
from support.hub import Hub
from support.node import needs_node, run_node
from support.waiting import PATIENCE

from hub.ids import Key
from hub.limits import MiB
from hub.messages import RunFinished, StopReason
from hub.node.history import read_history
from hub.protocols.agui import TRANSLATIONS

CHECK: TypeAdapter[Any] = TypeAdapter(AgUiEvent)


async def test_every_event_is_an_ag_ui_event(hub: Hub) -> None:
    """AG-UI's models accept each event; a run starts and ends once, with the id of the request."""
    hub.agent("everything.py", EVERYTHING)
    await hub.start()
    run_events = await events(hub, "everything", run_request("x"))
    for event in run_events:
        CHECK.validate_python(event)
    message = ("TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END")
    reasoning_start, reasoning_end = (
        ("REASONING_START", "REASONING_MESSAGE_START", "REASONING_MESSAGE_CONTENT"),
        ("REASONING_MESSAGE_END", "REASONING_END"),
    )
    assert [event["type"] for event in run_events] == [
        *("RUN_STARTED", *message, *reasoning_start, "REASONING_MESSAGE_CONTENT", *reasoning_end),
        *(*message, *reasoning_start, *reasoning_end, "STEP_STARTED", "TOOL_CALL_START", "TOOL_CALL_ARGS"),
        *("TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT", "STEP_FINISHED", "CUSTOM", "CUSTOM"),
        *("STATE_SNAPSHOT", "STATE_DELTA", *message, "RUN_FINISHED"),
    ]
    assert {(event["threadId"], event["runId"]) for event in (run_events[0], run_events[-1])} == {("t1", "run-1")}
    assert text(run_events) == "before between after"


async def test_all_subscribers_of_the_session_receive_the_run(hub: Hub) -> None:
    """A thread of AG-UI is a session of the hub."""
    await hub.start()
    socket = await hub.connect("?sessionId=t1")
    run_events = await events(hub, "echo", run_request("hello there"))
    await socket.until_done()
    assert text(run_events) == socket.text() == "hello there "


@pytest.mark.parametrize("reason", ["timeout", "cancelled"])
async def test_a_run_that_is_cut_short_shows_the_reason(hub: Hub, tmp_path: Path, reason: str) -> None:
    """A run past its time limit ends with an error, a cancelled run with the outcome `cancelled`.

    Clients before AG-UI 1.0, which name no version, do not accept this outcome.
    """
    await hub.start(run_seconds=0.5 if reason == "timeout" else 3600)
    socket = await hub.connect("?sessionId=t1", extended=True)
    body = run_request(str(tmp_path / "gate"))
    requests = [events(hub, "gated", body | version) for version in ({"protocolVersion": "1.0"}, {})]
    running = [asyncio.create_task(request) for request in requests]
    await socket.until_type("stream")
    if reason == "cancelled":
        await socket.send(type="cancel", sessionId="t1")
    run_events, older_events = await asyncio.wait_for(asyncio.gather(*running), PATIENCE)
    for event in (*run_events, *older_events):
        CHECK.validate_python(event)
    if reason == "timeout":
        assert (run_events[-1]["type"], run_events[-1]["code"]) == ("RUN_ERROR", "timeout")
    else:
        assert (run_events[-1]["type"], run_events[-1]["outcome"]) == ("RUN_FINISHED", {"type": "cancelled"})
        assert older_events[-1] == {name: value for name, value in run_events[-1].items() if name != "outcome"}
    assert [event["type"] for event in run_events[:-1]] == [
        *("RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END")
    ]


def test_each_stop_reason_has_its_last_event() -> None:
    """`error` has none, because its RUN_ERROR comes earlier."""
    errors = {"timeout": "RUN_ERROR", "aborted": "RUN_ERROR", "error": ""}
    for reason in get_args(StopReason):
        kind, _ = TRANSLATIONS[RunFinished](RunFinished("m1", reason))
        assert kind == errors.get(reason, "RUN_FINISHED"), reason


async def test_a_client_can_resume_a_lost_stream(hub: Hub, tmp_path: Path) -> None:
    """The same request resumes after `Last-Event-ID`, or starts from the beginning; the run is not repeated."""
    gate = tmp_path / "gate"
    await hub.start()
    first = await events(hub, "gated", run_request(str(gate)), most=3)
    assert [event["type"] for event in first] == ["RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT"]
    gate.touch()
    rest = await events(hub, "gated", run_request(str(gate)), **{"Last-Event-ID": first[-1]["id"]})
    assert text(first) + text(rest) == "one two" and rest[-1]["type"] == "RUN_FINISHED"
    whole = await events(hub, "gated", run_request(str(gate)))
    assert text(whole) == "one two" and whole[0]["type"] == "RUN_STARTED"
    assert len(await read_history(hub.node, Key("t1"), 100)) == 2


async def test_content_other_than_text_becomes_parts(hub: Hub) -> None:
    """Parts keep their order, and the joined text is the message; content of text alone has no parts."""
    hub.agent("parts.py", "async def parts(run):\n    yield f'{run.message} {[part[\"type\"] for part in run.parts]}'")
    await hub.start()
    image = ImagePart(source=UrlSource(value="https://example.org/a.png"))
    content = [TextPart(text="look "), image, TextPart(text="here")]
    assert text(await events(hub, "parts", run_request(content))) == "look here ['text', 'image', 'text']"
    assert text(await events(hub, "parts", run_request([TextPart(text="only")], "run-2"))) == "only []"
    first, *_ = await hub.node.log.sessions.read_last_messages(Key("t1"), 9, MiB)
    assert first.parts is not None and first.parts[1]["source"] == {"type": "url", "value": "https://example.org/a.png"}


async def test_a_run_that_fails_ends_with_its_error(hub: Hub) -> None:
    """RUN_ERROR is the last event."""
    hub.agent("failing.py", "async def failing(message: str):\n    yield 'one '\n    raise ValueError(message)")
    await hub.start()
    run_events = await events(hub, "failing", run_request("x"))
    assert [event["type"] for event in run_events] == [
        *("RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END", "RUN_ERROR")
    ]
    assert run_events[-1]["code"] == "agent_error"


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
    """The error is the response, not a stream."""
    await hub.start()
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{hub.url}/api/v1/agents/{agent}/agui", json=run_request("x") | body) as response:
            assert response.status == status and set(await response.json()) == {"error", "code"}


async def test_a_large_tool_result_is_cut(hub: Hub) -> None:
    """AG-UI has no field for a file: its clients receive the start of the result."""
    hub.agent(
        "large.py", "from hub import *\n\nasync def large(message: str):\n    yield ToolCallResult('c', 'x' * 40_000)"
    )
    await hub.start()
    (result,) = [one for one in await events(hub, "large", run_request("x")) if one["type"] == "TOOL_CALL_RESULT"]
    CHECK.validate_python(result)
    assert result["content"] == "x" * 1024


@needs_node
async def test_ag_uis_node_client(hub: Hub) -> None:
    """AG-UI's HttpAgent assembles text, tool calls and state."""
    hub.agent("everything.py", EVERYTHING)
    await hub.start()
    output = json.loads(await run_node("agui_run.js", f"{hub.url}/api/v1/agents/everything/agui", "t1", "x"))
    answers = [message for message in output["messages"] if message["role"] == "assistant"]
    assert [one["content"] for one in answers if one.get("content")] == ["before ", "between ", "after"]
    calls = [call for one in answers for call in one.get("toolCalls") or ()]
    assert [(call["function"]["name"], call["function"]["arguments"]) for call in calls] == [("search", '{"q":1}')]
    assert output["state"] == {"n": 2}
    assert output["events"][0] == "RUN_STARTED" and output["events"][-1] == "RUN_FINISHED"


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


def resume_request(
    question: dict[str, Any], run_id: str, payload: Any = True, status: str = "resolved"
) -> dict[str, Any]:
    """Return a request that answers a question, as AG-UI's package for Python makes it."""
    entry = ResumeEntry(interrupt_id=question["id"], status=status, payload=payload)  # type: ignore[arg-type]
    run_input = RunAgentInput(thread_id="t1", run_id=run_id, messages=[], tools=[], context=[], resume=[entry])
    body: dict[str, Any] = json.loads(run_input.model_dump_json(by_alias=True, exclude_none=True))
    return body


def run_call_id(hub: Hub, call_id: str) -> str:
    """Return the id that clients get for a call of the only run of the session."""
    (run,) = hub.node.sessions[Key("t1")].schedule.active_runs
    return f"{call_id}-{run}"


def question(run_events: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the only question at the end of a run."""
    assert run_events[-1]["type"] == "RUN_FINISHED" and run_events[-1]["outcome"]["type"] == "interrupt"
    (interrupt,) = run_events[-1]["outcome"]["interrupts"]
    return dict(interrupt)


async def test_a_question_ends_an_ag_ui_run_and_its_answer_starts_the_next(hub: Hub) -> None:
    """Together these AG-UI runs are one run of the hub."""
    hub.agent("asks.py", ASKS)
    await hub.start()
    first = await events(hub, "asks", run_request("Sure?"))
    asks = question(first)
    assert {name: asks[name] for name in asks if name != "id"} == {
        "reason": "input_required",
        "message": "Sure?",
        "toolCallId": run_call_id(hub, "c1"),
        "responseSchema": {"type": "boolean"},
    }
    second = await events(hub, "asks", resume_request(asks, "run-2"))
    third = await events(hub, "asks", resume_request(question(second), "run-3", None, "cancelled"))
    for run_events, run_id in ((first, "run-1"), (second, "run-2"), (third, "run-3")):
        for event in run_events:
            CHECK.validate_python(event)
        assert [event["type"] for event in run_events].count("RUN_STARTED") == 1
        assert {(event["threadId"], event["runId"]) for event in (run_events[0], run_events[-1])} == {("t1", run_id)}
    assert [text(run_events) for run_events in (first, second, third)] == [
        "Well. ",
        "resolved True. ",
        "cancelled None.",
    ]
    assert third[-1]["result"] == {"stopReason": "end_turn"} and third[-1]["outcome"] == {"type": "success"}
    (notice,) = [event["value"] for event in second if event["type"] == "CUSTOM"]
    assert notice["interruptId"] == asks["id"] and notice["payload"] is True and notice["resolvedBy"]["id"] == "local"


async def test_an_answer_can_be_sent_again(hub: Hub, tmp_path: Path) -> None:
    """It counts once. The stream resumes after `Last-Event-ID`, or starts from its beginning, even after a restart."""
    hub.agent("asks.py", ASKS)
    await hub.start()
    again = resume_request(question(await events(hub, "asks", run_request("Sure?"))), "run-2")
    cut = await events(hub, "asks", again, most=2)
    assert [event["type"] for event in cut] == ["RUN_STARTED", "CUSTOM"]
    rest = await events(hub, "asks", again, **{"Last-Event-ID": cut[-1]["id"]})
    assert text(rest) == "resolved True. " and "RUN_STARTED" not in [event["type"] for event in rest]
    end = await events(hub, "asks", resume_request(question(rest), "run-3", 7))
    whole = await events(hub, "asks", again)
    assert [event["type"] for event in whole].count("RUN_STARTED") == 1 and whole[0]["runId"] == "run-2"
    assert text(whole) == "resolved True. " + text(end)  # the second question has its answer by now
    await hub.stop()
    await hub.start()
    assert [event["type"] for event in await events(hub, "asks", again)] == [event["type"] for event in whole]


async def test_a_second_answer_to_a_question_is_refused_but_a_cancel_is_not(hub: Hub) -> None:
    """The first answer wins. A request that cancels the question receives that answer and the rest of the run."""
    hub.agent("asks.py", ASKS)
    await hub.start()
    asks = question(await events(hub, "asks", run_request("Sure?")))
    socket = await hub.connect("?sessionId=t1", extended=True)
    await socket.send(type="resume", sessionId="t1", interruptId=asks["id"], status="resolved", payload="theirs")
    await socket.until_type("ok")
    url = f"{hub.url}/api/v1/agents/asks/agui"
    async with aiohttp.ClientSession() as http:
        async with http.post(url, json=resume_request(asks, "run-2", "mine")) as response:
            assert response.status == 409 and (await response.json())["code"] == "already_resolved"
        async with http.post(url, json=resume_request({"id": "i_none"}, "run-2")) as response:
            assert response.status == 404 and (await response.json())["code"] == "unknown_interrupt"
        async with http.post(url, json=resume_request(asks, "run-2") | {"threadId": "t2"}) as response:
            assert response.status == 404
    assert await hub.node.log.sessions.find(Key("t2")) is None
    run_events = await events(hub, "asks", resume_request(asks, "run-2", None, "cancelled"))
    assert text(run_events) == "resolved theirs. " and run_events[1]["value"]["payload"] == "theirs"
    assert question(run_events)["message"] == "And now?"


async def test_a_stream_does_not_end_with_a_question_that_has_an_answer(hub: Hub) -> None:
    """A repeated request receives the question and the events after it."""
    hub.agent("asks.py", ASKS)
    await hub.start()
    first = await events(hub, "asks", run_request("Sure?"), most=3)
    socket = await hub.connect("?sessionId=t1", extended=True)
    for payload in (1, 2):
        open_now = await socket.find(lambda f: f["type"] == "interrupt" and (payload == 1) == (f["message"] == "Sure?"))
        notice = {"interruptId": open_now["id"], "status": "resolved", "payload": payload}
        await socket.send(type="resume", sessionId="t1", **notice)
        await socket.until_type("ok")
    rest = await events(hub, "asks", run_request("Sure?"), **{"Last-Event-ID": first[-1]["id"]})
    assert text(first) + text(rest) == "Well. resolved 1. resolved 2."
    assert rest[-1]["type"] == "RUN_FINISHED" and rest[-1]["outcome"] == {"type": "success"}


async def test_concurrent_questions_come_one_after_the_other(hub: Hub) -> None:
    """Each AG-UI run ends with the next open question; one request may answer several questions."""
    hub.agent("two.py", TWO)
    await hub.start()
    first = question(await events(hub, "two", run_request("x")))
    second = question(await events(hub, "two", resume_request(first, "run-2", 1)))
    assert (first["message"], second["message"]) == ("a", "b")
    assert text(await events(hub, "two", resume_request(second, "run-3", 2))) == "1 2"
    first = question(await events(hub, "two", run_request("x", "run-4")))
    socket = await hub.connect("?sessionId=t1", extended=True)
    second = await socket.until(lambda f: f["type"] == "interrupt" and f["message"] == "b")
    both = resume_request(first, "run-5", 3)
    both["resume"] += resume_request(second, "run-5", 4)["resume"]
    assert text(await events(hub, "two", both)) == "3 4"
    other = question(await events(hub, "two", run_request("x", "run-6")))
    both["resume"][0]["interruptId"] = other["id"]
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{hub.url}/api/v1/agents/two/agui", json=both) as response:
            assert response.status == 400  # questions of two runs


@pytest.mark.parametrize("payload, status", [(9, 409), ("x" * 70_000, 400)])
async def test_a_request_with_several_answers_is_accepted_or_refused_as_a_whole(
    hub: Hub, payload: Any, status: int
) -> None:
    """The second answer is invalid: the question has an answer already, or the payload is too large."""
    hub.agent("two.py", TWO)
    await hub.start()
    socket = await hub.connect("?sessionId=t1", extended=True)
    await socket.send(type="chat", agentId="two", sessionId="t1", message="x")
    first, second = [await socket.until_type("interrupt") for _ in range(2)]
    if status == 409:
        reply = {"interruptId": second["id"], "status": "resolved", "payload": 2}
        await socket.send(type="resume", sessionId="t1", **reply)
        await socket.until_type("ok")
    both = resume_request(first, "run-2", 1)
    both["resume"] += resume_request(second, "run-2", payload)["resume"]
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{hub.url}/api/v1/agents/two/agui", json=both) as response:
            assert response.status == status
    assert hub.node.sessions[Key("t1")].find_questions(first["id"]) is not None


@needs_node
async def test_ag_uis_node_client_answers_questions(hub: Hub) -> None:
    """AG-UI's HttpAgent lists the open questions, and resumes the run with an answer."""
    hub.agent("asks.py", ASKS)
    await hub.start()
    output = json.loads(await run_node("agui_resume.js", f"{hub.url}/api/v1/agents/asks/agui", "t1", "Sure?"))
    assert output["asked"] == ["Sure?", "And now?"] and output["pending"] == 0
    answers = [message["content"] for message in output["messages"] if message["role"] == "assistant"]
    assert answers == ["Well. ", "resolved yes. ", "resolved yes."]
    assert output["outcomes"] == ["interrupt", "interrupt", "success"]

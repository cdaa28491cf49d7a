"""AG-UI: checked against its own models, and driven by its own client."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from ag_ui.core import Event as AgUiEvent
from ag_ui.core import ImagePart, RunAgentInput, TextPart, UrlSource, UserMessage
from fakes import PATIENCE, Hub
from nodes import needs_node, run_node
from pydantic import TypeAdapter
from test_content import EVERYTHING

CHECK: TypeAdapter[Any] = TypeAdapter(AgUiEvent)


def asked(message: Any, run_id: str = "run-1", thread_id: str = "t1") -> dict[str, Any]:
    """Return a request as AG-UI's package for Python makes it."""
    said = UserMessage(id="u1", role="user", content=message)
    given = RunAgentInput(
        thread_id=thread_id, run_id=run_id, state={}, messages=[said], tools=[], context=[], forwarded_props={}
    )
    body: dict[str, Any] = json.loads(given.model_dump_json(by_alias=True))
    return body


async def events(hub: Hub, agent: str, body: dict[str, Any], most: int = 10**6, **headers: str) -> list[dict[str, Any]]:
    """Run an agent and return its events, each with the `id` of its place; at most so many, then hang up."""
    found: list[dict[str, Any]] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        async with http.post(f"{hub.url}/api/v1/agents/{agent}/agui", json=body, headers=headers) as response:
            assert response.status == 200 and response.content_type == "text/event-stream"
            place = ""
            async for line in response.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "id":
                    place = value
                if name == "data":
                    found.append(json.loads(value) | {"id": place})
                    if len(found) == most:
                        break
    return found


def text(said: list[dict[str, Any]]) -> str:
    return "".join(event["delta"] for event in said if event["type"] == "TEXT_MESSAGE_CHUNK")


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
    assert len(await hub.node.history("t1", 100)) == 2


async def test_what_a_user_sends_beside_text_becomes_parts(hub: Hub) -> None:
    """In their order, with the text as the message; where there is text alone it is the message, and no part."""
    hub.agent("parts.py", "async def parts(run):\n    yield f'{run.message} {[part[\"type\"] for part in run.parts]}'")
    await hub.start()
    image = ImagePart(source=UrlSource(value="https://example.org/a.png"))
    content = [TextPart(text="look "), image, TextPart(text="here")]
    assert text(await events(hub, "parts", asked(content))) == "look here ['text', 'image', 'text']"
    assert text(await events(hub, "parts", asked([TextPart(text="only")], "run-2"))) == "only []"
    first, *_ = await hub.node.log.messages("t1", 9)
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

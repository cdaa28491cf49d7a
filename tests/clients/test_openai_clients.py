"""Clients of OpenAI's chat completions from PyPI and npm, unchanged, with agents of the hub as their models."""

import asyncio
import json
from pathlib import Path

import pytest
from support.foreign_clients import INSTALL_SECONDS, RUN_SECONDS, ForeignClient, parametrize
from support.hub import Hub

from hub.ids import Key
from hub.node.history import read_history

pytestmark = pytest.mark.timeout(INSTALL_SECONDS + RUN_SECONDS)

FAILING = """
import asyncio, pathlib
from hub import AgentError, agent

RUNS = pathlib.Path({runs!r})

@agent(tools=True)
async def failing(message: str):
    with RUNS.open("a") as file:
        file.write("run ")
    {failure}
    yield ""
"""
OUT_OF_LUCK = 'raise AgentError("no more today", "out_of_luck")'
HANGS = "await asyncio.Event().wait()"
REPEATING_CLIENTS = [ForeignClient.find("openai", name) for name in ("openai_python", "openai_node", "ai_sdk")]
with_retries = pytest.mark.parametrize("client", REPEATING_CLIENTS, ids=lambda client: client.id)
# Calls a tool with a city. Knows the weather after its result, and then calls another tool or says the weather. If a
# form of the answer or a tool is required, the answer is a person.
SCRIPTED = """
import json
from hub import Run, ToolCallArgs, ToolCallEnd, ToolCallStart, agent

PERSON = {"name": "Ann", "age": 7}
ARGUMENTS = {"city": "Rome", "answer": "It is sunny in Rome.", **PERSON}

@agent(tools=True)
async def scripted(run: Run):
    request, instructions = run.request, " ".join(past.content for past in run.history if past.role == "system")
    is_json = request.response_format is not None and request.response_format.type != "text"
    if (is_json or '"age"' in instructions) and not request.tools:
        yield json.dumps(PERSON)
        return
    knows = "sunny in" in run.message or any("sunny in" in str(part.get("content")) for part in run.parts)
    tools = [tool for tool in request.tools if ("city" in list_names(tool)) is not knows]
    tools = tools or [tool for tool in request.tools if request.is_tool_required]
    if not tools:
        yield json.dumps(PERSON) if is_json else "It is sunny in Rome." if knows else "What do you want?"
        return
    arguments = json.dumps({name: ARGUMENTS[name] for name in list_names(tools[0]) if name in ARGUMENTS})
    call_id = f"call-{run.id}"
    yield ToolCallStart(call_id, tools[0].name)
    for start in range(0, len(arguments), 5):
        yield ToolCallArgs(call_id, arguments[start : start + 5])
    yield ToolCallEnd(call_id)

def list_names(tool):
    return list((tool.parameters or {}).get("properties", {}))
"""
LOOKER = """
async def looker(run):
    images = [part["source"] for part in run.parts if part["type"] == "image"]
    yield f"{run.message} {images[0]['mimeType']} {images[0]['value']}"
"""
PERSON = {"name": "Ann", "age": 7}


@pytest.fixture
async def served(hub: Hub) -> Hub:
    add_failing_agent(hub, OUT_OF_LUCK)
    hub.agent("scripted.py", SCRIPTED)
    hub.agent("looker.py", LOOKER)
    return await hub.start()


def add_failing_agent(hub: Hub, failure: str) -> None:
    hub.agent("failing.py", FAILING.format(runs=str(hub.folder / "runs"), failure=failure))


async def ask_in_session(client: ForeignClient, hub: Hub, function: str = "failure") -> str:
    text: str = await client.run(function, hub.url, json.dumps({"sessionId": "s1"}))
    return text


async def list_roles(hub: Hub) -> list[str]:
    """Return the roles of the messages in the session of ask_in_session()."""
    return [message["role"] for message in await read_history(hub.node, Key("s1"), 9)]


def count_runs(folder: Path) -> int:
    """Return how often the agent `failing` was called."""
    return len((folder / "runs").read_text().split())


@parametrize("openai", "whole")
async def test_a_client_gets_a_whole_answer(served: Hub, client: ForeignClient) -> None:
    assert (await client.run("whole", served.url)).strip() == "hello there"


@parametrize("openai", "stream")
async def test_a_client_gets_the_pieces_of_an_answer(served: Hub, client: ForeignClient) -> None:
    pieces = await client.run("stream", served.url)
    assert " ".join("".join(pieces).split()) in ("hello there", "hellothere") and len(pieces) > 1


@parametrize("openai", "tools")
async def test_a_client_runs_its_tool_and_gets_the_answer_to_the_result(served: Hub, client: ForeignClient) -> None:
    """The framework of the client does the round trip."""
    assert await client.run("tools", served.url) == "It is sunny in Rome."


@parametrize("openai", "tools_in_stream")
async def test_a_client_joins_the_pieces_of_a_tool_call(served: Hub, client: ForeignClient) -> None:
    name, arguments = await client.run("tools_in_stream", served.url)
    assert name in ("get_weather", "GetWeather") and arguments == {"city": "Rome"}


@parametrize("openai", "structured")
async def test_a_client_gets_structured_output(served: Hub, client: ForeignClient) -> None:
    """By a response format."""
    assert await client.run("structured", served.url) == PERSON


@parametrize("openai", "structured_by_tool")
async def test_a_client_gets_structured_output_by_a_tool(served: Hub, client: ForeignClient) -> None:
    """The answer is the arguments of a tool that the client requires."""
    assert await client.run("structured_by_tool", served.url) == PERSON


@parametrize("openai", "structured_by_prompt")
async def test_a_client_gets_structured_output_by_its_instructions(served: Hub, client: ForeignClient) -> None:
    """The schema is in a system message."""
    assert await client.run("structured_by_prompt", served.url) == PERSON


@parametrize("openai", "image")
async def test_a_client_sends_an_image(served: Hub, client: ForeignClient) -> None:
    assert await client.run("image", served.url) == "what is this? image/png QUJD"


@parametrize("openai", "failure")
async def test_a_client_calls_a_failing_agent_once(served: Hub, client: ForeignClient) -> None:
    """No client repeats a request that fails for good; each shows the text of the agent."""
    assert "no more today" in await client.run("failure", served.url)
    assert count_runs(served.folder) == 1


@parametrize("openai", "failure_in_stream")
async def test_a_client_calls_an_agent_that_fails_in_a_stream_once(served: Hub, client: ForeignClient) -> None:
    assert "no more today" in await client.run("failure_in_stream", served.url)
    assert count_runs(served.folder) == 1


@pytest.mark.parametrize("function", ["failure", "failure_in_stream"])
@with_retries
async def test_a_client_sends_a_message_of_a_session_once(served: Hub, client: ForeignClient, function: str) -> None:
    """Also if the agent fails."""
    assert "no more today" in await ask_in_session(client, served, function)
    assert count_runs(served.folder) == 1
    assert await list_roles(served) == ["user", "assistant"]


@parametrize("openai", "with_key")
async def test_a_client_that_sends_a_key_twice_gets_one_answer(served: Hub, client: ForeignClient) -> None:
    """With the lines of docs/api.md. The second request joins the answer to the first."""
    first, second = await client.run("with_key", served.url)
    assert first.strip() == "hello there" and first == second
    assert await list_roles(served) == ["user", "assistant"]


@pytest.mark.parametrize("code", ["model_rate_limited", "model_aborted", "model_timeout", "out_of_coffee"])
@with_retries
async def test_a_client_repeats_only_a_request_that_the_hub_has_not_stored(
    hub: Hub, client: ForeignClient, code: str
) -> None:
    """The error may pass. Outside sessions all three clients try three times, and wait as long as the hub says."""
    add_failing_agent(hub, f'raise AgentError("no more today", "{code}", retryable=True, retry_after_ms=1)')
    await hub.start()
    assert "no more today" in await ask_in_session(client, hub)
    assert count_runs(hub.folder) == 1
    assert await list_roles(hub) == ["user", "assistant"]
    assert "no more today" in await client.run("failure", hub.url)
    assert count_runs(hub.folder) == 4


@with_retries
async def test_a_client_does_not_repeat_a_message_whose_answer_takes_too_long(hub: Hub, client: ForeignClient) -> None:
    add_failing_agent(hub, HANGS)
    await hub.start(run_seconds=0.5)
    assert "longer than the hub allows" in await ask_in_session(client, hub)
    assert count_runs(hub.folder) == 1
    assert await list_roles(hub) == ["user", "assistant"]
    assert "longer than the hub allows" in await client.run("failure", hub.url)
    runs_without_session = 3 if client.id == "ai_sdk" else 1  # this client repeats after 504, as docs/api.md says
    assert count_runs(hub.folder) == 1 + runs_without_session


@with_retries
async def test_a_client_does_not_repeat_a_message_whose_answer_was_stopped(hub: Hub, client: ForeignClient) -> None:
    add_failing_agent(hub, HANGS)
    await hub.start()
    other = await hub.connect("?sessionId=s1", extended=True)
    asking = asyncio.create_task(ask_in_session(client, hub))
    await other.until_type("run_started")
    await other.send(type="cancel", sessionId="s1")
    assert "stopped before its end" in await asking
    assert count_runs(hub.folder) == 1
    assert await list_roles(hub) == ["user", "assistant"]

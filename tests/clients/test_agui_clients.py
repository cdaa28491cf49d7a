"""Clients of AG-UI from PyPI and npm, unchanged, with agents of the hub."""

import aiohttp
import pytest
from support.documents import DOCS, of_kind
from support.foreign_clients import INSTALL_SECONDS, RUN_SECONDS, ForeignClient, parametrize
from support.hub import Hub

(BLOCK,) = of_kind(DOCS["copilotkit"], "js", "copilotkit")
PAGE = BLOCK.text  # a module with the code of docs/copilotkit.md

pytestmark = pytest.mark.timeout(INSTALL_SECONDS + RUN_SECONDS)

# The event between the texts keeps the hub from joining them.
ECHO = """
from hub import Progress

async def echo(message: str):
    for word in message.split():
        yield f"{word} "
        yield Progress(0.5)
"""
# Calls the client's tool with a city, and says its result.
FORECASTER = """
from hub import Run, ToolCallArgs, ToolCallEnd, ToolCallStart, agent

@agent(tools=True)
async def forecaster(run: Run):
    results = [part["content"] for part in run.parts if part["type"] == "tool_result"]
    if results:
        yield f"It is {results[0]}."
    elif run.request.tools:
        yield "I look. "
        yield ToolCallStart("c1", run.request.tools[0].name)
        yield ToolCallArgs("c1", '{"city": "Rome"}')
        yield ToolCallEnd("c1")
"""

ASKER = """
async def asker(run):
    yield "Well. "
    reply = await run.ask("Sure?")
    yield f"{reply.payload}."
"""

# Counts in the state that it shares with its client.
COUNTER = """
from hub import Run, StateDelta, StateSnapshot

async def counter(run: Run):
    yield StateSnapshot(run.request.state)
    yield StateDelta([{"op": "replace", "path": "/count", "value": run.request.state["count"] + 1}])
"""


@parametrize("agui", "stream")
async def test_the_client_receives_the_text_in_pieces(hub: Hub, client: ForeignClient) -> None:
    """Each piece as it comes."""
    hub.agent("echo.py", ECHO)
    await hub.start()
    assert await client.run("stream", hub.url, "hello there") == ["hello ", "there "]


@parametrize("agui", "tools")
async def test_the_client_runs_its_tool(hub: Hub, client: ForeignClient) -> None:
    """The agent gets the result in a new run of the same thread."""
    hub.agent("forecaster.py", FORECASTER)
    await hub.start()
    answer = await client.run("tools", hub.url, "How is it?", PAGE)
    assert answer["calls"] == ["Rome"] and answer["text"].endswith("It is sunny in Rome.")


@parametrize("agui", "browsers")
async def test_an_answer_outlives_its_page(hub: Hub, client: ForeignClient) -> None:
    """Pages that are opened in mid-answer show all of it; one stops it. Later runs of one page show in the other."""
    await hub.start()
    (hub.folder / "open").touch()
    answer = await client.run("browsers", hub.url, str(hub.folder / "closed"), str(hub.folder / "open"), PAGE)
    ids, same_ids = answer["ids"]
    assert answer["wasRunning"] and ids == same_ids and len({*ids}) == 6


@parametrize("agui", "questions")
async def test_the_client_answers_a_question(hub: Hub, client: ForeignClient) -> None:
    """The same run of the hub goes on."""
    hub.agent("asker.py", ASKER)
    await hub.start()
    answer = await client.run("questions", hub.url)
    assert answer["asked"] == ["Sure?"] and answer["outcomes"] == ["interrupt", "success"]
    assert answer["texts"] == ["go", "Well. ", "yes."]


@parametrize("agui", "cancel")
async def test_the_client_stops_an_answer(hub: Hub, client: ForeignClient) -> None:
    """The next message is answered at once."""
    await hub.start()
    (hub.folder / "open").touch()
    answer = await client.run("cancel", hub.url, str(hub.folder / "open"))
    assert answer == {"outcomes": ["cancelled", "success"], "text": "one two"}
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{hub.url}/api/v1/sessions/t1/messages") as response:
            messages = (await response.json())["data"]
    reasons = [message.get("stopReason") for message in messages if message["role"] == "assistant"]
    assert reasons == ["cancelled", "cancelled", None]


@parametrize("agui", "state")
async def test_the_client_shares_its_state(hub: Hub, client: ForeignClient) -> None:
    """The agent's change comes back with the next request."""
    hub.agent("counter.py", COUNTER)
    await hub.start()
    assert await client.run("state", hub.url) == {"count": 3}

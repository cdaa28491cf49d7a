"""Clients of OpenAI's chat completions from PyPI and npm, unchanged, with agents of the hub as their models."""

from pathlib import Path

import pytest
from support.foreign_clients import INSTALL_SECONDS, RUN_SECONDS, ForeignClient, parametrize
from support.hub import Hub

pytestmark = pytest.mark.timeout(INSTALL_SECONDS + RUN_SECONDS)

FAILING = """
import pathlib
from hub import AgentError

RUNS = pathlib.Path({runs!r})

async def failing(message: str):
    with RUNS.open("a") as file:
        file.write("run ")
    raise AgentError("no more today", "out_of_luck")
    yield ""
"""


@pytest.fixture
async def served(hub: Hub) -> Hub:
    hub.agent("failing.py", FAILING.format(runs=str(hub.folder / "runs")))
    return await hub.start()


def count_runs(folder: Path) -> int:
    """Return how often the agent `failing` was called."""
    return len((folder / "runs").read_text().split())


@parametrize("openai", "whole")
async def test_a_client_gets_a_whole_answer(served: Hub, client: ForeignClient) -> None:
    assert (await client.run("whole", served.url)).strip() == "hello there"


@parametrize("openai", "stream")
async def test_a_client_gets_the_pieces_of_an_answer(served: Hub, client: ForeignClient) -> None:
    pieces = await client.run("stream", served.url)
    assert "".join(pieces).strip() == "hello there" and len(pieces) > 1


@parametrize("openai", "failure")
async def test_a_client_calls_a_failing_agent_once(served: Hub, client: ForeignClient) -> None:
    """No client repeats a request that fails for good; each shows the text of the agent."""
    assert "no more today" in await client.run("failure", served.url)
    assert count_runs(served.folder) == 1


@parametrize("openai", "failure_in_stream")
async def test_a_client_calls_an_agent_that_fails_in_a_stream_once(served: Hub, client: ForeignClient) -> None:
    assert "no more today" in await client.run("failure_in_stream", served.url)
    assert count_runs(served.folder) == 1

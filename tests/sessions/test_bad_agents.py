"""The hub checks the output of agents before it logs it: otherwise the session would wait forever."""

import aiohttp
import pytest
from support.bad_agents import ASYNC, GRACE, RUN_BYTES, files, provoke
from support.hub import Hub

NAMES = (
    "raises_what_cannot_be_printed",
    "exits_as_its_error_is_printed",
    "has_an_error_without_a_text",
    "lies_in_its_error",
    "tells_to_wait_for_ever",
    "counts_more_than_there_is",
    "gives_a_message_that_lies",
    "yields_a_text_that_fails",
    "yields_a_circle",
)


@pytest.mark.parametrize("name", NAMES)
async def test_the_answer_of_every_bad_agent_ends(hub: Hub, name: str) -> None:
    """With the expected error. Then another agent answers. (tests/torture has all bad agents.)"""
    hub.agent(f"{name}.py", files()[name])
    await hub.start(grace_seconds=GRACE, run_bytes=RUN_BYTES)
    async with aiohttp.ClientSession() as http:
        await provoke(http, hub.url, name, ASYNC[name])

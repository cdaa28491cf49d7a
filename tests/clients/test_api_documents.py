"""Clients that generators from PyPI and npm write from the documents of a hub."""

import re

import pytest
from support.foreign_clients import INSTALL_SECONDS, RUN_SECONDS, ForeignClient, parametrize
from support.hub import Hub

pytestmark = pytest.mark.timeout(INSTALL_SECONDS + RUN_SECONDS)


@parametrize("openapi", "use")
async def test_a_client_is_generated_without_a_warning_and_works(hub: Hub, client: ForeignClient) -> None:
    """It makes a session, gets an answer, reads pages, stores a file, and gets an error as an instance of its class."""
    await hub.start()
    result = await client.run("use", hub.url)
    assert not re.search("warning|error|unable|unsupported", result.pop("output"), re.IGNORECASE)
    assert result == {
        "session": "s1",
        "answer": "hello there ",
        "pages": [["hello there"], ["hello there "]],
        "file": ["notes.txt", "Otters hold hands."],
        "error": [404, "unknown_session"],
    }


@parametrize("openapi", "check")
async def test_a_parser_finds_no_problem_in_the_description_of_the_websocket(hub: Hub, client: ForeignClient) -> None:
    await hub.start()
    result = await client.run("check", hub.url)
    assert result["problems"] == [] and result["messages"] > 30

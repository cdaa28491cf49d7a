"""An agent that blocks the event loop is named in the log."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from support.process import HubProcess
from support.waiting import eventually

BLOCKS = """
    import time

    def work():
        secret = "hunter2"
        time.sleep(2)

    async def blocks(message: str):
        yield "one "
        work()
        yield "two"
    """


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[HubProcess]:
    hub = HubProcess(tmp_path)
    hub.agent("blocks.py", BLOCKS)
    yield hub
    await hub.kill()


async def test_an_agent_that_blocks_the_loop_is_named_once_a_minute(served: HubProcess) -> None:
    """With its run, its file and its lines, and no values; two blocks within a minute make one line."""
    await served.start()
    runs = []
    async with aiohttp.ClientSession(served.url) as http:
        for number in range(2):
            chat = {"agentId": "blocks", "message": "hi"}
            async with http.post(f"/api/v1/sessions/s{number}/chat?wait=true", json=chat) as response:
                assert response.status == 200
                runs.append((await response.json())["runId"])
    await eventually(lambda: "the event loop is blocked" in served.log)
    (line,) = [line for line in served.said if "the event loop is blocked" in line]
    assert "agent=blocks" in line and f"run={runs[0]}" in line, line
    assert "agents/blocks.py:6 work < agents/blocks.py:10 blocks" in line and "hunter2" not in line, line

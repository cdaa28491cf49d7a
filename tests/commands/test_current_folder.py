"""The hub keeps its folders even if an agent changes the current folder."""

from pathlib import Path

import aiohttp
import pytest
from support.hub import Hub
from support.sse import get, post
from support.waiting import PATIENCE

MOVES = """
import os

async def moves(message: str):
    os.mkdir("elsewhere")
    os.chdir("elsewhere")
    yield "moved"
"""


async def test_a_change_of_the_current_folder_does_not_move_the_folders_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub still finds all agent files, and writes to the same data folder."""
    monkeypatch.chdir(tmp_path)
    hub = Hub(Path())
    hub.agent("moves.py", MOVES)
    await hub.start()
    try:
        timeout = aiohttp.ClientTimeout(PATIENCE)
        async with aiohttp.ClientSession(f"{hub.url}/api/v1/", timeout=timeout) as http:
            _, answer = await post(http, "sessions/s1/chat?wait=true", {"agentId": "moves", "message": "x"})
            assert answer["content"] == "moved"
            assert (await post(http, "agents/echo/reload"))[0] == 200
            headers = {"Content-Type": "text/plain"}
            async with http.post("files?sessionId=s1&name=a.txt", data=b"hi", headers=headers) as response:
                assert response.status == 201
            assert [row["agentId"] for row in (await get(http, "agents"))[1]["data"]] == ["echo", "gated", "moves"]
    finally:
        await hub.stop()
    assert {path.name for path in tmp_path.iterdir()} == {"agents", "data", "elsewhere"}
    assert not any((tmp_path / "elsewhere").iterdir())

"""A hub is killed with SIGKILL again and again while it streams."""

from pathlib import Path

import pytest
from support.kill9 import deaths_lose_nothing
from support.kills import LONG


@pytest.mark.torture
@pytest.mark.timeout(3600 if LONG else 400)
async def test_seen_events_survive_and_accepted_chats_run_once(tmp_path: Path) -> None:
    """50 (500) kills: the log is dense and has all events that any client saw. Each chat ran once, with one end."""
    await deaths_lose_nothing(tmp_path, rounds=500 if LONG else 50, sessions=4)

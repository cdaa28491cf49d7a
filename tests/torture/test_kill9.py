"""A hub killed with -9 while it streams, again and again."""

from pathlib import Path

import pytest
from support.kill9 import deaths_lose_nothing
from support.kills import LONG


@pytest.mark.torture
@pytest.mark.timeout(3600 if LONG else 400)
async def test_what_was_seen_is_kept_and_what_was_accepted_is_answered_once(tmp_path: Path) -> None:
    """50 (500) deaths: the log is dense and holds all that any client saw; each chat ran once, each run has one end."""
    await deaths_lose_nothing(tmp_path, rounds=500 if LONG else 50, sessions=4)

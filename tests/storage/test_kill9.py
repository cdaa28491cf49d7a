"""A hub killed with -9 while it streams: the short form of tests/torture."""

from pathlib import Path

from support.kill9 import deaths_lose_nothing


async def test_what_was_seen_is_kept_and_what_was_accepted_is_answered_once(tmp_path: Path) -> None:
    """3 deaths: the log is dense and holds all that any client saw; each chat ran once, each run has one end."""
    await deaths_lose_nothing(tmp_path, rounds=3, sessions=3)

"""A hub that streams is killed with -9: the short form of tests/torture."""

from pathlib import Path

from support.kill9 import deaths_lose_nothing


async def test_seen_events_survive_and_accepted_chats_run_once(tmp_path: Path) -> None:
    """3 kills: the log is dense and has all events that any client saw. Each chat ran once, with one end."""
    await deaths_lose_nothing(tmp_path, rounds=3, sessions=3)

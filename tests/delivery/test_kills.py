"""Clients whose sockets are killed at random: the short form of tests/torture."""

from pathlib import Path

from support.kills import kills_lose_nothing


async def test_clients_killed_at_random_hold_what_the_agent_said(tmp_path: Path) -> None:
    """30 kills over 15 clients, plain and extended, early and late: each text equals the agent's, each seq rises."""
    await kills_lose_nothing(tmp_path, sessions=5, clients=3, chunks=200, seconds=3.0, each=2)

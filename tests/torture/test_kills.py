"""Sockets are killed at random, and clients resume."""

from pathlib import Path

import pytest
from support.kills import LONG, kills_lose_nothing


@pytest.mark.torture
@pytest.mark.timeout(3600 if LONG else 300)
async def test_clients_with_killed_sockets_have_the_text_of_the_agent(tmp_path: Path) -> None:
    """1,000 (20,000) kills, 50 sessions of 4 clients, 500 chunks each: each text equals the agent's."""
    await kills_lose_nothing(
        tmp_path, sessions=50, clients=4, chunks=500, seconds=200.0 if LONG else 25.0, each=100 if LONG else 5
    )

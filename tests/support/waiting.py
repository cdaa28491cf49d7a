"""The time limit of waits in tests, and a wait for a condition that no event announces."""

import asyncio
from collections.abc import Callable
from typing import Any

PATIENCE = 20.0  # seconds that a single wait of a test may take


async def eventually(condition: Callable[[], Any]) -> None:
    """Wait until the condition is true; fail after PATIENCE seconds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)

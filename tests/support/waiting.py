"""How long a test waits, and how it waits for what no event announces."""

import asyncio
from collections.abc import Callable
from typing import Any

PATIENCE = 20.0  # how long any single wait of a test may last


async def eventually(condition: Callable[[], Any]) -> None:
    """Wait until the condition is true; fail after PATIENCE seconds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)

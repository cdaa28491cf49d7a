"""Thousands of bytes that are no correct HTTP, from many connections at once."""

import asyncio
from pathlib import Path

from support.bad_http import BAD_REQUESTS, attack, check_survival, get, read_answer
from support.kills import LONG
from support.process import HubProcess

COUNT = 2000 if LONG else 250  # of each kind


async def test_bad_http_from_many_connections_at_once_does_no_harm(tmp_path: Path) -> None:
    """All kinds at the same time; a good client gets all its answers meanwhile."""
    hub = HubProcess(tmp_path)
    await hub.start()
    pid, good = hub.pid, 0
    try:
        attacks = asyncio.gather(*(attack(hub, name, COUNT) for name in BAD_REQUESTS))
        while not attacks.done():
            assert (await read_answer(hub.port, get())).startswith(b"HTTP/1.1 200 ")
            good += 1
            await asyncio.wait([attacks], timeout=0.05)
        await attacks
        print(f"{COUNT} x {len(BAD_REQUESTS)} bad requests, {good} good ones")
        await check_survival(hub, pid)
    finally:
        await hub.kill()

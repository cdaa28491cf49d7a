"""Agents that fail in every way: each answer has one end and the text before it, and other answers continue."""

import asyncio
import random
import re
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest
from support import babble
from support.bad_agents import ASYNC, GRACE, PLAIN, RUN_BYTES, connect, files, provoke
from support.hub import AGENTS
from support.kill9 import check_log
from support.kills import LONG, seed
from support.process import HubProcess
from support.waiting import PATIENCE, eventually

CLOCK = """
import asyncio, time

async def clock(message: str):
    for number in range(int(message)):
        yield f"{time.monotonic_ns()} "
        await asyncio.sleep(0.02)
"""
BLOCKED = "the event loop is blocked"
CANARIES = 3
TOKENS = 200  # of the answer whose tokens' ages are measured
MAX_CONCURRENT = 8  # bad agents that answer at the same time


async def canary(http: aiohttp.ClientSession, hub: HubProcess, session: str, stop: asyncio.Event, message: str) -> int:
    """Chat with a good agent until *stop* is set; assert that each answer is exact. Return the number of answers."""
    client, wanted = await connect(http, hub.url, session), "".join(babble.chunks(message.split()[0], 50))
    answers = 0
    while not stop.is_set() or not answers:
        await client.send(type="chat", agentId="babble", sessionId=session, message=message)
        end = await client.until_type("run_finished")
        assert (end["stopReason"], client.text(end["runId"])) == ("end_turn", wanted)
        answers += 1
    return answers


async def measure_ages(http: aiohttp.ClientSession, hub: HubProcess, session: str, tokens: int) -> list[float]:
    """Return the age of each token of an answer at its arrival, in milliseconds, sorted."""
    client = await connect(http, hub.url, session)
    await client.send(type="chat", agentId="clock", sessionId=session, message=str(tokens))
    ages = []
    while (frame := await client.next())["type"] != "run_finished":
        if frame["type"] == "stream":
            ages += [(time.monotonic_ns() - int(token)) / 1e6 for token in frame["content"].split()]
    return sorted(ages)


@pytest.mark.torture
@pytest.mark.timeout(1200 if LONG else 240)
async def test_each_bad_agent_ends_once_and_does_not_disturb_others(tmp_path: Path) -> None:
    """Each bad agent answers once (20 times): first the one that blocks the event loop, then the others concurrently.
    Meanwhile good agents answer, and their answers are exact."""
    chance = random.Random(seed())
    hub = HubProcess(tmp_path)
    for name, code in {"echo": AGENTS["echo"], "clock": CLOCK, **files()}.items():
        hub.agent(f"{name}.py", code)
    shutil.copy(babble.__file__, tmp_path / "agents")
    others = ASYNC | PLAIN
    blocker = others.pop("blocks_the_loop")
    await hub.start(limits_grace_seconds=GRACE, limits_run_bytes=RUN_BYTES)
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            alone = await measure_ages(http, hub, "clock-alone", TOKENS)
            was_blocked = BLOCKED in hub.log  # by the machine; the hub logs this once a minute
            await provoke(http, hub.url, "blocks_the_loop", blocker)
            await eventually(lambda: BLOCKED in hub.log)
            assert was_blocked or re.search(f"{BLOCKED}.*agent=blocks_the_loop", hub.log)
            for _ in range(20 if LONG else 1):
                stop = asyncio.Event()
                async with asyncio.timeout(3 * PATIENCE), asyncio.TaskGroup() as tasks:
                    canaries = [
                        tasks.create_task(canary(http, hub, f"canary-{n}", stop, f"{chance.randrange(2**32)} 50 0.5"))
                        for n in range(CANARIES)
                    ]
                    beside = tasks.create_task(measure_ages(http, hub, "clock-beside", TOKENS))
                    async with asyncio.TaskGroup() as storm:
                        slots = asyncio.Semaphore(MAX_CONCURRENT)
                        for name, bad in others.items():
                            storm.create_task(provoke(http, hub.url, name, bad, slots))
                    await beside
                    stop.set()
            print(f"{[task.result() for task in canaries]} answers of canaries; p99 age of a token")
            print(f"{p99(alone):.1f} ms alone, {p99(beside.result()):.1f} ms beside {len(others)} bad agents")
            hub.signal(signal.SIGTERM)
            assert await hub.wait_until_ended() == 0
    finally:
        await hub.kill()
    with closing(sqlite3.connect(hub.database)) as log:
        assert log.execute("SELECT * FROM runs").fetchall() == []
        for (session,) in log.execute("SELECT id FROM sessions").fetchall():
            rows = log.execute("SELECT * FROM events WHERE session = ? ORDER BY seq", (session,))
            names = [column[0] for column in rows.description]
            check_log([dict(zip(names, row)) for row in rows])


def p99(ages: list[float]) -> float:
    return ages[len(ages) * 99 // 100]

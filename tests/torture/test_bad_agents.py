"""Agents that fail in every way: each answer has one end and its text up to there, and other answers go on."""

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
AT_ONCE = 8  # bad agents that answer side by side


async def canary(http: aiohttp.ClientSession, hub: HubProcess, session: str, enough: asyncio.Event, spoken: str) -> int:
    """Chat with a good agent until *enough*; each answer is exact. Return how many there were."""
    client, wanted = await connect(http, hub.url, session), "".join(babble.chunks(spoken.split()[0], 50))
    answers = 0
    while not enough.is_set() or not answers:
        await client.send(type="chat", agentId="babble", sessionId=session, message=spoken)
        end = await client.until_type("run_finished")
        assert (end["stopReason"], client.text(end["runId"])) == ("end_turn", wanted)
        answers += 1
    return answers


async def ages(http: aiohttp.ClientSession, hub: HubProcess, session: str, tokens: int) -> list[float]:
    """Return how old each token of an answer was when it came, in milliseconds, sorted."""
    client = await connect(http, hub.url, session)
    await client.send(type="chat", agentId="clock", sessionId=session, message=str(tokens))
    found = []
    while (frame := await client.next())["type"] != "run_finished":
        if frame["type"] == "stream":
            found += [(time.monotonic_ns() - int(said)) / 1e6 for said in frame["content"].split()]
    return sorted(found)


@pytest.mark.torture
@pytest.mark.timeout(1200 if LONG else 240)
async def test_each_bad_agent_ends_once_and_does_not_disturb_others(tmp_path: Path) -> None:
    """All of them, 1 time (20 times): first the one that blocks the loop, then the others at the same time. Meanwhile
    good agents answer, and their answers are exact."""
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
            alone = await ages(http, hub, "clock-alone", TOKENS)
            was_blocked = BLOCKED in hub.log  # the machine stood still; the next such line comes after a minute
            await provoke(http, hub.url, "blocks_the_loop", blocker)
            await eventually(lambda: BLOCKED in hub.log)
            assert was_blocked or re.search(f"{BLOCKED}.*agent=blocks_the_loop", hub.log)
            for _ in range(20 if LONG else 1):
                enough = asyncio.Event()
                async with asyncio.timeout(3 * PATIENCE), asyncio.TaskGroup() as tasks:
                    canaries = [
                        tasks.create_task(canary(http, hub, f"canary-{n}", enough, f"{chance.randrange(2**32)} 50 0.5"))
                        for n in range(CANARIES)
                    ]
                    beside = tasks.create_task(ages(http, hub, "clock-beside", TOKENS))
                    async with asyncio.TaskGroup() as storm:
                        room = asyncio.Semaphore(AT_ONCE)
                        for name, bad in others.items():
                            storm.create_task(provoke(http, hub.url, name, bad, room))
                    await beside
                    enough.set()
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


def p99(found: list[float]) -> float:
    return found[len(found) * 99 // 100]

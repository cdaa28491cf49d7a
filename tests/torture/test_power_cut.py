"""A power cut loses unsynced writes, all or some of them, but no event that a client saw."""

import asyncio
import json
import random
import shutil
import signal
import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from support import babble, cuts
from support.documents import ROOT
from support.kill9 import COUNT, PHOENIX, Witness, check_log, check_seen
from support.kills import LONG, seed
from support.process import HubProcess

from hub.limits import Limits
from hub.seams import Seams
from hub.storage.sqlite.log import SqliteLog

SESSIONS = 4
RESTART_EVERY = 40  # after every 40th cut a real hub starts, which ends the interrupted runs


@attrs.define(eq=False)
class Marked(Witness):
    """A witness that records the length of the disk journal at the time of each frame."""

    journal: Path = Path()
    marks: dict[int, int] = attrs.Factory(dict)  # by seq
    accept_marks: dict[str, int] = attrs.Factory(dict)  # of accepted chats, by clientMsgId

    def _take(self, frame: dict[str, Any]) -> None:
        super()._take(frame)
        mark = cuts.size_of(self.journal)
        if frame["type"] == "accepted":
            self.accept_marks.setdefault(frame["clientMsgId"], mark)
        elif "ts" in frame:
            self.marks[frame["seq"]] = mark

    def before(self, cut: int) -> Witness:
        """Return a witness with the frames that this one had when the journal had the length *cut*."""
        seen = {seq: frame for seq, frame in self.seen_events.items() if self.marks[seq] <= cut}
        return Witness(self.session, seen)


async def stream(hub: HubProcess, http: aiohttp.ClientSession, witnesses: list[Marked], chance: random.Random) -> None:
    """Send three chats to each session, two queued and one in parallel, and read the answers to their ends."""
    for witness in witnesses[::2]:
        for agent, busy in (("babble", "parallel"), ("phoenix", "enqueue"), ("babble", "enqueue")):
            text = str(COUNT) if agent == "phoenix" else f"{chance.randrange(2**32)} 60 0.5"
            name = f"{witness.session}-{len(witness.wanted)}"
            witness.wanted.add(name)
            chat = {"type": "chat", "agentId": agent, "sessionId": witness.session, "clientMsgId": name}
            witness.unsure.append(chat | {"message": text, "ifBusy": busy})
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for first, second in zip(witnesses[::2], witnesses[1::2]):
            tasks.create_task(first.watch(http, hub, calm=True))
            tasks.create_task(second.watch(http, hub))
        while any(w.open() or not w.wanted <= w.accepted.keys() for w in witnesses[::2]):
            await asyncio.sleep(0.01)
        await hub.kill()


def rows(db: sqlite3.Connection, statement: str, *values: Any) -> list[dict[str, Any]]:
    result = db.execute(statement, values)
    names = [column[0] for column in result.description]
    return [dict(zip(names, row)) for row in result]


async def reopen(data: Path) -> None:
    """Open the log as a start does, and close it."""
    log = SqliteLog(f"sqlite:///{data}/hub.db", Limits(), Seams())
    await log.start(lambda session, events: None)
    await log.close()


async def restart(data: Path) -> None:
    """Start a real hub with the data, wait until all runs have ended, and stop it."""
    hub = HubProcess(data.parent)
    hub.agent("phoenix.py", PHOENIX)
    shutil.copy(babble.__file__, data.parent / "agents")
    try:
        await hub.start()
        async with aiohttp.ClientSession() as http:
            async with asyncio.timeout(60):
                while not await is_idle(http, hub):
                    await asyncio.sleep(0.05)
        hub.signal(signal.SIGTERM)
        assert await hub.wait_until_ended() == 0
    finally:
        await hub.kill()
    assert "Traceback" not in hub.log and "damaged" not in hub.log, hub.log


async def is_idle(http: aiohttp.ClientSession, hub: HubProcess) -> bool:
    for number in range(SESSIONS):
        async with http.get(f"{hub.url}/api/v1/sessions/s{number}") as answer:
            if answer.status == 200 and (await answer.json())["state"] != "idle":
                return False
    return True


def check(data: Path, cut: int, witnesses: list[Marked]) -> set[str]:
    """Assert that the log has all frames received before the cut; return the ids of the runs that have not ended."""
    with closing(sqlite3.connect(data / "hub.db")) as db:
        assert rows(db, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]
        waiting = {row["id"] for row in rows(db, "SELECT id FROM runs")}
        for witness in witnesses:
            events = rows(db, "SELECT * FROM events WHERE session = ? ORDER BY seq", witness.session)
            assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
            check_seen(witness.before(cut), events)
            ends = [event["run"] for event in events if event["type"] == "run_finished"]
            assert len(ends) == len({*ends}) and waiting.isdisjoint(ends)
            for name, mark in witness.accept_marks.items():
                if mark <= cut:
                    assert witness.accepted[name][0]["runId"] in {*ends, *waiting}
                    messages = [json.loads(event["content"]) for event in events if event["type"] == "user_message"]
                    assert [body["clientMsgId"] for body in messages].count(name) == 1
            if not waiting:
                check_log(events)
    return waiting


@pytest.mark.torture
@pytest.mark.timeout(3600 if LONG else 300)
async def test_seen_events_survive_a_power_cut(tmp_path: Path) -> None:
    """200 (5,000) cuts: the log opens, and has all events that a client saw. Each run has at most one end, and none
    is lost."""
    chance = random.Random(seed())
    hub = HubProcess(tmp_path, ROOT / "tests", "support.hub_on_disk")
    hub.agent("phoenix.py", PHOENIX)
    shutil.copy(babble.__file__, tmp_path / "agents")
    journal = tmp_path / "journal"
    witnesses = [Marked(f"s{number // 2}", journal=journal) for number in range(2 * SESSIONS)]
    await hub.start(test_disk=tmp_path, frames_per_second=0)
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            await stream(hub, http, witnesses, chance)
    finally:
        await hub.kill()
    number, size = 5000 if LONG else 200, cuts.size_of(journal)
    offsets = sorted(chance.randint(0, size) for _ in range(number - 1)) + [size]
    has_frames: dict[bool, int] = defaultdict(int)
    for index, (cut, data) in enumerate(cuts.disks(journal, offsets, chance, tmp_path)):
        is_restart = index % RESTART_EVERY == RESTART_EVERY - 1
        await (restart if is_restart else reopen)(data)
        waiting = check(data, cut, witnesses)
        assert not (is_restart and waiting)
        has_frames[any(mark <= cut for mark in witnesses[0].marks.values())] += 1
        shutil.rmtree(data.parent)
    print(f"{number} cuts in {size} bytes of journal, {has_frames[True]} after the first frame of a client")
    assert has_frames[True] > number // 2

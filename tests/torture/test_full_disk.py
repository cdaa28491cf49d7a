"""A disk that is full or fails: the hub refuses new messages, loses no accepted message or event, and recovers."""

import asyncio
import json
import random
import shutil
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from support import babble
from support.documents import ROOT
from support.hub import AGENTS, Client
from support.kill9 import Witness, check_log, check_seen
from support.kills import LONG, seed
from support.process import HubProcess, needs_prlimit
from support.vfs import FAULTS, Control
from support.waiting import PATIENCE, eventually

ROUNDS = 1000 if LONG else 200
QUICK: dict[str, Any] = {
    "frames_per_second": 0,
    "limits_retry_seconds": 0.02,
}  # short: failed writes are retried soon


@attrs.define(eq=False)
class Talker:
    """A client that chats in its own session, and sends a refused chat again until it is accepted."""

    session: str
    client: Client
    chats: dict[str, str] = attrs.Factory(dict)  # messages by clientMsgId
    refusals: int = 0

    async def talk(self, agent: str, message: str) -> None:
        """Send one chat, and read its answer to the end."""
        await self.until_accepted(await self.send(agent, message))
        await self.client.until_type("run_finished")

    async def send(self, agent: str, message: str) -> dict[str, str]:
        chat = {"sessionId": self.session, "agentId": agent, "message": message}
        chat["clientMsgId"] = f"{self.session}-{len(self.chats)}"
        self.chats[chat["clientMsgId"]] = message
        await self.client.send(type="chat", **chat)
        return chat

    async def until_accepted(self, chat: dict[str, str]) -> None:
        """Send a refused chat again until it is accepted."""
        while (await self.answer())["type"] == "error":
            await self.client.send(type="chat", **chat)

    async def answer(self) -> dict[str, Any]:
        """Return the reply to the last chat: `accepted`, or `error` with the code storage_unavailable."""
        answer = await self.client.until(lambda frame: frame["type"] in ("accepted", "error"))
        if answer["type"] == "error":
            assert answer["code"] == "storage_unavailable", answer
            self.refusals += 1
        return answer

    def check(self, log: sqlite3.Connection) -> None:
        """Assert that the log matches the received frames, with each chat once and each answer complete."""
        rows = log.execute("SELECT * FROM events WHERE session = ? ORDER BY seq", (self.session,))
        names = [column[0] for column in rows.description]
        events = [dict(zip(names, row)) for row in rows]
        check_log(events)
        numbered = [frame for frame in self.client.frames if "ts" in frame]
        assert [frame["seq"] for frame in numbered] == sorted({frame["seq"] for frame in numbered})
        check_seen(Witness(self.session, {frame["seq"]: frame for frame in numbered}), events)
        messages = [json.loads(event["content"]) for event in events if event["type"] == "user_message"]
        assert [(body["clientMsgId"], body["content"]) for body in messages] == list(self.chats.items())
        ends = [json.loads(event["content"])["stopReason"] for event in events if event["type"] == "run_finished"]
        assert ends == ["end_turn"] * len(self.chats)
        assert self.client.text() == "".join(event["content"] for event in events if event["type"] == "stream")


async def connect(http: aiohttp.ClientSession, hub: HubProcess, session: str) -> Talker:
    ws = await http.ws_connect(f"{hub.url}/api/v1/ws", protocols=("hubbub.v1",), max_msg_size=0)
    client = Client(http, ws)
    await client.send(type="subscribe", sessionId=session, afterSeq=0)
    await client.until_type("subscribed")
    return Talker(session, client)


async def ready(http: aiohttp.ClientSession, hub: HubProcess) -> int:
    async with http.get(f"{hub.url}/ready") as answer:
        return answer.status


async def until_ready(http: aiohttp.ClientSession, hub: HubProcess, status: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while await ready(http, hub) != status:
            await asyncio.sleep(0.05)


async def stop(hub: HubProcess, talkers: list[Talker]) -> None:
    hub.signal(signal.SIGTERM)
    assert await hub.wait_until_ended() == 0
    assert "Traceback" not in hub.log, hub.log
    with closing(sqlite3.connect(hub.database)) as log:
        assert log.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert log.execute("SELECT * FROM runs").fetchall() == []
        for talker in talkers:
            talker.check(log)


@pytest.mark.torture
@pytest.mark.timeout(1200 if LONG else 240)
async def test_a_failed_write_loses_nothing(tmp_path: Path) -> None:
    """Write n fails, for n = 1 to 200 (1,000): once, in part, in the fsync, or as on a full disk until it has space."""
    chance = random.Random(seed())
    hub = HubProcess(tmp_path, ROOT / "tests", "support.hub_on_disk")
    for name, code in AGENTS.items():
        hub.agent(f"{name}.py", code)
    disk = Control(tmp_path / "control")
    struck: Counter[str] = Counter()
    await hub.start(test_disk=tmp_path, **QUICK)
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            talkers = [await connect(http, hub, f"s{number}") for number in range(4)]
            for number in range(1, ROUNDS + 1):
                fault = FAULTS[1 + number % (len(FAULTS) - 1)]
                before = disk.strikes
                disk.arm(fault, chance.randint(1, 40) if fault == "sync" else number)
                async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
                    for talker in talkers[1:]:
                        tasks.create_task(talk_until(talker, disk, before))
                    if fault == "full":
                        tasks.create_task(free(talkers[0], disk, before))
                struck[fault] += disk.strikes - before
            await stop(hub, talkers)
    finally:
        await hub.kill()
    print(f"{dict(struck)}, {[len(t.chats) for t in talkers]} chats, {[t.refusals for t in talkers]} refused")
    assert set(struck) == {*FAULTS[1:]} and min(struck.values()) >= ROUNDS // 4
    assert talkers[0].refusals >= ROUNDS // 4
    assert sum(talker.refusals for talker in talkers[1:])


async def talk_until(talker: Talker, disk: Control, strikes: int) -> None:
    """Chat until the disk has failed, and read the last answer to its end."""
    while disk.strikes == strikes:
        await talker.talk("echo", "one two three four")


async def free(talker: Talker, disk: Control, strikes: int) -> None:
    """Send a chat to a hub with a full disk: it is refused. Then free the disk: the chat is accepted."""
    await eventually(lambda: disk.strikes > strikes)
    chat = await talker.send("echo", "is there room?")
    assert (await talker.answer())["type"] == "error"
    disk.disarm()
    await talker.client.send(type="chat", **chat)
    await talker.until_accepted(chat)
    await talker.client.until_type("run_finished")


@pytest.mark.torture
@needs_prlimit
@pytest.mark.timeout(1200 if LONG else 240)
async def test_a_full_disk_during_answers_loses_nothing(tmp_path: Path) -> None:
    """5 (100) times: answers wait, and are complete when the disk has space again; chats and uploads are refused."""
    chance = random.Random(seed())
    hub = HubProcess(tmp_path)
    hub.agent("echo.py", AGENTS["echo"])
    (tmp_path / "agents").mkdir(exist_ok=True)
    shutil.copy(babble.__file__, tmp_path / "agents")
    await hub.start(**QUICK)
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            talkers = [await connect(http, hub, f"s{number}") for number in range(6)]
            for _ in range(100 if LONG else 5):
                streams = {talker: f"{chance.randrange(2**32)} 200 1" for talker in talkers[1:]}
                for talker, message in streams.items():
                    await talker.until_accepted(await talker.send("babble", message))
                await talkers[-1].client.until_type("stream")
                hub.fill_disk()
                chat = await talkers[0].send("echo", "is there room?")
                assert (await talkers[0].answer())["type"] == "error"
                await until_ready(http, hub, 503)
                assert await upload(http, hub) == (503, "storage_unavailable")
                hub.free_disk()
                await until_ready(http, hub, 200)
                assert (await upload(http, hub))[0] == 201
                await talkers[0].client.send(type="chat", **chat)
                await talkers[0].until_accepted(chat)
                for talker, message in streams.items():
                    end = await talker.client.until_type("run_finished")
                    wanted = "".join(babble.chunks(message.split()[0], 200))
                    assert talker.client.text(end["runId"]) == wanted
                await talkers[0].client.until_type("run_finished")
            await stop(hub, talkers)
    finally:
        await hub.kill()


async def upload(http: aiohttp.ClientSession, hub: HubProcess) -> tuple[int, str]:
    url = f"{hub.url}/api/v1/files?sessionId=s0&name=a.bin"
    async with http.post(url, data=random.randbytes(1000), headers={"Content-Type": "image/png"}) as answer:
        return answer.status, (await answer.json()).get("code", "")

"""Kill a hub with -9 while it streams, and compare the events that clients saw with its log."""

import asyncio
import json
import random
import shutil
import signal
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import orjson
from support import babble
from support.kills import seed
from support.process import HubProcess

# Restartable; its answer takes longer than the hub lives.
PHOENIX = """
import asyncio
from hub.hosting.contract import agent

@agent(restartable=True)
async def phoenix(message: str):
    for number in range(int(message)):
        yield f"{number} "
        await asyncio.sleep(0.01)
"""
COUNT = 30  # numbers in an answer of the phoenix


@attrs.define(eq=False)
class Witness:
    """A client that stores all logged frames of its connections."""

    session: str
    seen_events: dict[int, dict[str, Any]] = attrs.Factory(dict)
    epoch: str | None = None
    accepted: dict[str, list[dict[str, Any]]] = attrs.Factory(lambda: defaultdict(list))
    unsure: list[dict[str, str]] = attrs.Factory(list)
    wanted: set[str] = attrs.Factory(set)
    ends: set[str] = attrs.Factory(set)

    async def watch(self, http: aiohttp.ClientSession, hub: HubProcess, calm: bool = False) -> None:
        """Resume, send the *unsure* chats again, and read until the hub dies; if *calm*, until all runs have ended."""
        try:
            url = f"{hub.url}/api/v1/ws"
            async with http.ws_connect(url, protocols=("hubbub.v1",), max_msg_size=0) as ws:
                cursor = {"afterSeq": max(self.seen_events, default=0)} | ({"epoch": self.epoch} if self.epoch else {})
                await ws.send_json({"type": "subscribe", "sessionId": self.session} | cursor)
                for chat in self.unsure:
                    await ws.send_json(chat)
                async for message in ws:
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        break  # reset
                    frame = orjson.loads(message.data)
                    self._take(frame)
                    if calm and self.wanted <= self.accepted.keys() and not self.open():
                        return
        except (aiohttp.ClientError, ConnectionError):
            pass

    def open(self) -> set[str]:
        """Return the accepted runs that have not ended."""
        return {frames[0]["runId"] for frames in self.accepted.values()} - self.ends

    def waits(self) -> bool:
        return bool(self.open()) or any(chat["clientMsgId"] not in self.accepted for chat in self.unsure)

    def _take(self, frame: dict[str, Any]) -> None:
        assert frame["type"] not in ("error", "reset"), frame
        if frame["type"] == "accepted":
            self.accepted[frame["clientMsgId"]].append(frame)
        elif "ts" in frame:
            last = max(self.seen_events, default=0)
            assert frame["seq"] > last, (self.session, last, frame)
            self.seen_events[frame["seq"]] = frame
            self.epoch = frame["epoch"]
            if frame["type"] == "run_finished":
                self.ends.add(frame["runId"])


@attrs.define(eq=False)
class Deaths:
    """Rounds of start, chats and kill. Each session has two witnesses; the first one sends the chats."""

    hub: HubProcess
    chance: random.Random
    sessions: int
    witnesses: list[Witness] = attrs.Factory(list)
    chats: dict[str, dict[str, str]] = attrs.Factory(dict)
    sent: int = 0
    rounds: int = 0

    async def round(self, http: aiohttp.ClientSession) -> None:
        """Send two chats to each session, the second of which waits, and kill the hub during the answers."""
        await self.hub.start(frames_per_second=0)
        for witness in self.witnesses[::2]:
            answered = set(witness.accepted)
            old = [chat for chat in self.chats.values() if chat["sessionId"] == witness.session]
            # Some accepted chats are sent again, too: they must not be answered twice.
            witness.unsure = [c for c in old if c["clientMsgId"] not in answered or self.chance.random() < 0.1]
            if len(witness.open()) + len(witness.unsure) > 8:
                continue  # enough runs wait
            witness.unsure += [self._chat(witness.session, agent) for agent in ("babble", "phoenix")]
        watching = [asyncio.create_task(witness.watch(http, self.hub)) for witness in self.witnesses]
        await self._wait_for_frames()
        await self.hub.kill()
        await asyncio.gather(*watching)

    async def _wait_for_frames(self) -> None:
        """Wait for a random number of frames, or for all; in every other round the number is small."""
        self.rounds += 1
        most = 40 if self.rounds % 2 else 200
        wanted = sum(len(w.seen_events) for w in self.witnesses) + self.chance.randint(12, most) * self.sessions
        async with asyncio.timeout(30):
            while sum(len(w.seen_events) for w in self.witnesses) < wanted and any(
                w.waits() for w in self.witnesses[::2]
            ):
                await asyncio.sleep(0.001)

    def _chat(self, session: str, agent: str) -> dict[str, str]:
        self.sent += 1
        text = str(COUNT) if agent == "phoenix" else f"{self.chance.randrange(2**32)} 40 0.5"
        client_id = f"c{self.sent}"
        chat = {"type": "chat", "agentId": agent, "sessionId": session, "clientMsgId": client_id, "message": text}
        chat["ifBusy"] = "parallel" if self.sent // 2 % 2 else "enqueue"
        self.chats[client_id] = chat
        return chat

    async def calm(self, http: aiohttp.ClientSession) -> None:
        """Start the hub again, send all chats again, and wait until all answers have ended."""
        await self.hub.start()
        for witness in self.witnesses[::2]:
            witness.unsure = [chat for chat in self.chats.values() if chat["sessionId"] == witness.session]
            witness.wanted = {chat["clientMsgId"] for chat in witness.unsure}
        async with asyncio.timeout(110), asyncio.TaskGroup() as tasks:
            for first, second in zip(self.witnesses[::2], self.witnesses[1::2]):
                tasks.create_task(self._watch_until_done(http, first, second))
        self.hub.signal(signal.SIGTERM)
        assert await self.hub.wait_until_ended() == 0

    async def _watch_until_done(self, http: aiohttp.ClientSession, first: Witness, second: Witness) -> None:
        await first.watch(http, self.hub, calm=True)
        second.wanted, second.accepted = first.wanted, first.accepted
        await second.watch(http, self.hub, calm=True)


async def deaths_lose_nothing(folder: Path, rounds: int, sessions: int) -> None:
    """Kill the hub *rounds* times, and compare all seen events and accepted chats with its log."""
    hub = HubProcess(folder)
    hub.agent("phoenix.py", PHOENIX)
    shutil.copy(babble.__file__, folder / "agents")
    deaths = Deaths(hub, random.Random(seed()), sessions)
    deaths.witnesses = [Witness(f"s{number // 2}") for number in range(2 * sessions)]
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            for _ in range(rounds):
                await deaths.round(http)
            await deaths.calm(http)
    finally:
        await hub.kill()
    print(f"{rounds} deaths, {deaths.sent} chats: {check_all(hub, deaths.witnesses, deaths.chats)}")


def check_all(
    hub: HubProcess, witnesses: Sequence[Witness], chats: dict[str, dict[str, str]], killed: bool = True
) -> str:
    """Compare all seen events and accepted chats with the log of a stopped hub; return a summary of the runs.

    Some runs must have been aborted, some queued, and some restarted: otherwise the test has not tested that. A hub
    that was stopped, not *killed*, ends its runs, and rarely has one to restart.
    """
    assert "Traceback" not in hub.log, hub.log
    ends: Counter[str] = Counter()
    again: set[str] = set()
    queued = 0
    with closing(sqlite3.connect(f"file:{hub.database}?mode=ro", uri=True)) as log:
        assert log.execute("SELECT count(*) FROM runs").fetchone() == (0,)
        for witness in witnesses:
            rows = log.execute("SELECT * FROM events WHERE session = ? ORDER BY seq", (witness.session,))
            names = [column[0] for column in rows.description]
            events = [dict(zip(names, row)) for row in rows]
            check_log(events)
            check_seen(witness, events)
            check_accepted(witness, events, chats)
            ends.update(json.loads(e["content"])["stopReason"] for e in events if e["type"] == "run_finished")
            again.update(e["run"] for e in events if e["type"] == "message_removed")
            queued += sum(a[0]["status"] == "queued" for a in witness.accepted.values())
    assert ends["aborted"] and ends["end_turn"] and set(ends) == {"aborted", "end_turn"}
    assert queued and (again or not killed)
    return f"ends {dict(ends)}, {len(again)} run again, {queued} queued"


def check_log(events: list[dict[str, Any]]) -> None:
    """Check that seqs are dense, that the last event of each run is its one end, and that its text has no gap."""
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event["run"] is not None:
            runs[event["run"]].append(event)
    for run in runs.values():
        kinds = [event["type"] for event in run]
        assert kinds.count("run_finished") == 1 and kinds[-1] == "run_finished", kinds
        starts = [json.loads(event["content"])["attempt"] for event in run if event["type"] == "run_started"]
        assert starts == list(range(1, len(starts) + 1)) and len(starts) <= 2
        assert kinds.count("message_removed") == len(starts) - 1
        if len(starts) == 2:
            assert run[0]["agent"] == "phoenix"
            assert kinds.index("message_removed") == kinds.index("run_started", 1) - 1
        check_texts(run)


def check_texts(run: list[dict[str, Any]]) -> None:
    texts: dict[str, str] = {}
    for event in run:
        if event["type"] == "stream":
            before = texts.get(event["message"], "")
            assert event["offset"] == len(before)
            texts[event["message"]] = before + event["content"]
    end = json.loads(run[-1]["content"])
    if run[0]["agent"] == "phoenix" and end["stopReason"] == "end_turn":
        assert texts[end["messageId"]] == "".join(f"{number} " for number in range(COUNT))


def check_seen(witness: Witness, events: list[dict[str, Any]]) -> None:
    """Check that the log has all events that a client saw, also those just before a kill."""
    texts: dict[str, str] = defaultdict(str)
    for event in events:
        if event["type"] == "stream":
            texts[event["message"]] += event["content"]
    for seq, frame in witness.seen_events.items():
        event = events[seq - 1]
        assert (event["type"], event["run"], event["ts"]) == (frame["type"], frame.get("runId"), frame["ts"])
        if frame["type"] == "stream":
            assert texts[frame["messageId"]].startswith(frame["content"], frame["offset"])
        else:
            body = json.loads(event["content"])
            assert {key: frame[key] for key in body if key in frame} == {k: v for k, v in body.items() if k in frame}


def check_accepted(witness: Witness, events: list[dict[str, Any]], chats: dict[str, dict[str, str]]) -> None:
    """Check that each chat is in the log once, and that each time it was sent it got the same answer."""
    messages = [json.loads(event["content"]) for event in events if event["type"] == "user_message"]
    mine = [chat for chat in chats.values() if chat["sessionId"] == witness.session]
    assert sorted(body["clientMsgId"] for body in messages) == sorted(chat["clientMsgId"] for chat in mine)
    starts = {event["run"] for event in events if event["type"] == "run_started"}
    for chat in mine:
        answers = witness.accepted[chat["clientMsgId"]]
        assert len({(frame["runId"], frame["messageId"], frame["seq"]) for frame in answers}) == 1, answers
        assert answers[0]["runId"] in starts
        texts = "".join(
            event["content"] for event in events if event["run"] == answers[0]["runId"] and event["type"] == "stream"
        )
        if chat["agentId"] == "babble":
            assert "".join(babble.chunks(chat["message"].split()[0], 40)).startswith(texts)

"""A hub that is killed with -9 while it streams: what clients saw, against what the log holds."""

import asyncio
import json
import random
import shutil
import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import babble
import orjson
from fakes import HubProcess
from kills import seed

# Started again where the hub died in the middle; says more than the hub lives.
PHOENIX = """
import asyncio
from hub.agent import agent

@agent(restartable=True)
async def phoenix(message: str):
    for number in range(int(message)):
        yield f"{number} "
        await asyncio.sleep(0.01)
"""
COUNT = 30  # what the phoenix says, in numbers


@attrs.define(eq=False)
class Witness:
    """A client that remembers each logged frame, over all its connections."""

    session: str
    seen: dict[int, dict[str, Any]] = attrs.Factory(dict)
    epoch: str | None = None
    accepted: dict[str, list[dict[str, Any]]] = attrs.Factory(lambda: defaultdict(list))
    unsure: list[dict[str, str]] = attrs.Factory(list)

    async def watch(self, http: aiohttp.ClientSession, hub: HubProcess, calm: asyncio.Event | None) -> None:
        """Resume, say again what is not accepted, and read until the hub dies (or, where calm, until all is idle)."""
        try:
            url = f"{hub.url}/api/v1/ws"
            async with http.ws_connect(url, protocols=("hubbub.v1",), max_msg_size=0) as ws:
                cursor = {"afterSeq": max(self.seen, default=0)} | ({"epoch": self.epoch} if self.epoch else {})
                await ws.send_json({"type": "subscribe", "sessionId": self.session} | cursor)
                for chat in self.unsure:
                    await ws.send_json(chat)
                async for message in ws:
                    frame = orjson.loads(message.data)
                    self._take(frame)
                    if calm is not None and frame["type"] == "state" and frame["state"] == "idle":
                        return
        except (aiohttp.ClientError, ConnectionError):
            pass

    def _take(self, frame: dict[str, Any]) -> None:
        assert frame["type"] not in ("error", "reset"), frame
        if frame["type"] == "accepted":
            self.accepted[frame["clientMsgId"]].append(frame)
        elif "ts" in frame:
            last = max(self.seen, default=0)
            assert frame["seq"] > last, (self.session, last, frame)
            self.seen[frame["seq"]] = frame
            self.epoch = frame["epoch"]


@attrs.define(eq=False)
class Deaths:
    """Rounds of: start, chat, kill. Each session has two witnesses, of whom the first sends the chats."""

    hub: HubProcess
    chance: random.Random
    sessions: int
    witnesses: list[Witness] = attrs.Factory(list)
    chats: dict[str, dict[str, str]] = attrs.Factory(dict)
    sent: int = 0

    async def round(self, http: aiohttp.ClientSession) -> None:
        """Send two chats to each session, the second of which waits, and kill the hub somewhere in the answers."""
        await self.hub.start(frames_per_second=0)
        for witness in self.witnesses[::2]:
            answered = set(witness.accepted)
            old = [chat for chat in self.chats.values() if chat["sessionId"] == witness.session]
            # What was accepted is said again too, now and then: it must not be answered twice.
            witness.unsure = [c for c in old if c["clientMsgId"] not in answered or self.chance.random() < 0.1]
            witness.unsure += [self._chat(witness.session, agent) for agent in ("babble", "phoenix")]
        watching = [asyncio.create_task(witness.watch(http, self.hub, None)) for witness in self.witnesses]
        await self._some_way()
        await self.hub.kill()
        await asyncio.gather(*watching)

    async def _some_way(self) -> None:
        """Wait until the witnesses have heard so many frames more: the kill comes at any point of the answers."""
        wanted = sum(len(w.seen) for w in self.witnesses) + self.chance.randint(1, 60 * self.sessions)
        async with asyncio.timeout(30):
            while sum(len(w.seen) for w in self.witnesses) < wanted and self.hub.running:
                await asyncio.sleep(0.001)

    def _chat(self, session: str, agent: str) -> dict[str, str]:
        self.sent += 1
        text = str(COUNT) if agent == "phoenix" else f"{self.chance.randrange(2**32)} 40 0.5"
        said = f"c{self.sent}"
        chat = {"type": "chat", "agentId": agent, "sessionId": session, "clientMsgId": said, "message": text}
        self.chats[said] = chat
        return chat

    async def calm(self, http: aiohttp.ClientSession) -> None:
        """Start once more, send what was never accepted, let every answer end, and stop with -9."""
        await self.hub.start()
        for witness in self.witnesses[::2]:
            mine = [chat for chat in self.chats.values() if chat["sessionId"] == witness.session]
            witness.unsure = mine
        async with asyncio.timeout(110):
            while any(set(w.accepted) != {c["clientMsgId"] for c in w.unsure} for w in self.witnesses[::2]) or (
                await self._unfinished()
            ):
                await asyncio.gather(*(witness.watch(http, self.hub, asyncio.Event()) for witness in self.witnesses))
        await asyncio.gather(*(witness.watch(http, self.hub, asyncio.Event()) for witness in self.witnesses))
        await self.hub.kill()

    async def _unfinished(self) -> bool:
        with closing(sqlite3.connect(f"file:{self.hub.database}?mode=ro", uri=True)) as log:
            return bool(log.execute("SELECT count(*) FROM runs").fetchone()[0])

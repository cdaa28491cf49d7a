"""Kill the sockets of clients again and again, and check the text that each client has at the end."""

import asyncio
import os
import random
import shutil
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import orjson
from support import babble
from support.process import HubProcess
from support.proxy import Fate, Proxy

LONG = os.environ.get("HUBBUB_TEST_TORTURE") == "long"


def seed() -> int:
    """Return the seed of the test, and print it, so that a failure can be repeated."""
    value = int(os.environ.get("HUBBUB_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"HUBBUB_TEST_SEED={value}")
    return value


@attrs.define(eq=False)
class Reading:
    """The text that one client has assembled of a session; take() fails on a gap, a repetition or a reset."""

    name: str
    seq: int | None = None
    epoch: str | None = None
    texts: dict[str, str] = attrs.Factory(dict)
    ends: list[str] = attrs.Factory(list)

    def take(self, frame: dict[str, Any], wanted: str) -> None:
        kind = frame["type"]
        assert kind not in ("error", "reset"), (self.name, frame)
        if kind in ("subscribed", "accepted", "welcome", "state", "presence"):
            return
        if "seq" in frame:
            assert self.seq is None or frame["seq"] > self.seq, (self.name, self.seq, frame)
            assert self.epoch in (None, frame["epoch"]), (self.name, self.epoch, frame)
            self.seq, self.epoch = frame["seq"], frame["epoch"]
        if kind == "run_finished" or frame.get("done"):
            self.ends.append(frame["stopReason"])
        elif kind == "stream":
            text = self.texts.get(frame["messageId"], "")
            assert frame.get("offset", len(text)) == len(text), (self.name, len(text), frame)
            assert wanted.startswith(frame["content"], len(text)), (self.name, len(text), frame)
            self.texts[frame["messageId"]] = text + frame["content"]


@attrs.define(eq=False)
class Victim:
    """A client behind a proxy of its own, which kills one connection after another."""

    http: aiohttp.ClientSession
    proxy: Proxy
    session: str
    wanted: str
    reading: Reading
    extended: bool
    chat: dict[str, str] | None
    late: bool
    replays: int = 0
    connections: int = 0

    async def live(self, has_begun: asyncio.Event, has_ended: asyncio.Event) -> None:
        """Read to the end of the answer, then again from the start until the proxy has no kills left."""
        if self.late:
            await has_begun.wait()
        while not self.reading.ends:
            await self._connection(has_begun, has_ended, to_end=True)
        has_ended.set()
        self._check()
        while self.proxy.remaining_fates:
            self.reading = Reading(self.reading.name + ", again", seq=0)
            self.replays += 1
            while not self.reading.ends:
                await self._connection(has_begun, has_ended, to_end=False)
            self._check()

    def _check(self) -> None:
        assert list(self.reading.texts.values()) == [self.wanted], self.reading.name
        assert self.reading.ends == ["end_turn"], self.reading.name

    async def _connection(self, has_begun: asyncio.Event, has_ended: asyncio.Event, to_end: bool) -> None:
        """Connect at the cursor and read, until the end or (unless *to_end*) until the socket is lost."""
        self.connections += 1
        after, epoch = self.reading.seq, self.reading.epoch
        if after is None and (not self.late or has_ended.is_set()):
            after = 0  # without a cursor a client gets no events of an answer that has ended
        url = f"http://127.0.0.1:{self.proxy.port}/api/v1/ws"
        cursor = {} if after is None else {"afterSeq": after} | ({"epoch": epoch} if epoch else {})
        options: dict[str, Any] = {"protocols": ("hubbub.v1",)} if self.extended else {}
        if not self.extended:
            options["params"] = {"sessionId": self.session} | cursor
        try:
            async with self.http.ws_connect(url, max_msg_size=0, **options) as ws:
                if self.extended:
                    await ws.send_json({"type": "subscribe", "sessionId": self.session} | cursor)
                    if self.chat is not None:
                        await ws.send_json(self.chat)
                async for message in ws:
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        break  # reset
                    frame = orjson.loads(message.data)
                    if frame["type"] == "accepted":
                        self.chat = None
                    self.reading.take(frame, self.wanted)
                    if sum(map(len, self.reading.texts.values())) > len(self.wanted) // 10:
                        has_begun.set()
                    if self.reading.ends and (to_end or not self.proxy.remaining_fates):
                        return
        except (aiohttp.ClientError, ConnectionError):
            pass  # killed in the handshake


async def kills_lose_nothing(folder: Path, sessions: int, clients: int, chunks: int, seconds: float, each: int) -> None:
    """Stream *sessions* to *clients* each, and kill the socket of each client *each* times; check all texts."""
    chance = random.Random(seed())
    hub = HubProcess(folder)
    (folder / "agents").mkdir()
    shutil.copy(babble.__file__, folder / "agents")
    await hub.start()
    victims: list[Victim] = []
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http, asyncio.TaskGroup() as tasks:
            for number in range(sessions):
                has_begun, has_ended = asyncio.Event(), asyncio.Event()
                for victim in await _session(hub, http, chance, number, clients, chunks, seconds, each):
                    victims.append(victim)
                    tasks.create_task(victim.live(has_begun, has_ended))
    finally:
        for victim in victims:
            await victim.proxy.stop()
        await hub.kill()
    struck = sum(victim.proxy.strikes for victim in victims)
    print(
        f"{struck} kills, {sum(v.connections for v in victims)} connections, {sum(v.replays for v in victims)} replays"
    )
    assert struck == sessions * clients * each
    assert "Traceback" not in hub.log, hub.log


async def _session(
    hub: HubProcess,
    http: aiohttp.ClientSession,
    chance: random.Random,
    number: int,
    clients: int,
    chunks: int,
    seconds: float,
    each: int,
) -> list[Victim]:
    name = f"s{number}"
    message = f"{chance.randrange(2**32)} {chunks} {seconds}"
    wanted = "".join(babble.chunks(message.split()[0], chunks))
    chat = {"type": "chat", "agentId": "babble", "sessionId": name, "clientMsgId": "c1", "message": message}
    victims = []
    for index in range(clients):
        fates = [Fate.draw(chance) for _ in range(each)]
        proxy = await Proxy(lambda: ("127.0.0.1", hub.port), fates).start()
        victims.append(
            Victim(
                http,
                proxy,
                name,
                wanted,
                Reading(f"client {index} of {name}"),
                extended=index % 2 == 0,
                chat=chat if index == 0 else None,
                late=index == clients - 1,
            )
        )
    return victims

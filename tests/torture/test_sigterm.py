"""SIGTERM at random times: the hub stops cleanly, and loses no accepted message."""

import asyncio
import random
import shutil
import signal
import socket
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import orjson
import pytest
from support import babble
from support.kill9 import COUNT, PHOENIX, Witness, check_all
from support.kills import LONG, seed
from support.process import HubProcess
from support.waiting import PATIENCE, eventually

SESSIONS, CLIENTS, NEVER_READERS = 20, 5, 5  # 100 clients in all
ROUNDS = 200 if LONG else 15
# Other limits than in production: runs that have not ended 0.6 s after the signal are aborted.
LIMITS: dict[str, Any] = {"limits_drain_seconds": 16, "limits_grace_seconds": 14.8, "limits_close_seconds": 0.3}
FLOOD = """
import asyncio

async def flood(message: str):
    while True:
        yield "x" * 10_000
        await asyncio.sleep(0.01)
"""


@attrs.define(eq=False)
class Guest(Witness):
    """A client that stays until the hub closes its socket, and connects again in the next round."""

    connections: int = 0
    codes: list[int | None] = attrs.Factory(list)
    refused: int = 0

    async def stay(self, http: aiohttp.ClientSession, hub: HubProcess) -> None:
        """Resume, send the *unsure* chats, and read until the socket closes."""
        async with http.ws_connect(f"{hub.url}/api/v1/ws", protocols=("hubbub.v1",), max_msg_size=0) as ws:
            self.connections += 1
            cursor = {"afterSeq": max(self.seen_events, default=0)} | ({"epoch": self.epoch} if self.epoch else {})
            await ws.send_json({"type": "subscribe", "sessionId": self.session} | cursor)
            for chat in self.unsure:
                await ws.send_json(chat)
            async for message in ws:
                frame = orjson.loads(message.data)
                if frame["type"] == "error" and frame["code"] == "draining":
                    self.refused += 1  # the chat came after the signal
                else:
                    self._take(frame)
            self.codes.append(ws.close_code)


@attrs.define(eq=False)
class Stops:
    """Rounds of: start, chat, stop. The first client of each session sends the chats."""

    hub: HubProcess
    chance: random.Random
    guests: list[list[Guest]]  # by session
    chats: dict[str, dict[str, str]] = attrs.Factory(dict)
    files: dict[str, bytes] = attrs.Factory(dict)  # uploads that were accepted
    answers: Counter[str] = attrs.Factory(Counter)  # of requests that wait for an answer

    async def round(self, http: aiohttp.ClientSession, number: int) -> None:
        """Start the hub, chat, and stop it during the answers: all clients get code 1012, and the exit code is 0."""
        await self.hub.start(**LIMITS)
        for guests in self.guests:
            self.prepare(guests[0])
        everyone = [guest for guests in self.guests for guest in guests]
        stuck = [socket.socket() for _ in range(NEVER_READERS)]
        try:
            async with asyncio.timeout(3 * PATIENCE), asyncio.TaskGroup() as tasks:
                staying = [tasks.create_task(guest.stay(http, self.hub)) for guest in everyone]
                for sock in stuck:
                    await never_read(sock, self.hub)
                if number % 3 == 0:  # an answer that never ends
                    await self.ask(http, {"agentId": "flood", "sessionId": "flood", "message": ""})
                tasks.create_task(self.wait_for_answer(http, number))
                tasks.create_task(self.upload(http, number))
                await eventually(lambda: all(guest.connections > number for guest in everyone))
                await self.wait_for_progress(everyone, staying)
                self.hub.signal(signal.SIGTERM)
                if number % 3 == 1:
                    self.hub.signal(signal.SIGTERM)
                assert await self.hub.wait_until_ended() == 0, self.hub.log
        finally:
            for sock in stuck:
                sock.close()
        assert [guest.codes[-1] for guest in everyone] == [1012] * len(everyone)
        assert all(len(guest.codes) == number + 1 for guest in everyone)

    def prepare(self, guest: Guest) -> None:
        """Choose the chats that a client sends: those without an answer, and up to two new ones."""
        mine = [chat for chat in self.chats.values() if chat["sessionId"] == guest.session]
        # Sometimes an accepted chat is sent again, too: the hub must not answer it twice.
        guest.unsure = [c for c in mine if c["clientMsgId"] not in guest.accepted or self.chance.random() < 0.1]
        if len(guest.open()) < 5:
            guest.unsure += [self.chat(guest.session, agent) for agent in ("babble", "phoenix")]

    def chat(self, session: str, agent: str) -> dict[str, str]:
        name = f"c{len(self.chats)}"
        text = str(COUNT) if agent == "phoenix" else f"{self.chance.randrange(2**32)} 40 1"
        chat = {"type": "chat", "agentId": agent, "sessionId": session, "clientMsgId": name, "message": text}
        self.chats[name] = chat | {"ifBusy": self.chance.choice(("parallel", "enqueue"))}
        return self.chats[name]

    async def wait_for_progress(self, everyone: list[Guest], staying: list[asyncio.Task[None]]) -> None:
        """Wait until the clients have received a random number of events."""
        wanted = sum(len(guest.seen_events) for guest in everyone) + self.chance.randint(1, 40) * len(everyone)
        async with asyncio.timeout(PATIENCE):
            while sum(len(guest.seen_events) for guest in everyone) < wanted and any(
                guests[0].waits() for guests in self.guests
            ):
                await asyncio.sleep(0.005)
                assert not any(task.done() for task in staying)

    async def ask(
        self, http: aiohttp.ClientSession, chat: dict[str, str], query: str = ""
    ) -> tuple[int, dict[str, Any]]:
        url = f"{self.hub.url}/api/v1/sessions/{chat['sessionId']}/chat{query}"
        body = {key: chat[key] for key in ("agentId", "message", "ifBusy") if key in chat}
        headers = {"Idempotency-Key": chat["clientMsgId"]} if "clientMsgId" in chat else {}
        async with http.post(url, json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def wait_for_answer(self, http: aiohttp.ClientSession, number: int) -> None:
        """Wait for an answer over HTTP: it comes, or the error is `aborted` or `draining`.

        The error has a `runId` if the chat is stored.
        """
        guest = self.guests[number % SESSIONS][0]
        chat = self.chat(guest.session, "babble") | {"ifBusy": "enqueue"}
        try:
            status, body = await self.ask(http, chat, "?wait=true")
        except aiohttp.ClientError:  # the hub had not accepted the connection when it closed its port
            self.answers["reset"] += 1
            return
        assert status == 200 or (status == 503 and body["code"] in ("aborted", "draining")), (status, body)
        self.answers[str(status) + " stored" * ("runId" in body)] += 1

    async def upload(self, http: aiohttp.ClientSession, number: int) -> None:
        """Upload a complete file, and another file so slowly that the upload never ends."""
        data = self.chance.randbytes(10_000)
        url = f"{self.hub.url}/api/v1/files?sessionId=s0&name=a.png"
        headers = {"Content-Type": "image/png"}

        async def endless() -> Any:
            while True:
                yield data
                await asyncio.sleep(0.05)

        with suppress(aiohttp.ClientError):  # the hub ended
            async with http.post(url, data=data, headers=headers) as answer:
                if answer.status == 201:
                    self.files[(await answer.json())["fileId"]] = data
            async with http.post(url, data=endless(), headers=headers) as answer:
                assert answer.status == 503, await answer.text()

    async def calm(self, http: aiohttp.ClientSession) -> None:
        """Start the hub once more, send every chat again, and wait until every answer has ended."""
        await self.hub.start()
        async with asyncio.timeout(5 * PATIENCE), asyncio.TaskGroup() as tasks:
            for guests in self.guests:
                tasks.create_task(self.to_the_end(http, guests))
        for file_id, data in self.files.items():
            async with http.get(f"{self.hub.url}/api/v1/files/{file_id}") as answer:
                assert (answer.status, await answer.read()) == (200, data)
        self.hub.signal(signal.SIGTERM)
        assert await self.hub.wait_until_ended() == 0
        assert not [*(self.hub.folder / "data" / "files").rglob("*.part")]

    async def to_the_end(self, http: aiohttp.ClientSession, guests: list[Guest]) -> None:
        first = guests[0]
        first.unsure = [chat for chat in self.chats.values() if chat["sessionId"] == first.session]
        first.wanted = {chat["clientMsgId"] for chat in first.unsure}
        await first.watch(http, self.hub, calm=True)
        for guest in guests[1:]:
            guest.wanted, guest.accepted = first.wanted, first.accepted
            await guest.watch(http, self.hub, calm=True)


async def never_read(sock: socket.socket, hub: HubProcess) -> None:
    """Subscribe to the session of the flood with a socket that nobody reads."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", hub.port))
    head = f"GET /api/v1/ws?sessionId=flood HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\n"
    head += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    await loop.sock_sendall(sock, (head + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode())


@pytest.mark.torture
@pytest.mark.timeout(3600 if LONG else 400)
async def test_each_stop_is_clean_and_loses_nothing(tmp_path: Path) -> None:
    """15 (200) stops with 100 clients in 20 sessions, and 5 that never read: exit 0, code 1012, exact after resume."""
    hub = HubProcess(tmp_path)
    hub.agent("phoenix.py", PHOENIX)
    hub.agent("flood.py", FLOOD)
    shutil.copy(babble.__file__, tmp_path / "agents")
    guests = [[Guest(f"s{number}") for _ in range(CLIENTS)] for number in range(SESSIONS)]
    stops = Stops(hub, random.Random(seed()), guests)
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            for number in range(ROUNDS):
                await stops.round(http, number)
            await stops.calm(http)
    finally:
        await hub.kill()
    everyone = [guest for guests in stops.guests for guest in guests]
    print(f"{ROUNDS} stops, {len(stops.chats)} chats: {check_all(hub, everyone, stops.chats, killed=False)}")
    print(
        f"waiting over HTTP: {dict(stops.answers)}; {len(stops.files)} files; {sum(g.refused for g in everyone)} late"
    )

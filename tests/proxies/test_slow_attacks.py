"""slowhttptest attacks a hub with 200 slow clients, while a good client of another address is served."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from support.certificates import make_certificate
from support.hub import AGENTS, Client
from support.process import HubProcess
from support.sites import call_operator, create_key
from support.slow_attack import ALL_CLOSED, ATTACK_SECONDS, CONNECTIONS, attack, needs_slowhttptest
from support.waiting import PATIENCE, eventually

from hub.access.secrets import TOKEN_PATTERN
from hub.limits import Limits, MiB
from hub.web.accepting import MAX_REFUSED_SOCKETS

pytestmark = [needs_slowhttptest, pytest.mark.timeout(ATTACK_SECONDS + 6 * PATIENCE)]

# Tells the number of tasks in the process of the hub.
TASKS_AGENT = """
import asyncio

async def tasks(message: str):
    return str(len(asyncio.all_tasks()))
"""
MESSAGE = "one two three four five six seven eight nine ten"
CHAT_SECONDS = 0.1  # between two chats: new connections, and commands of one connection, have a rate limit
MIN_ANSWERS = 20  # an attack may end early
CAP = Limits().address_connections
# A connection that reads a file has a descriptor for the file, too. Refused sockets are open for another moment.
MAX_NEW_DESCRIPTORS = 2 * CAP + MAX_REFUSED_SOCKETS + 16
RANGES = ("-a", "1", "-b", "1000")  # with more of them, the header is too long
SLOW_READ = ("-X", "-w", "10", "-y", "20", "-n", "1", "-z", "32")


@attrs.define(eq=False, kw_only=True)
class Target:
    """A hub with sign-in, the key of a program, and an HTTP client with another address than the attack."""

    hub: HubProcess
    key: str
    http: aiohttp.ClientSession

    @property
    def api(self) -> str:
        return f"{self.hub.url}/api/v1"

    async def chat(self, agent: str, message: str) -> str:
        """Open a WebSocket, chat, and return the text of the answer."""
        client = Client(self.http, await self.http.ws_connect(f"{self.api}/ws"))
        await client.send(type="chat", agentId=agent, sessionId="good", message=message)
        await client.until_done()
        await client.ws.close()
        return client.text()

    def count_descriptors(self) -> int:
        """Return the number of descriptors, without those of the log: a thread opens the log with its first read."""
        links = Path(f"/proc/{self.hub.pid}/fd").iterdir()
        return sum("hub.db" not in _read_link(link) for link in links)

    async def wait_for_tasks(self, number: int) -> None:
        """Wait until the hub has no more than *number* of tasks."""
        async with asyncio.timeout(PATIENCE):
            while int(await self.chat("tasks", "")) > number:
                await asyncio.sleep(0.1)

    async def upload(self) -> str:
        """Upload a large file, and return its address."""
        headers = {"Content-Type": "application/x-a"}
        data = BytesIO(bytes(8 * MiB))
        async with self.http.post(f"{self.api}/files?sessionId=good&name=a", data=data, headers=headers) as response:
            return f"{self.api}/files/{(await response.json())['fileId']}"

    async def sign_in(self) -> str:
        """Sign a browser in, and return its cookie."""
        token = TOKEN_PATTERN.search(await call_operator(self.hub, "invite_person", name="Ann", role="admin"))
        assert token is not None
        headers = {"Origin": self.hub.url, "Authorization": ""}
        async with self.http.post(f"{self.api}/sign-in", json={"token": token[0]}, headers=headers) as response:
            assert response.status == 200, await response.text()
            (cookie,) = SimpleCookie(response.headers["Set-Cookie"]).values()
            return f"{cookie.key}={cookie.value}"


def _read_link(link: Path) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:  # closed meanwhile
        return ""


@asynccontextmanager
async def open_target(folder: Path, is_tls: bool) -> AsyncIterator[Target]:
    folder.mkdir()
    hub, certificate = HubProcess(folder), make_certificate(folder)
    for name, code in {**AGENTS, "tasks": TASKS_AGENT}.items():
        hub.agent(f"{name}.py", code)
    tls: dict[str, Any] = {"tls_certificate": certificate.file, "tls_key": certificate.key_file} if is_tls else {}
    try:
        # The attack opens 50 connections a second. It must reach the limit of open connections of its address, and not
        # the limit of new connections.
        await hub.start(sign_in=True, limits_new_connections_per_second=200, **tls)
        key = await create_key(hub, "ci")
        # A connection for each request: each must pass the limits of connections.
        connector = aiohttp.TCPConnector(ssl=certificate.trust(), local_addr=("127.0.0.9", 0), force_close=True)
        headers = {"Authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as http:
            yield Target(hub=hub, key=key, http=http)
    finally:
        await hub.kill()


async def make_options(target: Target, mode: str) -> tuple[str, ...]:
    """Return the address of an attack, and its options."""
    if mode == "-X":  # the attack with a large response: a small one fits into the buffers of the kernel
        return (await target.upload(), "-j", await target.sign_in(), *SLOW_READ)
    path = {"-H": "/", "-B": "/api/v1/sessions/s1/chat", "-R": "/client.js"}[mode]
    return (f"{target.hub.url}{path}", mode, *(RANGES if mode == "-R" else ()))


async def chat_until(target: Target, running: "asyncio.Task[str]") -> list[int]:
    """Chat while an attack runs, and check each answer. Return the number of descriptors after each answer."""
    counts: list[int] = []
    while not running.done() or len(counts) < MIN_ANSWERS:
        assert await target.chat("echo", MESSAGE) == f"{MESSAGE} "
        counts.append(target.count_descriptors())
        await asyncio.sleep(CHAT_SECONDS)  # meanwhile the attack opens 50 connections a second
    return counts


async def endure(folder: Path, mode: str, is_tls: bool) -> None:
    """Attack a hub, and check that a good client gets all tokens meanwhile, and that nothing of the attack stays."""
    async with open_target(folder, is_tls) as target:
        options = await make_options(target, mode)
        assert await target.chat("echo", MESSAGE) == f"{MESSAGE} "
        tasks, descriptors, pid = int(await target.chat("tasks", "")), target.count_descriptors(), target.hub.pid
        running = asyncio.create_task(attack(folder, *options))
        counts = await chat_until(target, running)
        highest, end = max(counts), await running
        print(f"{mode}, TLS {is_tls}: {len(counts)} answers, {descriptors} to {highest} descriptors, {end}")
        assert target.hub.running and target.hub.pid == pid and "Traceback" not in target.hub.log, target.hub.log
        assert highest <= descriptors + MAX_NEW_DESCRIPTORS
        if mode == "-X":  # the attack goes on to read what the kernel has, after the hub has cut its connections
            assert highest > descriptors + CAP and sum(count <= descriptors + 1 for count in counts) > len(counts) // 4
        else:
            assert end == ALL_CLOSED
        assert mode == "-R" or "this address has too many connections" in target.hub.log
        await eventually(lambda: target.count_descriptors() <= descriptors)
        await target.wait_for_tasks(tasks)


@pytest.mark.parametrize("mode", ["-H", "-B", "-R", "-X"])
async def test_a_good_client_is_served_during_an_attack(mode: str, tmp_path: Path) -> None:
    """By slow headers, slow bodies, ranges, and slow reads; of a hub with TLS and of one without it.

    The attack gets no more connections than the limit for an address, and the hub closes them.
    """
    assert CONNECTIONS > 2 * CAP
    async with asyncio.TaskGroup() as group:
        for is_tls in (False, True):
            group.create_task(endure(tmp_path / f"tls-{is_tls}", mode, is_tls))


async def test_a_client_with_the_address_of_an_attack_keeps_its_connection(tmp_path: Path) -> None:
    """It cannot open another one while the attack has all connections of the address, and is told so."""
    async with open_target(tmp_path / "hub", is_tls=False) as target, aiohttp.ClientSession() as neighbour:
        headers = {"Authorization": f"Bearer {target.key}"}
        client = Client(neighbour, await neighbour.ws_connect(f"{target.api}/ws", headers=headers))
        running = asyncio.create_task(attack(tmp_path, f"{target.hub.url}/", "-H"))
        await eventually(lambda: "this address has too many connections" in target.hub.log)
        async with neighbour.get(f"{target.hub.url}/health", headers={"Connection": "close"}) as response:
            assert (response.status, (await response.json())["code"]) == (429, "too_many_connections")
            assert response.headers["Retry-After"]
        while not running.done():
            client.frames.clear()
            await client.send(type="chat", agentId="echo", message=MESSAGE)
            await client.until_done()
            assert client.text() == f"{MESSAGE} "
            await asyncio.wait([running], timeout=CHAT_SECONDS)
        await client.ws.close()
        assert await running == ALL_CLOSED
        async with neighbour.get(f"{target.hub.url}/health") as response:
            assert response.status == 200

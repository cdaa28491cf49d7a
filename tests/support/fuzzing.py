"""Several principals send random frames to a hub; meanwhile a canary's answers are exact, and no secret leaks."""

import asyncio
import json
import random
import shutil
import signal
import sqlite3
from contextlib import closing, suppress
from typing import Any

import aiohttp
import attrs
from support import babble
from support.documents import DOCS, rows
from support.grammar import CLOSE, SHARED, TEXT, Grammar, encode_frame
from support.hub import AGENTS, Client
from support.process import HubProcess
from support.waiting import PATIENCE

ASKER = """
    async def asker(run):
        reply = await run.ask("why?")
        yield str(reply.payload)
    """
SLOW = """
    import asyncio

    async def slow(message: str):
        for word in message.split() * 3:
            yield word + " "
            await asyncio.sleep(0.005)
    """
# The principals, with the options of their keys.
OPTIONS: dict[str, dict[str, Any]] = {
    "ann": {},
    "bob": {},
    "eve": {"agents": ["echo"]},
    "guest": {"role": "guest"},
    "observer": {"role": "observer"},
    "mallory": {"role": "admin", "tenant": "acme"},
}
# Whose secrets they may hear, beside their own; None: all.
AUDIBLE: dict[str, frozenset[str] | None] = {"eve": frozenset({"eve", "ann"}), "observer": None}
# The sessions that exist at the start, each with its owner and the roles of others.
SESSIONS: dict[str, tuple[Any, ...]] = {
    "s-ann": ("ann", ("eve", "viewer")),
    "s-bob": ("bob",),
    SHARED: ("ann", ("bob", "member"), ("guest", "member"), ("eve", "viewer")),
}
FRAMES_PER_CONNECTION = 150
PARALLEL_CONNECTIONS = 8
DOCUMENTED_CODES = {
    name.strip(" `") for page in ("protocol", "agents") for row in rows(DOCS[page]) for name in row[0].split(",")
} - {"internal"}
# 4999 is a code of the grammar: the hub answers a close with the code of the client.
CLOSE_CODES = {1000, 1002, 1006, 1007, 1009, 4004, 4500, 4501, 4502, 4504, 4507, 4999}
SIGN_INS = ("header", "header", "header", "auth", "hello", "none")


@attrs.frozen
class Fuzzer:
    """A principal that sends frames. *audible* are the names of those whose secrets it may hear; None: all."""

    name: str
    token: str
    audible: frozenset[str] | None

    @property
    def secret(self) -> str:
        return f"secret-of-{self.name}"


@attrs.define
class Fuzz:
    """A hub in a process of its own, and those who send frames to it."""

    hub: HubProcess
    seed: int
    fuzzers: list[Fuzzer] = attrs.Factory(list)
    canary_token: str = ""
    sent_frames: int = 0
    heard_frames: int = 0
    refusals: set[str] = attrs.Factory(set)
    close_codes: set[int] = attrs.Factory(set)

    async def start(self) -> None:
        agents = {"echo": AGENTS["echo"], "asker": ASKER, "slow": SLOW}
        for name, code in agents.items():
            self.hub.agent(f"{name}.py", code)
        shutil.copy(babble.__file__, self.hub.folder / "agents")
        # A short drain: some answers wait for replies that never come.
        limits: dict[str, Any] = {
            "drain_seconds": 2,
            "grace_seconds": 0.5,
            "close_seconds": 0.5,
            "commands_per_second": 10**6,
            "bad_frames_per_minute": 25,
            "new_connections_per_second": 10_000,
        }
        await self.hub.start(sign_in=True, **{f"limits_{name}": value for name, value in limits.items()})
        await self._make_principals()

    async def _operate(self, command: str, **fields: Any) -> Any:
        """Send a command of the operator to the control socket."""
        async with self._open_control() as http, http.post(
            f"http://localhost/commands/{command}", json=fields
        ) as answer:
            assert answer.status == 200, await answer.text()
            return (await answer.json())["result"]

    async def _make_principals(self) -> None:
        ids = {}
        for name, options in OPTIONS.items():
            new_key = await self._operate("create_key", name=name, **options)
            self.fuzzers.append(Fuzzer(name, new_key["key"], AUDIBLE.get(name, frozenset({name}))))
            ids[name] = new_key["principal"]["id"]
        self.canary_token = (await self._operate("create_key", name="canary"))["key"]
        await self._request(self.canary_token, "POST", "/sessions", 201, {"sessionId": "canary"})
        tokens = {fuzzer.name: fuzzer.token for fuzzer in self.fuzzers}
        for session, (owner, *roles) in SESSIONS.items():
            chat = {"agentId": "echo", "message": "hello"}
            await self._request(tokens[owner], "POST", f"/sessions/{session}/chat", 202, chat)
            for name, role in roles:
                body = {"id": ids[name], "role": role}
                await self._request(tokens[owner], "PATCH", f"/sessions/{session}/members", 200, body)

    async def _request(self, token: str, method: str, path: str, status: int, body: dict[str, Any]) -> None:
        async with aiohttp.ClientSession(self.hub.url, headers={"Authorization": f"Bearer {token}"}) as http:
            async with http.request(method, f"/api/v1{path}", json=body) as response:
                assert response.status == status, await response.text()

    # --- the test -----------------------------------------------------------------------------------------------------

    async def run(self, frames: int) -> None:
        """Send *frames*, and check what the hub does."""
        pid, stop = self.hub.pid, asyncio.Event()
        canary = asyncio.create_task(self._sing(stop))
        numbers = iter(range(10**9))
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(PARALLEL_CONNECTIONS):
                    tasks.create_task(self._play_until(frames, numbers, canary))
        except BaseException:
            canary.cancel()
            raise
        stop.set()
        print(f"{self.sent_frames} frames sent, {self.heard_frames} heard, {await canary} answers of the canary")
        print(f"errors {sorted(self.refusals)}, close codes {sorted(self.close_codes)}")
        async with aiohttp.ClientSession(self.hub.url) as http, http.get("/ready") as response:
            assert response.status == 200
        assert self.hub.running and self.hub.pid == pid
        assert "Traceback" not in self.hub.log and "[error" not in self.hub.log, self.hub.log[-5000:]
        await self._wait_until_all_left()

    async def _wait_until_all_left(self) -> None:
        """Wait until the hub has no connection and no running command."""
        async with asyncio.timeout(PATIENCE), self._open_control() as http:
            while True:
                async with http.get("http://localhost/metrics") as response:
                    if "hubbub_connections 0.0" in await response.text():
                        return
                await asyncio.sleep(0.05)

    def _open_control(self) -> aiohttp.ClientSession:
        """Return a client of the operator's socket."""
        return aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.hub.folder / "data" / "control.sock")))

    async def _sing(self, stop: asyncio.Event) -> int:
        """Chat until *stop* is set; each answer is exact. Return their number."""
        headers, count = {"Authorization": f"Bearer {self.canary_token}"}, 0
        async with aiohttp.ClientSession(self.hub.url, headers=headers) as http:
            client = Client(http, await http.ws_connect("/api/v1/ws", protocols=("hubbub.v1",), max_msg_size=0))
            while not stop.is_set() or not count:
                seed = f"{self.seed}-{count}"
                chat = {"agentId": "babble", "sessionId": "canary", "message": f"{seed} 30 0.2"}
                await client.send(type="chat", **chat)
                end = await client.until_type("run_finished")
                assert (end["stopReason"], client.text(end["runId"])) == ("end_turn", "".join(babble.chunks(seed, 30)))
                client.frames.clear()
                count += 1
        return count

    async def _play_until(self, frames: int, numbers: Any, canary: asyncio.Task[int]) -> None:
        while self.sent_frames < frames:
            assert not canary.done(), canary.result()
            number = next(numbers)
            chance = random.Random(f"{self.seed}-{number}")
            try:
                await Connection(self, chance.choice(self.fuzzers), chance).play()
            except BaseException as error:
                error.add_note(f"connection {number} of the seed {self.seed}")
                raise

    async def finish(self) -> None:
        """Stop the hub, and check its log."""
        self.hub.signal(signal.SIGTERM)
        assert await self.hub.wait_until_ended() == 0
        with closing(sqlite3.connect(self.hub.database)) as log:
            for (session,) in log.execute("SELECT id FROM sessions").fetchall():
                found = log.execute("SELECT * FROM events WHERE session = ? ORDER BY seq", (session,))
                names = [column[0] for column in found.description]
                check_session([dict(zip(names, row)) for row in found])


def check_session(events: list[dict[str, Any]]) -> None:
    """Check that seqs are dense, and that the last event of each run is its one end."""
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    for run_id in {event["run"] for event in events} - {None}:
        kinds = [event["type"] for event in events if event["run"] == run_id]
        assert kinds.count("run_finished") == 1 and kinds[-1] == "run_finished", kinds


@attrs.define
class Connection:
    """One socket of a fuzzer, whose bytes the test writes itself."""

    fuzz: Fuzz
    fuzzer: Fuzzer
    chance: random.Random
    sign_in: str = attrs.field(init=False)
    grammar: Grammar = attrs.field(init=False)
    close_code: int = 1006

    def __attrs_post_init__(self) -> None:
        self.sign_in = self.chance.choice(SIGN_INS)
        # Who has not signed in could do so with the token of another principal.
        is_stranger = self.sign_in == "none"
        others = [] if is_stranger else [other for other in self.fuzz.fuzzers if other is not self.fuzzer]
        foreign = [f"s-{name}" for name in ("ann", "bob")] + ["canary", "agent:echo"]
        self.grammar = Grammar(
            self.chance,
            self.fuzzer.secret,
            (f"s-{self.fuzzer.name}", f"s-{self.fuzzer.name}", SHARED, *foreign),
            self.fuzzer.token,
            ("hk_wrong", f"hk_{'0' * 16}_{'0' * 40}", *(other.token for other in others)),
        )

    async def play(self) -> None:
        async with asyncio.timeout(3 * PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.fuzz.hub.port)
            try:
                writer.write(self._make_handshake())
                if not (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101"):
                    return
                listening = asyncio.create_task(self._listen(reader))
                await self._write(writer, listening)
                await listening
            finally:
                writer.transport.abort()
        self.fuzz.close_codes.add(self.close_code)
        assert self.close_code in CLOSE_CODES, self.close_code

    def _make_handshake(self) -> bytes:
        path = self.chance.choice(("/ws", "/ws", "/agents/echo/ws"))
        query = self.chance.choice(("", "", "?stream=false", f"?sessionId=s-{self.fuzzer.name}", "?sessionId=s-ann"))
        protocol = self.chance.choice(("", "hubbub.v1", "hubbub.events"))
        lines = [
            f"GET /api/v1{path}{query} HTTP/1.1",
            "Host: localhost",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        ]
        if protocol:
            lines.append(f"Sec-WebSocket-Protocol: {protocol}")
        if self.sign_in == "header":
            lines.append(f"Authorization: Bearer {self.fuzzer.token}")
        return "\r\n".join([*lines, "", ""]).encode()

    async def _write(self, writer: asyncio.StreamWriter, listening: asyncio.Task[None]) -> None:
        if self.sign_in in ("auth", "hello"):
            writer.write(encode_frame(json.dumps({"type": self.sign_in, "token": self.fuzzer.token}).encode()))
        with suppress(OSError):  # the hub has closed the socket
            for number in range(FRAMES_PER_CONNECTION):
                if listening.done():
                    break
                writer.write(self.grammar.make())
                self.fuzz.sent_frames += 1
                if number % 10 == 0:
                    await writer.drain()
                    await asyncio.sleep(0.01)  # so that answers come, whose ids the next frames use
            end = self.chance.choice(("close", "close", "abort", "eof"))
            if end == "close":
                writer.write(encode_frame(b"\x03\xe8", CLOSE))
            elif end == "eof":
                writer.write_eof()
            else:
                writer.transport.abort()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Read frames until the end of the connection, and check each."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                first, size = await reader.readexactly(2)
                assert first & 0xF0 == 0x80 and size < 0x80, "the hub sends whole, unmasked frames without extensions"
                if size >= 126:
                    size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
                payload = await reader.readexactly(size)
                if first & 0x0F == TEXT:
                    self._check(payload)
                elif first & 0x0F == CLOSE:
                    self.close_code = int.from_bytes(payload[:2], "big")
                    return

    def _check(self, payload: bytes) -> None:
        frame = json.loads(payload)
        self.fuzz.heard_frames += 1
        for other in self.fuzz.fuzzers:
            is_audible = self.fuzzer.audible is None or other.name in self.fuzzer.audible
            assert is_audible or other.secret.encode() not in payload, (self.fuzzer.name, payload)
        content = frame.get("payload", frame) if "taskId" in frame else frame
        self.grammar.note(content)
        if frame["type"] in ("error", "run_error"):
            self.fuzz.refusals.add(content["code"])
            assert content["code"] in DOCUMENTED_CODES, payload

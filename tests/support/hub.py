"""A hub in the test's process, and clients for it: with real sockets and real files."""

import asyncio
import json
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import attrs
from aiohttp import web
from support.waiting import PATIENCE, eventually

from hub.access.principal import OPERATOR
from hub.access.records import TenantRole
from hub.commands import hub as commands
from hub.commands import table
from hub.commands.reloading import FIXED_LIMITS
from hub.ids import Key
from hub.limits import Limits
from hub.node import draining
from hub.node.node import Node
from hub.seams import Seams
from hub.settings import Settings
from hub.web.app import make_app
from hub.web.websocket import close_all_sockets

AGENTS = {
    "echo": """
        async def echo(message: str):
            for word in message.split():
                yield word + " "
        """,
    "gated": '''
        """Says "one ", waits for the file named by the message, says "two"."""
        import asyncio, pathlib

        async def gated(message: str):
            yield "one "
            while not pathlib.Path(message).exists():
                await asyncio.sleep(0.01)
            yield "two"
        ''',
}


class Client:
    """One WebSocket client. `frames` are all frames that it has received, parsed."""

    def __init__(self, http: aiohttp.ClientSession, ws: aiohttp.ClientWebSocketResponse) -> None:
        self._http, self._ws = http, ws
        self.frames: list[dict[str, Any]] = []
        self._sent: Counter[Any] = Counter()  # open commands by ref: each gets exactly one answer

    @property
    def ws(self) -> aiohttp.ClientWebSocketResponse:
        return self._ws

    async def send(self, **frame: Any) -> None:
        if "ref" in frame:
            self._sent[frame["ref"]] += 1
        await self._ws.send_str(json.dumps(frame))

    async def next(self) -> dict[str, Any]:
        """Return the next frame. Raises EOFError if the socket closes."""
        async with asyncio.timeout(PATIENCE):
            message = await self._ws.receive()
        if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            raise EOFError(f"closed with {self._ws.close_code}")
        frame: dict[str, Any] = json.loads(message.data)
        ref = frame.get("ref")
        if ref in self._sent:
            self._sent[ref] -= 1
            assert self._sent[ref] >= 0, f"two answers to one command: {frame}"
        self.frames.append(frame)
        return frame

    async def until(self, matches: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Read until a frame matches, and return that frame."""
        while not matches(frame := await self.next()):
            pass
        return frame

    async def find(self, matches: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Return the first frame that matches, of the received ones or of those to come."""
        return next((frame for frame in self.frames if matches(frame)), None) or await self.until(matches)

    async def until_type(self, kind: str) -> dict[str, Any]:
        return await self.until(lambda frame: frame["type"] == kind)

    async def until_done(self) -> dict[str, Any]:
        """Read until the end of an answer, in either protocol."""
        return await self.until(lambda f: f.get("done") is True or f["type"] == "run_finished")

    async def wait_closed(self) -> int | None:
        """Read until the socket closes; return the close code."""
        try:
            while True:
                await self.next()
        except EOFError:
            return self._ws.close_code

    def text(self, run_id: str | None = None) -> str:
        """Return the text received so far, of all runs or of one."""
        frames = (f for f in self.frames if f["type"] in ("stream", "message") and run_id in (None, f["runId"]))
        return "".join(f["content"] for f in frames)

    async def close(self) -> None:
        await self._ws.close()
        await self._http.close()


@attrs.define(eq=False)
class Hub:
    """A hub in this process. After stop(), start() starts it again with the same folders."""

    folder: Path
    limits: Limits = Limits()
    options: dict[str, Any] = attrs.Factory(dict)
    seams: Seams = Seams()
    door: commands.Hub = attrs.field(init=False)
    port: int = 0
    clients: list[Client] = attrs.Factory(list)
    reloads_limits: bool = False  # start with the default limits, and change them while the hub runs
    _runner: web.AppRunner | None = None

    def agent(self, name: str, code: str) -> None:
        agents = self.folder / "agents"
        agents.mkdir(exist_ok=True)
        (agents / name).write_text(textwrap.dedent(code))

    async def start(self, **limits: Any) -> "Hub":
        for name, code in AGENTS.items():
            if not (self.folder / "agents" / f"{name}.py").exists():
                self.agent(f"{name}.py", code)
        self.limits = attrs.evolve(self.limits, **limits)
        settings = Settings(
            agents=self.folder / "agents",
            data=self.folder / "data",
            cache=self.folder / "cache",
            limits=self._find_first_limits(),
            **self.options,
        )
        self.door = commands.open_hub(settings, self.seams)
        await self.door.start()
        if self.reloads_limits:
            await table.change_settings(self.door, OPERATOR, attrs.evolve(settings, limits=self.limits))
        self._runner = web.AppRunner(make_app(self.door), access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = site.port
        return self

    def _find_first_limits(self) -> Limits:
        fixed_limits = {name: getattr(self.limits, name) for name in FIXED_LIMITS}
        return Limits(**fixed_limits) if self.reloads_limits else self.limits

    async def key(self, name: str, role: TenantRole | None = None, **options: Any) -> str:
        """Return a new key of a program with this name. The hub was started with the option `sign_in`."""
        new_key = await table.create_key(self.door, OPERATOR, name, role=role, **options)
        return new_key.key

    @property
    def node(self) -> Node:
        return self.door.node

    @property
    def app(self) -> web.Application:
        assert self._runner is not None and self._runner.app is not None
        return self._runner.app

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def connect(self, query: str = "", extended: bool = False, path: str = "/ws", **options: Any) -> Client:
        http = aiohttp.ClientSession()
        protocols = options.pop("protocols", ("hubbub.v1",) if extended else ())
        address = f"{self.url}/api/v1{path}{query}"
        try:
            ws = await http.ws_connect(address, protocols=protocols, max_msg_size=0, autoclose=True, **options)
        except BaseException:
            await http.close()
            raise
        client = Client(http, ws)
        self.clients.append(client)
        if extended:
            assert (await client.next())["type"] == "welcome"
        return client

    async def wait_until_live(self, session: str, count: int) -> None:
        """Wait until *count* subscriptions of a session are live."""
        sessions = self.node.sessions
        await eventually(
            lambda: session in sessions
            and sum(map(len, sessions[Key(session)].channel.live_descriptors.values())) >= count
        )

    async def stop(self) -> None:
        if self._runner is None:
            return
        for session in self.node.sessions.values():
            session.channel.check()
        runner, self._runner = self._runner, None
        for client in self.clients:
            await client.close()
        self.clients.clear()
        hurry = asyncio.Event()
        hurry.set()
        self.node.drain()
        await draining.finish_runs(self.node, 0, hurry)
        await draining.flush_all(self.node, PATIENCE)
        await close_all_sockets(runner.app, self.door, 1012)
        await runner.cleanup()
        await self.door.close()

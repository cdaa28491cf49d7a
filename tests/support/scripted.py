"""A server that speaks the extended protocol by a script, right or wrong: what no real hub can be made to do."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

WELCOME = {
    "type": "welcome",
    "protocol": "hubbub.v1",
    "hub": {"name": "hubbub", "version": "0"},
    "connectionId": "1",
    "principal": {"id": "local", "name": "local"},
    "agents": [],
    "limits": {},
    "heartbeatMs": 25000,
}


class Peer:
    """One client of the script; `came` is all it has sent."""

    def __init__(self, ws: web.WebSocketResponse) -> None:
        self.ws = ws
        self.came: list[dict[str, Any]] = []

    async def next(self, kind: str) -> dict[str, Any]:
        """Return the next command of that type."""
        while True:
            frame: dict[str, Any] = await self.ws.receive_json()
            self.came.append(frame)
            if frame["type"] == kind:
                return frame

    async def say(self, kind: str, **fields: Any) -> None:
        await self.ws.send_json({"type": kind} | fields)

    async def joined(self, seq: int = 0) -> dict[str, Any]:
        """Answer the next subscribe, for a session that stands at *seq*; return that command."""
        frame = await self.next("subscribe")
        place = {"epoch": "e", "seq": seq, "agents": [], "members": [], "active": []}
        await self.say("subscribed", sessionId=frame.get("sessionId"), ref=frame["ref"], **place)
        return frame

    async def event(self, kind: str, seq: int, **fields: Any) -> None:
        """Say an event of the run r1 in the session s1."""
        await self.say(kind, sessionId="s1", agentId="echo", runId="r1", epoch="e", seq=seq, ts=0, **fields)


Script = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def scripted(*scripts: Script) -> AsyncIterator[str]:
    """Serve one connection by each script, in turn, the last one for all that follow; yield the address.

    A script that returns closes nothing: it says so itself, or the client ends it. Without any, all are refused.
    """
    left = list(scripts)

    async def serve(request: web.Request) -> web.StreamResponse:
        if not left:
            raise web.HTTPForbidden
        ws = web.WebSocketResponse(protocols=("hubbub.v1",))
        await ws.prepare(request)
        await ws.send_json(WELCOME)
        script = left.pop(0) if len(left) > 1 else left[0]
        await script(Peer(ws))
        while not ws.closed:
            await ws.receive()
        return ws

    app = web.Application()
    app.router.add_get("/api/v1/ws", serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"ws://127.0.0.1:{site.port}/api/v1/ws"
    finally:
        await runner.cleanup()

"""A server that follows a script of protocol frames, valid or invalid, for cases that a real hub cannot produce."""

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
    """One client of the script. `received` are all frames that the client has sent."""

    def __init__(self, ws: web.WebSocketResponse) -> None:
        self.ws = ws
        self.received: list[dict[str, Any]] = []

    async def next(self, kind: str) -> dict[str, Any]:
        """Return the next command of that type."""
        while True:
            frame: dict[str, Any] = await self.ws.receive_json()
            self.received.append(frame)
            if frame["type"] == kind:
                return frame

    async def say(self, kind: str, **fields: Any) -> None:
        await self.ws.send_json({"type": kind} | fields)

    async def accept_subscribe(self, seq: int = 0) -> dict[str, Any]:
        """Answer the next `subscribe` for a session whose head is *seq*; return that command."""
        frame = await self.next("subscribe")
        state = {"epoch": "e", "seq": seq, "agents": [], "members": [], "active": []}
        await self.say("subscribed", sessionId=frame.get("sessionId"), ref=frame["ref"], **state)
        return frame

    async def event(self, kind: str, seq: int, **fields: Any) -> None:
        """Send an event of run r1 in session s1."""
        await self.say(kind, sessionId="s1", agentId="echo", runId="r1", epoch="e", seq=seq, ts=0, **fields)


Script = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def scripted(*scripts: Script) -> AsyncIterator[str]:
    """Serve the connections with the scripts in order, the last script for all later ones; yield the address.

    The end of a script does not close its connection. Without scripts, all connections are refused.
    """
    remaining = list(scripts)

    async def serve(request: web.Request) -> web.StreamResponse:
        if not remaining:
            raise web.HTTPForbidden
        ws = web.WebSocketResponse(protocols=("hubbub.v1",))
        await ws.prepare(request)
        await ws.send_json(WELCOME)
        script = remaining.pop(0) if len(remaining) > 1 else remaining[0]
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

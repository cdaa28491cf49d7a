"""The server of an issuer on a real socket: it serves a key set."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
from aiohttp import web
from support.tokens import KEY_SET

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@attrs.define(eq=False)
class KeyServer:
    """Serves *body*, or what *answer* returns; counts the requests of each path, and holds them until *gate* is set."""

    body: bytes = KEY_SET
    answer: Answer | None = None
    url: str = ""
    paths: list[str] = attrs.Factory(list)
    gate: asyncio.Event = attrs.Factory(asyncio.Event)
    request_arrived: asyncio.Event = attrs.Factory(asyncio.Event)
    client_left: asyncio.Event = attrs.Factory(asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        self.request_arrived.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.client_left.set()
            raise
        if self.answer is not None:
            return await self.answer(request)
        return web.Response(body=self.body, content_type="application/json")


@asynccontextmanager
async def serve_keys(port: int = 0) -> AsyncIterator[KeyServer]:
    """Run a key server on a loopback address. Its gate is open."""
    server = KeyServer()
    server.gate.set()
    app = web.Application()
    app.router.add_get("/{path:.*}", server.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    server.url = f"http://127.0.0.1:{site.port}/keys"
    try:
        yield server
    finally:
        await runner.cleanup()

"""An endpoint of models on a real socket that stands for a stranger's, and how an agent asks it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
from aiohttp import web

from hub.adapters import openai_chat
from hub.adapters.chat_options import Options
from hub.hosting.contract import AgentOutput, AgentPaths, Call, Run
from hub.messages import Author, Past

KEY = "sk-very-secret-0123456789"
ROUTE = "/v1/chat/completions"
NOWHERE = Path("/nowhere")
PATHS = AgentPaths("main", NOWHERE, NOWHERE)
Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


@attrs.define
class Stranger:
    """The endpoint: gives its replies one after the other (the last one for ever), and remembers what came."""

    url: str = ""
    replies: list[Reply] = attrs.Factory(list)
    headers: list[dict[str, str]] = attrs.Factory(list)
    queries: list[str] = attrs.Factory(list)
    paths: list[str] = attrs.Factory(list)
    bodies: list[dict[str, Any]] = attrs.Factory(list)
    gone: asyncio.Event = attrs.Factory(asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        self.queries.append(request.query_string)
        self.paths.append(request.path)
        self.bodies.append(await request.json())
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        try:
            return await reply(request)
        except asyncio.CancelledError:  # what aiohttp tells a handler whose client has gone
            self.gone.set()
            raise


@asynccontextmanager
async def endpoint(*routes: str) -> AsyncIterator[Stranger]:
    """Serve the endpoint at these paths, or where OpenAI has it; what else is asked gets 404."""
    stranger = Stranger()
    app = web.Application(client_max_size=4 * 1024 * 1024)
    for route in routes or (ROUTE,):
        app.router.add_post(route, stranger.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    stranger.url = f"http://127.0.0.1:{site.port}/v1"
    try:
        yield stranger
    finally:
        await runner.cleanup()


def chunk(content: str | None = None, reason: str | None = None, **more: Any) -> str:
    delta = {} if content is None else {"content": content}
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more}, ensure_ascii=False)


async def send(request: web.Request, data: bytes, kind: str, then: str, size: int) -> web.StreamResponse:
    """Write a body of this Content-Type in pieces of *size* bytes; then end it, abort the connection, or hang."""
    response = web.StreamResponse(headers={"Content-Type": kind})
    await response.prepare(request)
    for at in range(0, len(data), size):
        await response.write(data[at : at + size])
    if then == "abort":
        assert request.transport
        request.transport.abort()
    if then == "hang":
        await asyncio.Event().wait()
    return response


def stream(*events: str, then: str = "end", size: int = 3) -> Reply:
    """Reply with these events."""
    return body("".join(f"data: {event}\n\n" for event in events).encode(), then=then, size=size)


def body(data: bytes, kind: str = "text/event-stream; charset=utf-8", then: str = "end", size: int = 3) -> Reply:
    """Reply with these bytes."""

    async def reply(request: web.Request) -> web.StreamResponse:
        return await send(request, data, kind, then, size)

    return reply


def status(code: int, body: Any = None, **headers: str) -> Reply:
    async def reply(request: web.Request) -> web.StreamResponse:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        secret = {"error": {"message": f"Incorrect API key: {KEY}", "code": "invalid"}}
        return web.json_response(secret if body is None else body, status=code, headers=fields)

    return reply


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Take the request and close the connection without a word."""
    assert request.transport
    request.transport.abort()
    return web.Response()


def no_calls(run: Run, agent: str, message: str) -> Call:
    raise AssertionError("the adapter calls no agent")


def run(message: str = "你好", history: list[Past] | None = None) -> Run:
    return Run(
        id="r1",
        agent="main",
        session="s1",
        message=message,
        principal=Author("u1", "User"),
        history=history or [],
        call=no_calls,
    )


async def ask(options: Options, question: Run | None = None, data: Path = NOWHERE) -> list[AgentOutput]:
    async with asyncio.timeout(20), openai_chat.open(options, AgentPaths("main", data, data)) as answer:
        return [piece async for piece in answer(question or run())]

"""The aiohttp application: routes, middlewares, and the start and the end of a hub."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable

import aiohttp_cors
import structlog
from aiohttp import WSCloseCode, web

from hub.access.doors import check_bind, doorkeeper
from hub.errors import Draining, HubError, Refused, UnknownAgent
from hub.node.node import Node
from hub.protocols import protocol_names
from hub.settings import Settings
from hub.web.api import agents, agui, documents, files, openai, sessions
from hub.web.api.metrics import metrics
from hub.web.clients import NODE
from hub.web.pages import console
from hub.web.routes import BASE, TEXT, Failure, Handler, Route, said
from hub.web.websocket import SOCKETS, Address, close_all, websocket

log = structlog.get_logger()


# --- routes -----------------------------------------------------------------------------------------------------------


async def health(request: web.Request) -> web.Response:
    """Say that the process lives."""
    return web.Response(text="OK")


async def ready(request: web.Request) -> web.Response:
    """Say whether the hub takes chats."""
    if request.app[NODE].ready:
        return web.Response(text="OK")
    return said(Failure("the hub is starting or going down", Draining.code), status=Draining.status)


PREFLIGHT_SECONDS = 600  # for so long a browser need not ask again; the longest that all of them keep
BACKLOG = 4096  # who is not accepted at once, when all come back after a cut, would try again a second later
ROUTES = (
    Route("GET", "/health", health, "Health", {200: TEXT}, bases=("", BASE)),
    Route("GET", "/ready", ready, "Health", {200: TEXT}, raises=(Draining,), bases=("", BASE)),
    Route("GET", "/metrics", metrics, "Health", {200: TEXT}, bases=("", BASE)),
    Route("GET", "/ws", websocket, "WebSocket", {101: None}, query=Address),
    Route("GET", "/agents/{agentId}/ws", websocket, "WebSocket", {101: None}, query=Address, raises=(UnknownAgent,)),
    *agents.ROUTES,
    *sessions.ROUTES,
    *files.ROUTES,
    *agui.ROUTES,
    *openai.ROUTES,
    *documents.ROUTES,
    *console.ROUTES,
)


STRANGER = web.RequestKey("stranger", bool)  # who may not come in may not read why, either


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Say every failure in one form, and never what the client sent."""
    try:
        return await handler(request)
    except HubError as refusal:
        request[STRANGER] = isinstance(refusal, Refused)
        response = said(Failure(refusal.message, refusal.code), status=refusal.status)
        response.force_close()
        return response
    except web.HTTPException as wrong:
        if wrong.status < 400:
            raise
        text = "nothing here; the WebSocket is at /api/v1/ws" if wrong.status == 404 else wrong.reason
        code = wrong.reason.lower().replace(" ", "_")
        response = said(Failure(text, code), status=wrong.status)
        response.headers.update({key: value for key, value in wrong.headers.items() if key == "Allow"})
        return response
    except Exception:
        log.exception("a request failed", path=request.path[:200])
        return said(Failure("the hub failed; its output says why", "internal"), status=500)


async def vary(request: web.Request, response: web.StreamResponse) -> None:
    # aiohttp-cors does not say it, and a cache would hand one origin's answer to another. What is kept in no cache, and
    # in memory for as long as its client stays, goes without: 400 bytes a connection.
    if response.status != 101:
        response.headers.add("Vary", "Origin")
    if request.get(STRANGER):  # it lets any origin read
        for name in [name for name in response.headers if name.startswith("Access-Control-")]:
            del response.headers[name]


def make_app(node: Node, table: tuple[Route, ...] = ROUTES) -> web.Application:
    """Return the application of a node that is started and stopped by whoever calls this."""
    protocol_names()  # imports those of other packages now, not while the first client waits
    app = web.Application(middlewares=[errors, doorkeeper(node.settings)])
    app[NODE] = node
    app[SOCKETS] = {}
    app[documents.TABLE] = table
    _add(app, table)
    app.on_response_prepare.append(vary)
    return app


def _add(app: web.Application, table: tuple[Route, ...]) -> None:
    """Give each row to the router, and to CORS."""
    # The doorkeeper has refused every Origin that is not allowed: what comes here may have its answer. Nobody is known
    # by a cookie, so credentials are not let in.
    options = aiohttp_cors.ResourceOptions(  # type: ignore[no-untyped-call]
        allow_headers="*", expose_headers="*", max_age=PREFLIGHT_SECONDS
    )
    cors = aiohttp_cors.setup(app, defaults={"*": options})
    # A preflight asks the first resource of its path: all methods of a path must be there.
    resources: dict[str, web.Resource] = {}
    for route in table:
        for path in (base + route.path for base in route.bases):
            if path not in resources:
                resources[path] = app.router.add_resource(path)
                if not route.is_socket:
                    cors.add(resources[path])
            added = resources[path].add_route(route.method, route.handler)
            if not route.is_socket:
                cors.add(added)
            if route.has_head:
                resources[path].add_route("HEAD", route.handler)


# --- start and stop ---------------------------------------------------------------------------------------------------


def serve(settings: Settings, announce: Callable[[str], None]) -> int:
    """Run a hub until SIGINT or SIGTERM; return the exit code. Raises what the command line explains (see hub.cli)."""
    check_bind(settings)
    _log_to_stderr()
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        stuck = runner.run(_serve(settings, announce))
        if stuck:
            # An agent that ignores its cancel, or a thread that never ends, must not hold the process.
            sys.stdout.flush()
            os._exit(0)
    return 0


def _log_to_stderr() -> None:
    """Keep standard output for what the operator asked to read."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            # The default shows the values of variables: what people wrote, and the whole node, for minutes.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    # aiohttp logs each request that is no HTTP as an error with its traceback: anyone could fill the disk with it.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def _serve(settings: Settings, announce: Callable[[str], None]) -> bool:
    node = Node(settings)
    hurry, stop = asyncio.Event(), asyncio.Event()
    _on_signals(stop, hurry)
    sockets = _listen(settings)
    if not await _start(node, stop, sockets):
        return False
    # A socket that sends no request, or half a header, is closed after this long; WebSockets are spared.
    runner = web.AppRunner(
        make_app(node), access_log=None, keepalive_timeout=settings.limits.header_seconds, shutdown_timeout=1.0
    )
    await runner.setup()
    sites = [web.SockSite(runner, sock, backlog=BACKLOG) for sock in sockets]
    for site in sites:
        await site.start()
    gc.collect()
    gc.freeze()  # what lives as long as the hub need not be looked at again
    # Little of what the hub makes is in cycles. Looking for them less often took the p99 age of a token from 22 to 8 ms
    # at 400 sessions.
    gc.set_threshold(20_000, 50, 50)
    _announce(node, sockets, announce)
    await stop.wait()
    announce("Stopping; a second Ctrl-C does not wait for running answers.")
    await _stop(node, runner, sites, hurry)
    announce("Stopped.")
    return any(agent.working for agent in node.agents.all())


async def _start(node: Node, stop: asyncio.Event, sockets: list[socket.socket]) -> bool:
    """Start the node, unless a signal comes before it has: then all is closed again, and False returned."""
    starting, stopping = asyncio.create_task(node.start()), asyncio.create_task(stop.wait())
    await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if starting.done() and not starting.exception():
        return True
    for sock in sockets:
        sock.close()
    starting.cancel()
    await asyncio.wait([starting])
    if not starting.cancelled():
        starting.result()
    return False


async def _stop(node: Node, runner: web.AppRunner, sites: list[web.SockSite], hurry: asyncio.Event) -> None:
    """End the hub.

    1. Accept no connection and no chat; tell everyone.
    2. Let running answers end, for a while; a second signal ends the wait.
    3. End those that are left (`aborted`), and wait until all that was said is in the log and delivered.
    4. Close the sockets with 1012, all at once, and abort those that do not answer.
    5. Close what is left of the server, the agents with their processes, and the log with its lock.
    """
    limits = node.settings.limits
    for site in sites:
        await site.stop()
    node.drain()
    wait = limits.drain_seconds - limits.grace_seconds - 2 * limits.close_seconds
    await node.finish_runs(wait, hurry)
    await node.quiet(limits.grace_seconds + limits.close_seconds)
    await close_all(runner.app, WSCloseCode.SERVICE_RESTART, limits.close_seconds)
    await runner.cleanup()
    await node.close()


def _on_signals(stop: asyncio.Event, hurry: asyncio.Event) -> None:
    def signalled() -> None:
        if stop.is_set():
            hurry.set()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signalled)


def _listen(settings: Settings) -> list[socket.socket]:
    """Bind the addresses; `localhost` is both loopback families. Raises OSError with what to do."""
    hosts = ["127.0.0.1", "::1"] if settings.host == "localhost" else [settings.host]
    sockets: list[socket.socket] = []
    port = settings.port
    for host in hosts:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            sock.bind((host, port))
        except OSError as error:
            sock.close()
            if sockets and host == "::1":
                continue  # a machine without IPv6
            raise OSError(
                error.errno,
                f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}; "
                "is another hub running? choose another --port, and another --data",
            ) from None
        sock.listen(BACKLOG)
        port = sock.getsockname()[1]
        sockets.append(sock)
    return sockets


def _announce(node: Node, sockets: list[socket.socket], announce: Callable[[str], None]) -> None:
    settings = node.settings
    port = sockets[0].getsockname()[1]
    announce(f"Hubbub listens on   http://{settings.host}:{port}  (the console)")
    announce(f"                    ws://{settings.host}:{port}{BASE}/ws")
    announce(f"                    http://{settings.host}:{port}/docs  (what it can be asked)")
    for agent in node.agents.all():
        announce(f"  agent {agent.id:<13} {'broken: ' + agent.error if agent.error else agent.description}")
    announce(f"Data lies in        {settings.data.resolve()}")
    announce("Ctrl-C ends it.")

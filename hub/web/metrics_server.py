"""Serves /metrics, /health and /ready on an address of their own, without sign-in."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from hub.access.doors import is_host_allowed, is_loopback
from hub.access.principal import OPERATOR
from hub.access.remedies import describe_refused_header, host_hint
from hub.commands.hub import Hub
from hub.errors import Refused
from hub.web.accepting import Acceptor
from hub.web.api.metrics import get_metrics
from hub.web.app import error_middleware, get_health, get_ready
from hub.web.connection_caps import ConnectionCaps
from hub.web.doorkeeper import PRINCIPAL_KEY
from hub.web.listening import listen
from hub.web.routes import HUB_KEY, ErrorBody, Handler, json_response

HANDLERS = {"/metrics": get_metrics, "/health": get_health, "/ready": get_ready}


@asynccontextmanager
async def serve_metrics(hub: Hub) -> AsyncIterator[int | None]:
    """Serve until the end of the context, and return the port. Do nothing if `metrics_port` is not set.

    The hub may start and stop meanwhile: /ready says so. Raises OSError with a line for the operator.
    """
    settings = hub.settings
    if settings.metrics_port is None:
        yield None
        return
    sockets = listen(settings.metrics_host, settings.metrics_port, "choose another --metrics-port")
    runner = web.AppRunner(_make_metrics_app(hub), shutdown_timeout=0.1)
    await runner.setup()
    acceptor = _start_acceptor(hub, runner, sockets)
    try:
        yield sockets[0].getsockname()[1]
    finally:
        await acceptor.stop()
        await runner.cleanup()


def _make_metrics_app(hub: Hub) -> web.Application:
    app = web.Application(middlewares=[error_middleware, _admit])
    app[HUB_KEY] = hub
    for path, handler in HANDLERS.items():
        app.router.add_get(path, handler)
    app.router.add_route("*", "/{path:.*}", _refuse_path)
    return app


def _start_acceptor(hub: Hub, runner: web.AppRunner, sockets: list[socket.socket]) -> Acceptor:
    assert runner.server is not None
    caps = ConnectionCaps(hub.limits)
    acceptor = Acceptor(server=runner.server, sockets=sockets, caps=caps, header_seconds=hub.limits.header_seconds)
    acceptor.start()
    return acceptor


@web.middleware
async def _admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let everyone in who reaches the address.

    On an address of this machine, a web page could reach it by DNS rebinding, so the name in Host counts there.
    """
    settings = request.app[HUB_KEY].settings
    host = request.headers.get("Host", "")
    if is_loopback(settings.metrics_host) and not is_host_allowed(settings, host):
        raise Refused(describe_refused_header("Host", host, host_hint(host)))
    request[PRINCIPAL_KEY] = OPERATOR
    return await handler(request)


async def _refuse_path(request: web.Request) -> web.Response:
    error = ErrorBody(error=f"no such path: this address has only {', '.join(HANDLERS)}", code="not_found")
    return json_response(error, status=404)

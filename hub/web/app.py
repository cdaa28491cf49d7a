"""The aiohttp application: its routes, its middlewares, and CORS."""

import aiohttp_cors
import structlog
from aiohttp import web

from hub.commands.hub import Hub
from hub.errors import Draining, HubError, Refused, StorageUnavailable, UnknownAgent
from hub.protocols import protocol_names
from hub.text import cut
from hub.web.api import agents, agui, documents, files, openai, sessions
from hub.web.api.metrics import get_metrics
from hub.web.doorkeeper import make_doorkeeper
from hub.web.pages import console, javascript_client
from hub.web.routes import API_PREFIX, HTTP_1_0_HINT, HUB_KEY, TEXT_CONTENT, ErrorBody, Handler, Route, record_response
from hub.web.websocket import SOCKETS_KEY, SocketQuery, serve_websocket

log = structlog.get_logger()


async def get_health(request: web.Request) -> web.Response:
    """Say that the process lives."""
    return web.Response(text="OK")


async def get_ready(request: web.Request) -> web.Response:
    """Say whether the hub takes chats: it has started, it is not going down, and its log can be written."""
    await request.app[HUB_KEY].check_ready()
    return web.Response(text="OK")


PREFLIGHT_SECONDS = 600  # for so long a browser need not ask again; the longest that all of them keep
ROUTES = (
    Route(
        method="GET",
        path="/health",
        handler=get_health,
        tag="Health",
        responses={200: TEXT_CONTENT},
        prefixes=("", API_PREFIX),
    ),
    Route(
        method="GET",
        path="/ready",
        handler=get_ready,
        tag="Health",
        responses={200: TEXT_CONTENT},
        raises=(Draining, StorageUnavailable),
        prefixes=("", API_PREFIX),
    ),
    Route(
        method="GET",
        path="/metrics",
        handler=get_metrics,
        tag="Health",
        responses={200: TEXT_CONTENT},
        prefixes=("", API_PREFIX),
    ),
    Route(method="GET", path="/ws", handler=serve_websocket, tag="WebSocket", responses={101: None}, query=SocketQuery),
    Route(
        method="GET",
        path="/agents/{agentId}/ws",
        handler=serve_websocket,
        tag="WebSocket",
        responses={101: None},
        query=SocketQuery,
        raises=(UnknownAgent,),
    ),
    *agents.ROUTES,
    *sessions.ROUTES,
    *files.ROUTES,
    *agui.ROUTES,
    *openai.ROUTES,
    *documents.ROUTES,
    *console.ROUTES,
    *javascript_client.ROUTES,
)


ERROR_TEXTS = {404: "nothing here; the WebSocket is at /api/v1/ws", 505: HTTP_1_0_HINT}
STRANGER_KEY = web.RequestKey("stranger", bool)  # who may not come in may not read why, either


@web.middleware
async def error_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Say every failure in one form, and never what the client sent."""
    try:
        return await handler(request)
    except HubError as refusal:
        request[STRANGER_KEY] = isinstance(refusal, Refused)
        kept = {name: refusal.about[name] for name in ("sessionId", "runId", "messageId")} if _is_kept(refusal) else {}
        response = record_response(ErrorBody(error=refusal.message, code=refusal.code, **kept), status=refusal.status)
        response.force_close()
        return response
    except web.HTTPException as wrong:
        if wrong.status < 400:
            raise
        text = ERROR_TEXTS.get(wrong.status, wrong.reason)
        code = wrong.reason.lower().replace(" ", "_")
        response = record_response(ErrorBody(error=text, code=code), status=wrong.status)
        response.headers.update({key: value for key, value in wrong.headers.items() if key == "Allow"})
        return response
    except ConnectionError:  # the client went away, during its handshake perhaps: nobody hears this
        return web.Response(status=499)
    except Exception:
        log.exception("a request failed", path=cut(request.path, 200))
        return record_response(ErrorBody(error="the hub failed; its output says why", code="internal"), status=500)


def _is_kept(refusal: HubError) -> bool:
    """Return whether a message was kept, though its answer is refused."""
    return isinstance(refusal, Draining) and "runId" in refusal.about


async def add_vary(request: web.Request, response: web.StreamResponse) -> None:
    # aiohttp-cors does not say it, and a cache would hand one origin's answer to another. What is kept in no cache, and
    # in memory for as long as its client stays, goes without: 400 bytes a connection.
    if response.status != 101:
        response.headers.add("Vary", "Origin")
    if request.get(STRANGER_KEY):  # it lets any origin read
        for name in [name for name in response.headers if name.startswith("Access-Control-")]:
            del response.headers[name]


def make_app(hub: Hub, table: tuple[Route, ...] = ROUTES) -> web.Application:
    """Return the application of a hub that is started and stopped by whoever calls this."""
    protocol_names()  # imports those of other packages now, not while the first client waits
    app = web.Application(middlewares=[error_middleware, make_doorkeeper(hub.settings)])
    app[HUB_KEY] = hub
    app[SOCKETS_KEY] = {}
    app[documents.ROUTES_KEY] = table
    _add(app, table)
    app.on_response_prepare.append(add_vary)
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
        for path in (base + route.path for base in route.prefixes):
            if path not in resources:
                resources[path] = app.router.add_resource(path)
                if not route.is_websocket:
                    cors.add(resources[path])
            added = resources[path].add_route(route.method, route.handler)
            if not route.is_websocket:
                cors.add(added)
            if route.has_head:
                resources[path].add_route("HEAD", route.handler)

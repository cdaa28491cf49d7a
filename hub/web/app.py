"""The aiohttp application: its routes, its middlewares, and CORS."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import aiohttp_cors
import structlog
from aiohttp import web

from hub.access.remedies import base_path_hint
from hub.commands.directory import ForeignUser
from hub.commands.hub import Hub
from hub.errors import (
    AgentBroken,
    Denied,
    Draining,
    HubError,
    Refused,
    StorageUnavailable,
    Unauthenticated,
    UnknownAgent,
)
from hub.protocols import protocol_names
from hub.protocols.openai_errors import make_plain_error
from hub.settings import ConfigError
from hub.text import cut
from hub.web.api import (
    agents,
    agui,
    audit,
    documents,
    echo,
    files,
    members,
    openai,
    session_commands,
    sessions,
    sign_in,
    usage,
)
from hub.web.api.metrics import get_metrics
from hub.web.counting import count_response
from hub.web.doorkeeper import make_doorkeeper
from hub.web.handshake import describe_http_1_0
from hub.web.jwt_sign_in import JwtVerifier, make_jwt_verifier
from hub.web.pages import console, javascript_client, python_client
from hub.web.refusal_log import REFUSAL_LOG_KEY, RefusalLog
from hub.web.routes import (
    API_PREFIX,
    HUB_KEY,
    TEXT_CONTENT,
    ErrorBody,
    Handler,
    Route,
    base_path_of,
    json_response,
    make_error_headers,
)
from hub.web.trace_headers import trace_middleware
from hub.web.websocket import SOCKET_END_KEY, SOCKETS_KEY, SocketQuery, close_socket, serve_websocket

log = structlog.get_logger()


async def get_health(request: web.Request) -> web.Response:
    """Return 200 while the process runs."""
    return web.Response(text="OK")


async def get_ready(request: web.Request) -> web.Response:
    """Return 200 if the hub accepts chats, else 503.

    The hub accepts chats when it has started, is not shutting down, and can write its log.
    """
    await request.app[HUB_KEY].check_ready()
    return web.Response(text="OK")


PREFLIGHT_SECONDS = 600  # how long a browser may cache a preflight; the longest time that all browsers accept
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
        raises=(Unauthenticated, Denied),
        prefixes=("", API_PREFIX),
    ),
    Route(
        method="GET",
        path="/ws",
        handler=serve_websocket,
        tag="WebSocket",
        responses={101: None},
        query=SocketQuery,
        raises=(Draining,),
    ),
    Route(
        method="GET",
        path="/agents/{agentId}/ws",
        handler=serve_websocket,
        tag="WebSocket",
        responses={101: None},
        query=SocketQuery,
        raises=(UnknownAgent, AgentBroken, Draining),
        operation="serve_agent_websocket",
    ),
    *agents.ROUTES,
    *sessions.ROUTES,
    *session_commands.ROUTES,
    *members.ROUTES,
    *sign_in.ROUTES,
    *usage.ROUTES,
    *audit.ROUTES,
    *files.ROUTES,
    *agui.ROUTES,
    *openai.ROUTES,
    *echo.ROUTES,
    *documents.ROUTES,
    *console.ROUTES,
    *javascript_client.ROUTES,
    *python_client.ROUTES,
)


ID_FIELDS_OF_ERRORS, QUOTA_FIELDS = ("sessionId", "runId", "messageId"), ("limit", "used", "renewsAt")
# True if the Host or the Origin was refused. The page that sent the request must not read the error response.
ORIGIN_REFUSED_KEY = web.RequestKey("origin_refused", bool)


@web.middleware
async def error_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn errors into responses with an ErrorBody.

    The cause of an unexpected error goes to the log, not to the client. A client that has disconnected gets no body.
    """
    try:
        return await handler(request)
    except HubError as refusal:
        request.app[HUB_KEY].counters.door.refusals[refusal.code] += 1
        request[ORIGIN_REFUSED_KEY] = isinstance(refusal, Refused)
        response = _make_response(request, refusal)
        response.force_close()
        return response
    except web.HTTPException as error:
        if error.status < 400:
            raise
        text = _describe_http_error(request, error)
        response = _make_plain_response(request, error.status, text, error.reason.lower().replace(" ", "_"))
        response.headers.update({key: value for key, value in error.headers.items() if key == "Allow"})
        return response
    except ConnectionError:  # the client has disconnected, perhaps in its handshake, and reads no response
        return web.Response(status=499)
    except Exception:
        log.exception("a request failed", path=cut(request.path, 200))
        request.app[HUB_KEY].counters.door.refusals["internal"] += 1
        return _make_plain_response(request, 500, "the hub failed: the reason is in its output", "internal")


def _make_plain_response(request: web.Request, status: int, text: str, code: str) -> web.Response:
    if openai.is_openai_request(request):
        return openai.make_openai_response(make_plain_error(status, text, code))
    return json_response(ErrorBody(error=text, code=code), status=status)


def _describe_http_error(request: web.Request, error: web.HTTPException) -> str:
    if error.status == 404:
        base_path = base_path_of(request)
        text = f"no such path: {base_path}/docs lists all paths, and the WebSocket is at {base_path}{API_PREFIX}/ws"
        if openai.is_openai_request(request):
            text = f"no such path: OpenAI's clients use {base_path}/v1/chat/completions and {base_path}/v1/models"
        hint = base_path_hint(base_path, request.path, API_PREFIX)
        return f"{text}; {hint}" if hint else text
    if isinstance(error, web.HTTPMethodNotAllowed):
        methods = " or ".join(sorted(error.allowed_methods - {"HEAD", "OPTIONS"}))
        return f"this path does not take the method of the request: use {methods}"
    return describe_http_1_0(request) if error.status == 505 else error.reason


def _make_response(request: web.Request, refusal: HubError) -> web.Response:
    if openai.is_openai_request(request):
        return openai.make_openai_response(refusal)
    names = ID_FIELDS_OF_ERRORS if _is_message_stored(refusal) else QUOTA_FIELDS
    fields = {name: refusal.fields[name] for name in names if name in refusal.fields}
    response = json_response(ErrorBody(error=refusal.message, code=refusal.code, **fields), status=refusal.status)
    response.headers.update(make_error_headers(refusal))
    return response


def _is_message_stored(refusal: HubError) -> bool:
    """Return whether the hub has stored the chat message of a refused request."""
    return isinstance(refusal, Draining) and "runId" in refusal.fields


async def replace_expectation_error(request: web.Request, response: web.StreamResponse) -> None:
    """Replace the body of 417, which aiohttp sends before the middlewares run: it repeats the header of the request."""
    if isinstance(response, web.HTTPExpectationFailed):
        error = ErrorBody(error="the hub knows no other Expect than 100-continue", code="expectation_failed")
        response.body = json_response(error).body
        response.content_type = "application/json"
        response.headers["Content-Length"] = str(len(response.body))


async def complete_cors_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Correct the CORS headers of aiohttp-cors before a response is sent."""
    # aiohttp-cors does not send Vary, so a cache could serve the response for one origin to another. The response to a
    # WebSocket's handshake is never cached, but stays in memory: without Vary it is 400 bytes smaller.
    if response.status != 101:
        response.headers.add("Vary", "Origin")
    if request.get(ORIGIN_REFUSED_KEY):  # aiohttp-cors has allowed every origin to read the response
        for name in [name for name in response.headers if name.startswith("Access-Control-")]:
            del response.headers[name]


def make_app(hub: Hub, routes: tuple[Route, ...] = ROUTES) -> web.Application:
    """Return the application of a hub. The caller starts and stops the hub.

    Raises ConfigError for wrong `jwt_*`, and for a `base_path` of which the hub has pages itself.
    """
    protocol_names()  # import the protocols of other packages now, not while the first client waits
    middlewares = [error_middleware, make_doorkeeper(hub, echo.REFUSAL_HANDLERS)]
    if hub.settings.otel:
        middlewares.append(trace_middleware)
    app = web.Application(middlewares=middlewares)
    app[HUB_KEY] = hub
    app[REFUSAL_LOG_KEY] = RefusalLog()
    app[SOCKETS_KEY], app[SOCKET_END_KEY] = {}, asyncio.Event()
    hub.close_socket = partial(close_socket, app)
    app[documents.ROUTES_KEY] = routes
    _add_routes(app, routes, hub.settings.base_path)
    verifier = make_jwt_verifier(hub.settings, hub.node.seams)
    if verifier is not None:
        app.cleanup_ctx.append(partial(_open_verifier, verifier))
    app.on_response_prepare.extend((replace_expectation_error, complete_cors_headers, count_response))
    return app


async def _open_verifier(verifier: JwtVerifier, app: web.Application) -> AsyncIterator[None]:
    """Let the hub accept JWTs between the start and the end of the server."""

    async def read_jwt(token: str) -> ForeignUser:
        claims = await verifier.verify(token)
        # The issuer belongs to the subject: after a change of `jwt_issuer`, its users are other principals.
        subject = f"{claims.issuer}\n{claims.subject}"
        return ForeignUser(kind="jwt", subject=subject, name=claims.name, expires=claims.expires)

    await verifier.open()
    app[HUB_KEY].directory.read_jwt = read_jwt
    yield
    await verifier.close()


def _add_routes(app: web.Application, routes: tuple[Route, ...], base_path: str) -> None:
    """Add each route to the router and to CORS: as it is, and under *base_path*.

    Some proxies remove the path under which they offer the hub, and others pass it on. Health checks reach the hub
    without a proxy. So the router itself knows both addresses: nothing rewrites a request, and all checks see what the
    client sent.
    """
    _check_base_path(routes, base_path)
    # The doorkeeper refuses every Origin that may not connect, so CORS allows all origins. The hub uses no cookies,
    # so CORS does not allow credentials.
    options = aiohttp_cors.ResourceOptions(  # type: ignore[no-untyped-call]
        allow_headers="*", expose_headers="*", max_age=PREFLIGHT_SECONDS
    )
    cors = aiohttp_cors.setup(app, defaults={"*": options})
    # aiohttp-cors answers a preflight from the first resource of the path, so a path must have one resource only.
    resources: dict[str, web.Resource] = {}
    for route in routes:
        for path in _list_paths(route, base_path):
            if path not in resources:
                resources[path] = app.router.add_resource(path)
                if not route.is_websocket:
                    cors.add(resources[path])
            route_entry = resources[path].add_route(route.method, route.handler)
            if not route.is_websocket:
                cors.add(route_entry)
            if route.has_head:
                resources[path].add_route("HEAD", route.handler)


def _list_paths(route: Route, base_path: str) -> list[str]:
    """Return all paths of a route. The console is at *base_path* with and without a slash at the end."""
    if not base_path:
        return route.paths
    return [*route.paths, *(base_path + path for path in route.paths), *([base_path] if route.path == "/" else [])]


def _check_base_path(routes: tuple[Route, ...], base_path: str) -> None:
    """Raise ConfigError if *base_path* begins as a path of the hub: one address could then be of two routes."""
    first = base_path.partition("/")[2].partition("/")[0]
    own_names = {path.split("/")[1] for route in routes for path in _list_paths(route, "")}
    if base_path and first in own_names:
        raise ConfigError(
            f"base_path {base_path} cannot begin with /{first}, a path of the hub: use one such as /hubbub"
        )

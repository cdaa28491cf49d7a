"""HTTP route that reports how a request arrived, for `hubbub doctor --url`. Each request needs a token of its own."""

import asyncio
import json
from typing import Annotated

import attrs
from aiohttp import WSMsgType, web
from msgspec import Meta, Struct

from hub.access.proxies import find_client
from hub.commands import table as commands
from hub.errors import Refused, TooLarge, Unauthenticated
from hub.limits import format_size
from hub.web.arrival import Arrival
from hub.web.doorkeeper import principal_of
from hub.web.loss import watch_connection
from hub.web.routes import HUB_KEY, STREAM_CONTENT, Route, json_fields, json_response, limits_of, read_query
from hub.web.sse import STREAM_HEADERS, wants_stream

ECHO_PATH = "/echo"
ECHO_PROTOCOL = "hubbub.v1"  # of the WebSocket; a proxy must pass on this header
SOCKET_SECONDS = 10.0  # for the one message of a WebSocket
STREAM_SECONDS = 5.0  # between the two events of a stream: a proxy that buffers passes on both at once
END_EVENT = b"data: end\n\n"


class EchoQuery(Struct):
    """The query of an echo."""

    token: Annotated[str, Meta(description="A token of the operator's command `make_probe_token`.")]


@attrs.frozen(kw_only=True)
class EchoReport:
    """How a request arrived.

    *peer* and *peerPort* are the other end of the connection. *address*, *scheme* and *host* are those of the client,
    as the hub understands the headers of its proxies. *refusal* is the error that a request like this gets on other
    routes. *bytes* is the size of the body.
    """

    method: str
    version: str
    path: str
    headers: tuple[tuple[str, str], ...]
    bytes: int
    peer: str
    peerPort: int | None = None
    address: str
    scheme: str
    host: str
    refusal: str | None = None


async def get_echo(request: web.Request) -> web.StreamResponse:
    """Report how this request arrived, for `hubbub doctor --url`. A token works for one request.

    A WebSocket gets the report as its first frame, and its first message back. A stream gets the report as its first
    event, and a second event 5 seconds later.
    """
    return await _echo(request)


async def post_echo(request: web.Request) -> web.StreamResponse:
    """Report how this request arrived, and the size of its body, for `hubbub doctor --url`."""
    return await _echo(request)


async def _echo(request: web.Request) -> web.StreamResponse:
    query = read_query(request, EchoQuery)
    await commands.use_probe_token(request.app[HUB_KEY], principal_of(request), query.token)
    if request.headers.get("Upgrade", "").lower() == "websocket":
        return await _echo_socket(request)
    report = _make_report(request, await _count_body(request))
    if wants_stream(request):
        return await _echo_stream(request, report)
    response = json_response(report)
    response.headers["X-Hubbub-Echo"] = "1"
    response.set_cookie("hubbub-echo", "1", max_age=1)
    return response


def _make_report(request: web.Request, size: int) -> EchoReport:
    settings, refusal = request.app[HUB_KEY].settings, None
    peer_name = request.transport.get_extra_info("peername") if request.transport is not None else None
    client = find_client(request.remote, request.scheme, request.headers, settings.trusted_proxies)
    try:
        Arrival(request.app[HUB_KEY]).check(request)
    except Refused as error:
        refusal = error.message
    return EchoReport(
        method=request.method,
        version=f"{request.version.major}.{request.version.minor}",
        path=request.path,
        headers=tuple(request.headers.items()),
        bytes=size,
        peer=request.remote or "",
        peerPort=peer_name[1] if isinstance(peer_name, tuple) else None,
        address=client.address,
        scheme=client.scheme,
        host=client.host,
        refusal=refusal,
    )


async def _count_body(request: web.Request) -> int:
    """Read the body, and return its size. Raises TooLarge above the largest limit of a body."""
    limits, size = limits_of(request), 0
    limit = max(limits.file_bytes, limits.conversation_bytes)
    async with asyncio.timeout(limits.body_seconds):
        async for chunk in request.content.iter_any():
            size += len(chunk)
            if size > limit:
                raise TooLarge(f"the body is larger than the limit of {format_size(limit)}")
    return size


async def _echo_socket(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse(protocols=(ECHO_PROTOCOL,), compress=False, timeout=SOCKET_SECONDS)
    await socket.prepare(request)
    try:
        async with asyncio.timeout(SOCKET_SECONDS):
            await socket.send_str(json.dumps(json_fields(_make_report(request, 0))))
            message = await socket.receive()
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
            await socket.close()
    except (TimeoutError, ConnectionError):
        pass  # the client has left, or the proxy passes nothing on
    return socket


async def _echo_stream(request: web.Request, report: EchoReport) -> web.StreamResponse:
    response, loss_event = web.StreamResponse(headers=STREAM_HEADERS), asyncio.Event()
    response.force_close()
    await response.prepare(request)
    await response.write(f"data: {json.dumps(json_fields(report))}\n\n".encode())
    with watch_connection(request, loss_event.set):
        try:
            async with asyncio.timeout(STREAM_SECONDS):
                await loss_event.wait()
        except TimeoutError:
            await response.write(END_EVENT)
    return response


ROUTES = tuple(
    Route(
        method=method,
        path=ECHO_PATH,
        handler=handler,
        tag="Health",
        responses={200: (EchoReport, STREAM_CONTENT)},
        query=EchoQuery,
        raises=(Unauthenticated, TooLarge),
    )
    for method, handler in (("GET", get_echo), ("POST", post_echo))
)
ECHO_HANDLERS = {route.handler for route in ROUTES}

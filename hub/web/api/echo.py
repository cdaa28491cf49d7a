"""HTTP route that tests the way to the hub, for `hubbub doctor --url`. Each request needs a token of its own."""

import asyncio
from contextlib import suppress
from typing import Annotated

import attrs
from aiohttp import WSMsgType, web
from msgspec import Meta, Struct

from hub.access.principal import NOBODY
from hub.access.probes import ProbeReport
from hub.access.proxies import ClientEndpoint, find_client
from hub.commands import table as commands
from hub.errors import Refused, TooLarge, Unauthenticated, UploadTooSlow
from hub.limits import format_size
from hub.web.arrival import endpoint_of
from hub.web.doorkeeper import principal_of
from hub.web.handshake import refuse_http_1_0
from hub.web.loss import watch_connection
from hub.web.routes import HUB_KEY, STREAM_CONTENT, Route, json_response, limits_of, read_query
from hub.web.sse import STREAM_HEADERS, wants_stream

ECHO_HEADER = "X-Hubbub-Echo"  # of the response: a proxy must pass on headers that it does not know
ECHO_PROTOCOL = "hubbub.v1"  # of the WebSocket
SOCKET_SECONDS = 10.0  # for the one message of a WebSocket
STREAM_SECONDS = 5.0  # between the two events of a stream: a proxy that buffers passes on both at once
FIRST_EVENT, LAST_EVENT = b"data: first\n\n", b"data: last\n\n"


class EchoQuery(Struct):
    """The query of an echo."""

    token: Annotated[str, Meta(description="A token of the operator's command `create_probe`.")]


@attrs.frozen
class EchoAnswer:
    """The size of the body in bytes, and the time from the headers of the request to the end of the body."""

    bytes: int
    seconds: float


async def get_echo(request: web.Request) -> web.StreamResponse:
    """Test the way to the hub, for `hubbub doctor --url`. A token works for one request.

    A WebSocket gets its first message back. A stream gets one event, and another one 5 seconds later.
    """
    return await _echo(request)


async def post_echo(request: web.Request) -> web.StreamResponse:
    """Test whether a body arrives at the hub, for `hubbub doctor --url`."""
    return await _echo(request)


async def _echo(request: web.Request) -> web.StreamResponse:
    hub, query = request.app[HUB_KEY], read_query(request, EchoQuery)
    await commands.receive_probe(hub, principal_of(request), query.token, _make_report(request))
    if request.headers.get("Upgrade", "").lower() == "websocket":
        return await _echo_socket(request)
    if wants_stream(request):
        return await _echo_stream(request)
    start = asyncio.get_running_loop().time()
    size = await _count_body(request)
    response = json_response(EchoAnswer(size, round(asyncio.get_running_loop().time() - start, 3)))
    response.headers[ECHO_HEADER] = "1"
    response.set_cookie("hubbub-echo", "1", max_age=1)
    return response


async def _refuse_echo(request: web.Request, refusal: Refused) -> web.StreamResponse:
    """Keep the report of a refused probe for the operator, and refuse the request as any other."""
    with suppress(Unauthenticated):
        report = _make_report(request, refusal.message)
        await commands.receive_probe(request.app[HUB_KEY], NOBODY, request.query.get("token", ""), report)
    raise refusal


def _make_report(request: web.Request, refusal: str | None = None) -> ProbeReport:
    peer_name = request.transport.get_extra_info("peername") if request.transport is not None else None
    client = _find_client(request) if refusal is not None else endpoint_of(request)
    return ProbeReport(
        method=request.method,
        version=f"{request.version.major}.{request.version.minor}",
        path=request.path,
        headers=tuple((str(name), value) for name, value in request.headers.items()),
        peer=request.remote or "",
        peerPort=peer_name[1] if isinstance(peer_name, tuple) else None,
        address=client.address,
        scheme=client.scheme,
        host=client.host,
        refusal=refusal,
    )


def _find_client(request: web.Request) -> ClientEndpoint:
    """Return the client of a request that was refused."""
    trusted_proxies = request.app[HUB_KEY].settings.trusted_proxies
    return find_client(request.remote, request.scheme, request.headers, trusted_proxies)


async def _count_body(request: web.Request) -> int:
    """Read the body as that of an upload, without keeping it, and return its size.

    Raises TooLarge above the largest limit of a body, and UploadTooSlow after `upload_seconds`.
    """
    limits, size = limits_of(request), 0
    max_bytes = max(limits.file_bytes, limits.conversation_bytes)
    try:
        async with asyncio.timeout(limits.upload_seconds):
            async for chunk in request.content.iter_any():
                size += len(chunk)
                if size > max_bytes:
                    raise TooLarge(f"the body is larger than the limit of {format_size(max_bytes)}")
    except TimeoutError:
        raise UploadTooSlow("the body took too long") from None
    return size


async def _echo_socket(request: web.Request) -> web.StreamResponse:
    refuse_http_1_0(request)
    socket = web.WebSocketResponse(
        protocols=(ECHO_PROTOCOL,), compress=False, timeout=SOCKET_SECONDS, max_msg_size=limits_of(request).frame_bytes
    )
    await socket.prepare(request)
    with suppress(TimeoutError, ConnectionError):  # the client has left, or the proxy passes nothing on
        async with asyncio.timeout(SOCKET_SECONDS):
            message = await socket.receive()
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
            await socket.close()
    return socket


async def _echo_stream(request: web.Request) -> web.StreamResponse:
    refuse_http_1_0(request)
    response, loss_event = web.StreamResponse(headers=STREAM_HEADERS), asyncio.Event()
    response.force_close()
    await response.prepare(request)
    await response.write(FIRST_EVENT)
    with watch_connection(request, loss_event.set):
        try:
            async with asyncio.timeout(STREAM_SECONDS):
                await loss_event.wait()
        except TimeoutError:
            await response.write(LAST_EVENT)
    return response


ROUTES = tuple(
    Route(
        method=method,
        path="/echo",
        handler=handler,
        tag="Health",
        responses={200: (EchoAnswer, STREAM_CONTENT)},
        query=EchoQuery,
        raises=(Unauthenticated, TooLarge, UploadTooSlow),
    )
    for method, handler in (("GET", get_echo), ("POST", post_echo))
)
REFUSAL_HANDLERS = {route.handler: _refuse_echo for route in ROUTES}

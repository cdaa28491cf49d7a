"""The access log: a line for each HTTP request, and two for each WebSocket. No line has a query or any content."""

import asyncio

import attrs
import structlog
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from hub.access.principal import LOCAL, Principal
from hub.access.secrets import TOKEN_PATTERN
from hub.commands.client import ClientHandle
from hub.text import cut
from hub.web.arrival import CLIENT_ADDRESS_KEY
from hub.web.doorkeeper import PRINCIPAL_KEY

MAX_PATH_LENGTH = 200
NO_CLOSE_FRAME = 1006  # the code for a connection that was lost without a close frame (RFC 6455, 7.1.5)

# The bytes of a stream that went to the socket without aiohttp.
STREAM_BYTES_KEY = web.RequestKey("stream_bytes", int)

log = structlog.get_logger()


class RequestLog(AbstractAccessLogger):
    """Writes the line of an HTTP request after its response. aiohttp makes an instance for each connection."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        if response.status == 101:  # a SocketLog writes its lines
            return
        log.info(
            "request",
            method=request.method,
            path=_show_path(request),
            status=response.status,
            bytes=response.body_length + request.get(STREAM_BYTES_KEY, 0),
            seconds=round(time, 3),
            address=_find_address(request),
            **_describe_principal(request.get(PRINCIPAL_KEY)),
        )


@attrs.frozen(kw_only=True)
class SocketLog:
    """Writes the lines of a WebSocket: open_socket_log() writes the first one, close() the second one."""

    client: ClientHandle
    address: str
    principal: Principal
    open_time: float

    def close(self, code: int | None) -> None:
        client, now = self.client, asyncio.get_running_loop().time()
        log.info(
            "WebSocket closed",
            connection=client.id,
            code=code or NO_CLOSE_FRAME,
            seconds=round(now - self.open_time, 3),
            bytes=client.written_bytes,
            address=self.address,
            # A client that the hub has ended is nobody.
            **_describe_principal(client.principal if client.principal.is_signed_in else self.principal),
        )


def open_socket_log(request: web.Request, client: ClientHandle) -> SocketLog:
    """Write the first line of a WebSocket, and return the object for the second one."""
    address = _find_address(request)
    log.info(
        "WebSocket opened",
        connection=client.id,
        path=_show_path(request),
        protocol=client.protocol,
        address=address,
        **_describe_principal(client.principal),
    )
    now = asyncio.get_running_loop().time()
    return SocketLog(client=client, address=address, principal=client.principal, open_time=now)


def _show_path(request: web.BaseRequest) -> str:
    """Return the path without its query, which may have a ticket, and without tokens that somebody put into it."""
    return cut(TOKEN_PATTERN.sub("***", request.path), MAX_PATH_LENGTH)


def _find_address(request: web.BaseRequest) -> str:
    return request.get(CLIENT_ADDRESS_KEY) or request.remote or ""


def _describe_principal(principal: Principal | None) -> dict[str, str]:
    """Return the field for a line. Without sign-in there is none: all principals would be the same."""
    if principal is None or principal is LOCAL or not principal.is_signed_in:
        return {}
    return {"principal": principal.id}

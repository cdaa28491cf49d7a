"""What every client has, whatever it speaks: a Connection over its transport, and an end."""

import asyncio
import secrets
import sys
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import web

from hub.access.doors import principal
from hub.delivery.connection import Connection
from hub.limits import Limits
from hub.node.node import Node
from hub.protocols import WireProtocol

NODE = web.AppKey("node", Node)


def limits_of(request: web.Request) -> Limits:
    return request.app[NODE].settings.limits


def connect(
    node: Node,
    request: web.Request,
    protocol: WireProtocol,
    ping: Callable[[], Awaitable[None]],
    **options: Any,
) -> Connection:
    """Register a client of *protocol*, whose bytes go to the request's transport, or past it, from now on."""
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client has gone")
    registry = node.registry
    connection = Connection(
        *(secrets.token_hex(8), principal(request), protocol, node.settings.limits, node.log, node.pages),
        *(transport.write, transport.get_write_buffer_size, transport.abort, ping),
        *(node.reset_messages, registry),
        **options,
    )
    connection.heard = connection.moved = asyncio.get_running_loop().time()
    _watch(transport, connection)
    registry.connections.add(connection)
    return connection


def _watch(transport: asyncio.Transport, connection: Connection) -> None:
    """Let the connection hear what becomes of its transport, and know the way past it, where there is one.

    To Windows a socket is no file, and TLS encrypts. That way saves 1.6 us of what a frame costs.
    """
    transport.set_protocol(Watch(transport.get_protocol(), connection))
    if sys.platform == "win32" or transport.get_extra_info("sslcontext") is not None:
        transport.set_write_buffer_limits(high=connection.limits.high_water_bytes)
        return
    transport.set_write_buffer_limits(high=0)
    connection.descriptor = transport.get_extra_info("socket").fileno()
    if not transport.get_write_buffer_size():
        connection.flow()


class Watch(asyncio.Protocol):
    """Stands between a transport and *inner*, aiohttp's protocol.

    So a connection hears at once what it must know before bytes may go past the transport. With a limit of 0 that says
    pause_writing as soon as it holds anything; and it says connection_lost before it closes the descriptor, which from
    then on may be another client's (asyncio and uvloop, in _call_connection_lost).

    aiohttp is told no pause: its pings and ends would wait for a client that does not read. Nothing grows by that, as
    such a client is not listened to (Connection.readable).
    """

    __slots__ = ("connection", "inner")

    def __init__(self, inner: Any, connection: Connection) -> None:
        self.inner, self.connection = inner, connection

    def data_received(self, data: bytes) -> None:
        self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        return cast("bool | None", self.inner.eof_received())

    def pause_writing(self) -> None:
        self.connection.stall()

    def resume_writing(self) -> None:
        self.connection.flow()
        if self.inner.writing_paused:  # since before the connection was there
            self.inner.resume_writing()

    def connection_lost(self, reason: Exception | None) -> None:
        self.connection.cut()
        self.inner.connection_lost(reason)


async def disconnect(node: Node, connection: Connection, close: Callable[[], Awaitable[None]]) -> None:
    """Forget a client; *close* is bounded and says farewell.

    First out of the registry, so that nothing new reaches it; then the socket; then what takes time.
    """
    node.registry.leave(connection)
    await close()
    # A peer that does not read would hold a closing transport for ever: it has this long to take the rest.
    asyncio.get_running_loop().call_later(connection.limits.close_seconds, connection.abort)
    await connection.finished()

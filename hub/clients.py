"""What every client has, whatever it speaks: a Connection over its transport, and an end."""

import asyncio
import secrets
import sys
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import web

from hub.auth import principal
from hub.connection import Connection
from hub.node import Node
from hub.protocols import WireProtocol

NODE = web.AppKey("node", Node)


def connect(
    node: Node,
    request: web.Request,
    protocol: WireProtocol,
    drain: Callable[[], Awaitable[None]],
    ping: Callable[[], Awaitable[None]],
    **options: Any,
) -> Connection:
    """Register a client of *protocol*, whose bytes go straight to the request's transport from now on."""
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client has gone")
    registry = node.registry
    connection = Connection(
        *(secrets.token_hex(8), principal(request), protocol, node.settings.limits, node.log, node.pages),
        *(transport.write, transport.get_write_buffer_size, transport.abort, drain, ping),
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
    spoken = transport.get_protocol()
    if isinstance(spoken, Watch):  # a client that is kept alive listens again
        spoken.connection = connection
    else:
        transport.set_protocol(Watch(spoken, connection))
    transport.set_write_buffer_limits(high=0)
    if sys.platform != "win32" and transport.get_extra_info("sslcontext") is None:
        connection.socket = transport.get_extra_info("socket").fileno()
    if not transport.get_write_buffer_size():
        connection.flow()


class Watch(asyncio.Protocol):
    """Stands between a transport and *inner*, aiohttp's protocol, which hears everything all the same.

    So a connection hears at once what it must know before bytes may go past the transport. With a limit of 0 that says
    pause_writing as soon as it holds anything; and it says connection_lost before it closes the descriptor, which from
    then on may be another client's (asyncio and uvloop, in _call_connection_lost).
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
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.connection.flow()
        self.inner.resume_writing()

    def connection_lost(self, reason: Exception | None) -> None:
        self.connection.leave()
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

"""What every client has, whatever it speaks: a Connection over its transport, and an end."""

import asyncio
import secrets
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from hub.auth import principal
from hub.connection import Connection, Door
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
    limits, registry, unsent = node.settings.limits, node.registry, transport.get_write_buffer_size
    transport.set_write_buffer_limits(high=limits.high_water_bytes)
    connection = Connection(
        *(secrets.token_hex(8), principal(request), protocol, limits, node.log, node.pages),
        *(transport.write, unsent, _door(transport, unsent), transport.abort, drain, ping),
        *(node.reset_messages, registry),
        **options,
    )
    connection.heard = connection.moved = asyncio.get_running_loop().time()
    registry.connections.add(connection)
    return connection


def _door(transport: asyncio.Transport, unsent: Callable[[], int]) -> Door:
    """Return the way past a transport, which saves 0.8 us of what a frame costs.

    It is shut where there is none: to Windows a socket is no file, and TLS encrypts.
    """
    shut = sys.platform == "win32" or transport.get_extra_info("sslcontext") is not None
    return _shut if shut else unsent, transport.get_extra_info("socket").fileno


def _shut() -> int:
    return 1


async def disconnect(node: Node, connection: Connection, close: Callable[[], Awaitable[None]]) -> None:
    """Forget a client; *close* is bounded and says farewell.

    First out of the registry, so that nothing new reaches it; then the socket; then what takes time.
    """
    node.registry.leave(connection)
    await close()
    # A peer that does not read would hold a closing transport for ever: it has this long to take the rest.
    asyncio.get_running_loop().call_later(connection.limits.close_seconds, connection.abort)
    await connection.finished()

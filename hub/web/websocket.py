"""The WebSocket endpoint: reads frames, hands commands on, and cleans up after each connection."""

import asyncio
from typing import Annotated, Any

import attrs
import structlog
from aiohttp import WSCloseCode, WSMsgType, web
from msgspec import Meta, Struct

from hub.commands.dispatch import dispatch, join, welcome
from hub.delivery.connection import Connection
from hub.errors import HubError
from hub.limits import Limits
from hub.messages import Error, Id
from hub.node.node import Node
from hub.protocols import open_protocol, protocol_names
from hub.web.clients import NODE, connect, disconnect
from hub.web.routes import asked

log = structlog.get_logger()

Sockets = dict[Connection, web.WebSocketResponse[Any]]
SOCKETS: web.AppKey[Sockets] = web.AppKey("sockets", dict)
ERROR_FIELDS = {field.name for field in attrs.fields(Error)}


class Address(Struct):
    """What a client may say in the address of its socket."""

    agentId: Annotated[Id, Meta(description="the agent of a chat that names none")] = "main"
    sessionId: Annotated[Id, Meta(description="hear this session, and chat in it where a chat names none")] | None = (
        None
    )
    afterSeq: Annotated[int, Meta(ge=0, lt=10**15, description="resume after this seq")] | None = None
    epoch: Annotated[Id, Meta(description="of the session when it had that seq")] | None = None
    stream: Annotated[bool, Meta(description="false: whole messages, no pieces")] = True


async def websocket(request: web.Request) -> web.StreamResponse:
    """Open a WebSocket; what it says is in the AsyncAPI document."""
    node, limits = request.app[NODE], request.app[NODE].settings.limits
    connection, ws, address = await _accepted(request)
    try:
        await _open(node, connection, address)
        del address  # this frame stays for as long as the client: 300 bytes
        await _read(node, connection, ws)
    except HubError as refusal:  # the session of its address cannot be had
        connection.answer(Error(code=refusal.code, message=refusal.message))
        await _close(ws, refusal.close, limits.close_seconds)
    except Exception:
        log.exception("a connection failed", connection=connection.id)
        await _close(ws, WSCloseCode.INTERNAL_ERROR, limits.close_seconds)
    finally:
        request.app[SOCKETS].pop(connection, None)
        await disconnect(node, connection, lambda: _close(ws, WSCloseCode.OK, limits.close_seconds))
    return ws


async def _accepted(request: web.Request) -> tuple[Connection, web.WebSocketResponse[Any], Address]:
    """Shake hands; the connection is in the registry then, and the one who called takes it out."""
    node = request.app[NODE]
    address, spoken = asked(request, Address), "plain"
    if "agentId" in request.match_info:  # /agents/{agentId}/ws
        address.agentId, spoken = node.agents.get(request.match_info["agentId"]).id, "hubbub.events"
    ws = _socket(node.settings.limits)
    await ws.prepare(request)
    protocol = open_protocol(ws.ws_protocol or spoken)
    told = {"agent": address.agentId, "session": address.sessionId, "whole": not address.stream}
    connection = connect(node, request, protocol, ws.ping, **told)
    request.app[SOCKETS][connection] = ws
    return connection, ws, address


def _socket(limits: Limits) -> web.WebSocketResponse[Any]:
    # heartbeat and autoping stay off: their timing and their freeing of stuck peers are not ours (see node._sweep).
    # max_msg_size refuses exactly n.
    return web.WebSocketResponse(
        timeout=limits.close_seconds,
        heartbeat=None,
        autoping=False,
        compress=False,
        max_msg_size=limits.frame_bytes + 1,
        protocols=[name for name in protocol_names() if name != "plain"],
        decode_text=False,
    )


async def _close(ws: web.WebSocketResponse[Any], code: int, seconds: float, message: bytes = b"") -> None:
    """Close with a handshake, bounded: aiohttp's close() waits for ever for a peer that does not read."""
    if ws.closed:
        return
    try:
        async with asyncio.timeout(seconds):
            await ws.close(code=code, message=message)
    except (TimeoutError, ConnectionError):
        pass  # the caller aborts the transport


async def _open(node: Node, connection: Connection, address: Address) -> None:
    if connection.protocol.name != "plain":
        welcome(node, connection)
    if connection.session is not None:
        async with node.use(connection.session) as session:
            await join(node, connection, session, address.afterSeq, address.epoch)


async def _read(node: Node, connection: Connection, ws: web.WebSocketResponse[Any]) -> None:
    loop = asyncio.get_running_loop()
    while not connection.closed:
        await connection.readable()
        message = await ws.receive()
        connection.heard, connection.pinged = loop.time(), None
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            connection.frames += 1
            if message.type is WSMsgType.TEXT and not _is_utf8(message.data):
                seconds = node.settings.limits.close_seconds
                connection.leave()  # nothing is delivered after the close frame
                await _close(ws, WSCloseCode.INVALID_TEXT, seconds, b"a text frame must be UTF-8")
                return
            await _command(node, connection, bytes(message.data))
        elif message.type is WSMsgType.PING:
            await ws.pong(message.data)
        elif message.type is not WSMsgType.PONG:
            return


def _is_utf8(data: bytes) -> bool:
    """Check what decode_text=False leaves unchecked (RFC 6455, 8.1)."""
    try:
        return data.isascii() or bool(data.decode())
    except UnicodeDecodeError:
        return False


async def _command(node: Node, connection: Connection, data: bytes) -> None:
    ref = None
    try:
        command = connection.protocol.command(data, connection.limits)
        ref = command.ref
        await dispatch(node, connection, command)
    except HubError as refusal:
        about = {key: value for key, value in refusal.about.items() if key in ERROR_FIELDS}
        connection.answer(Error(**({"ref": ref} | about), code=refusal.code, message=refusal.message))
    except Exception:
        log.exception("a command failed", connection=connection.id)
        connection.answer(Error(code="internal", message="the hub failed; its output says why", ref=ref))


async def close_all(app: web.Application, code: int, seconds: float) -> None:
    """Close every socket with *code*, all at once and bounded, then abort those that are left."""
    sockets: Sockets = app[SOCKETS].copy()
    for connection in app[NODE].registry.connections:
        connection.leave()  # nothing is delivered between the close frame and the end
    closing = [asyncio.create_task(_close(ws, code, seconds)) for ws in sockets.values()]
    if closing:
        await asyncio.wait(closing, timeout=seconds)
    for connection in sockets:
        connection.abort()
    await asyncio.gather(*closing, return_exceptions=True)

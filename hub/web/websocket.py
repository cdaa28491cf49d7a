"""The WebSocket endpoint: reads frames, hands commands on, and cleans up after each connection."""

import asyncio
from typing import Annotated, Any

import attrs
import structlog
from aiohttp import WSCloseCode, WSMsgType, web
from msgspec import Meta, Struct

from hub.commands import table as commands
from hub.commands.client import Client, attach
from hub.commands.hub import Hub
from hub.errors import HubError
from hub.limits import Limits
from hub.messages import Error, Id
from hub.protocols import open_protocol, protocol_names
from hub.web.doorkeeper import principal
from hub.web.routes import HUB, asked

log = structlog.get_logger()

Sockets = dict[Client, web.WebSocketResponse[Any]]
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
    limits = request.app[HUB].limits
    client, ws, address = await _accepted(request)
    try:
        await _open(client, address)
        del address  # this frame stays for as long as the client: 300 bytes
        await _read(client, ws)
    except HubError as refusal:  # the session of its address cannot be had
        client.answer(Error(code=refusal.code, message=refusal.message))
        await _close(ws, refusal.close, limits.close_seconds)
    except Exception:
        log.exception("a connection failed", connection=client.id)
        await _close(ws, WSCloseCode.INTERNAL_ERROR, limits.close_seconds)
    finally:
        request.app[SOCKETS].pop(client, None)
        await client.close(lambda: _close(ws, WSCloseCode.OK, limits.close_seconds))
    return ws


async def _accepted(request: web.Request) -> tuple[Client, web.WebSocketResponse[Any], Address]:
    """Shake hands; the client is attached then, and the caller closes it."""
    hub, who = request.app[HUB], principal(request)
    address, name = asked(request, Address), "plain"
    if "agentId" in request.match_info:  # /agents/{agentId}/ws
        agent = await commands.working_agent(hub, who, request.match_info["agentId"])
        address.agentId, name = agent.agentId, "hubbub.events"
    ws = _socket(hub.limits)
    await ws.prepare(request)
    client = attach(
        *(hub, who, open_protocol(ws.ws_protocol or name), request.transport, ws.ping),
        agent=address.agentId,
        session=address.sessionId,
        whole=not address.stream,
    )
    request.app[SOCKETS][client] = ws
    return client, ws, address


def _socket(limits: Limits) -> web.WebSocketResponse[Any]:
    # heartbeat and autoping stay off: their timing and their freeing of stuck peers are not ours (see node/upkeep.py).
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


async def _open(client: Client, address: Address) -> None:
    if client.protocol != "plain":
        await commands.welcome(client.hub, client.who, client)
    if client.session is not None:
        await commands.listen(client.hub, client.who, client.session, client.opened, address.afterSeq, address.epoch)


async def _read(client: Client, ws: web.WebSocketResponse[Any]) -> None:
    while not client.is_closed:
        await client.readable()
        message = await ws.receive()
        client.note_sign()
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            client.frames += 1
            if message.type is WSMsgType.TEXT and not _is_utf8(message.data):
                client.leave()  # nothing is delivered after the close frame
                seconds = client.hub.limits.close_seconds
                await _close(ws, WSCloseCode.INVALID_TEXT, seconds, b"a text frame must be UTF-8")
                return
            await _receive(client, bytes(message.data))
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


async def _receive(client: Client, data: bytes) -> None:
    ref = None
    try:
        command = client.read(data)
        ref = command.ref
        await commands.receive(client, command)
    except HubError as refusal:
        about = {key: value for key, value in refusal.about.items() if key in ERROR_FIELDS}
        client.answer(Error(**({"ref": ref} | about), code=refusal.code, message=refusal.message))
    except Exception:
        log.exception("a command failed", connection=client.id)
        client.answer(Error(code="internal", message="the hub failed; its output says why", ref=ref))


async def close_all(app: web.Application, hub: Hub, code: int) -> None:
    """Close every socket with *code*, all at once and bounded, then abort those that are left."""
    seconds = hub.limits.close_seconds
    sockets: Sockets = app[SOCKETS].copy()
    hub.leave_all()  # nothing is delivered between the close frame and the end
    closing = [asyncio.create_task(_close(ws, code, seconds)) for ws in sockets.values()]
    if closing:
        await asyncio.wait(closing, timeout=seconds)
    for client in sockets:
        client.abort()
    await asyncio.gather(*closing, return_exceptions=True)

"""The WebSocket endpoint: opens each connection, hands its frames on, and cleans up after it."""

import asyncio
from typing import Annotated

import structlog
from aiohttp import WSCloseCode, web
from msgspec import Meta, Struct

from hub.commands import table as commands
from hub.commands.client import ClientHandle, attach
from hub.commands.hub import Hub
from hub.commands.intake import Intake, build_error
from hub.errors import HubError
from hub.limits import Limits
from hub.messages import Id
from hub.protocols import open_protocol, protocol_names
from hub.web.doorkeeper import principal_of
from hub.web.frames import SocketReader, WebSocket, close_websocket
from hub.web.routes import HUB_KEY, read_query, refuse_http_1_0

log = structlog.get_logger()

SocketTable = dict[Intake, WebSocket]
SOCKETS_KEY: web.AppKey[SocketTable] = web.AppKey("sockets", dict)


class SocketQuery(Struct):
    """What a client may say in the address of its socket."""

    agentId: Annotated[Id, Meta(description="the agent of a chat that names none")] = "main"
    sessionId: Annotated[Id, Meta(description="hear this session, and chat in it where a chat names none")] | None = (
        None
    )
    afterSeq: Annotated[int, Meta(ge=0, lt=10**15, description="resume after this seq")] | None = None
    epoch: Annotated[Id, Meta(description="of the session when it had that seq")] | None = None
    stream: Annotated[bool, Meta(description="false: whole messages, no pieces")] = True


async def serve_websocket(request: web.Request) -> web.StreamResponse:
    """Open a WebSocket; what it says is in the AsyncAPI document."""
    # This frame stays for as long as the client: it has few names, and no function in it that would share them.
    client, ws, address = await _accept(request)
    reader = SocketReader(client, ws)
    intake = Intake(client=client, source=reader)
    request.app[SOCKETS_KEY][intake] = ws
    try:
        await _open(client, address)
        del address
        while (data := await reader.next()) is not None:
            await intake.receive(data)
    except HubError as refusal:  # of what the address asks for, or of one frame too many
        client.answer(build_error(refusal))
        await _disconnect(client, ws, refusal.close, refusal.code)
    except Exception:
        log.exception("a connection failed", connection=client.id)
        await _disconnect(client, ws, WSCloseCode.INTERNAL_ERROR)
    finally:
        await _clean_up(client, ws, reader, intake)
        del request.app[SOCKETS_KEY][intake]
        if (error := ws.exception()) is not None:  # its traceback refers to the socket, and the socket to the error
            error.__traceback__ = error.__context__ = None
    return ws


async def _disconnect(client: ClientHandle, ws: WebSocket, code: int, reason: str = "") -> None:
    client.stop_delivery()  # nothing is delivered after the close frame
    await close_websocket(ws, code, client.hub.limits.close_seconds, reason.encode())


async def _clean_up(client: ClientHandle, ws: WebSocket, reader: SocketReader, intake: Intake) -> None:
    await reader.stop()
    # A hub that ends has its clients leave, and one may be seen to have left before close_all_sockets() comes to it.
    code = WSCloseCode.SERVICE_RESTART if client.hub.is_draining else WSCloseCode.OK
    await client.close(lambda: close_websocket(ws, code, client.hub.limits.close_seconds))
    await intake.wait_until_finished()  # what the client sent is done, also when it has gone


async def _accept(request: web.Request) -> tuple[ClientHandle, WebSocket, SocketQuery]:
    """Shake hands; the client is attached then, and the caller closes it."""
    refuse_http_1_0(request)
    hub, principal = request.app[HUB_KEY], principal_of(request)
    address, name = read_query(request, SocketQuery), "plain"
    if "agentId" in request.match_info:  # /agents/{agentId}/ws
        agent = await commands.get_working_agent(hub, principal, request.match_info["agentId"])
        address.agentId, name = agent.agentId, "hubbub.events"
    ws = _socket(hub.limits)
    await ws.prepare(request)
    client = attach(
        *(hub, principal, open_protocol(ws.ws_protocol or name, hub.limits), request.transport, ws.ping),
        agent=address.agentId,
        session=address.sessionId,
        whole_messages=not address.stream,
    )
    return client, ws, address


def _socket(limits: Limits) -> WebSocket:
    # heartbeat and autoping stay off: their timing and their freeing of stuck peers are not ours (see node/upkeep.py).
    # autoclose answers every close with 1000. max_msg_size refuses exactly n.
    return web.WebSocketResponse(
        timeout=limits.close_seconds,
        heartbeat=None,
        autoping=False,
        autoclose=False,
        compress=False,
        max_msg_size=limits.frame_bytes + 1,
        protocols=[name for name in protocol_names() if name != "plain"],
        decode_text=False,
    )


async def _open(client: ClientHandle, address: SocketQuery) -> None:
    await commands.welcome(client.hub, client.principal, client)
    if client.session is not None:
        await commands.listen(
            client.hub, client.principal, client.session, client.get_open_client, address.afterSeq, address.epoch
        )


async def close_all_sockets(app: web.Application, hub: Hub, code: int) -> None:
    """Close every socket with *code*, all at once and bounded, then abort those that are left.

    Commands that are still under way are cancelled, also those of clients that have gone.
    """
    seconds = hub.limits.close_seconds
    sockets: SocketTable = app[SOCKETS_KEY].copy()
    hub.leave_all()  # nothing is delivered between the close frame and the end
    closing = [asyncio.create_task(close_websocket(ws, code, seconds)) for ws in sockets.values()]
    if closing:
        await asyncio.wait(closing, timeout=seconds)
    for intake in sockets:
        intake.client.abort()
        intake.cancel()
    await asyncio.gather(*closing, return_exceptions=True)
    await asyncio.gather(*(intake.wait_until_finished() for intake in sockets))

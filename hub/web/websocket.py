"""The WebSocket route: opens connections, passes their frames to the intake, and cleans up after them."""

import asyncio
from contextlib import suppress
from typing import Annotated

import structlog
from aiohttp import WSCloseCode, web
from msgspec import Meta, Struct

from hub.commands import table as commands
from hub.commands.client import ClientHandle, attach
from hub.commands.hub import Hub
from hub.commands.intake import Intake, build_error
from hub.errors import AgentBroken, HubError, UnknownAgent, UnknownSession
from hub.limits import Limits
from hub.messages import Id
from hub.protocols import open_protocol, protocol_names
from hub.web.access_log import open_socket_log
from hub.web.counting import count_close
from hub.web.doorkeeper import principal_of, refuse_bad_credential
from hub.web.first_frame import wait_for_sign_in
from hub.web.frames import SocketReader, WebSocket, send_close_frame
from hub.web.handshake import check_upgrade, refuse_http_1_0
from hub.web.routes import HUB_KEY, read_query

log = structlog.get_logger()

SocketTable = dict[Intake, WebSocket]
SOCKETS_KEY: web.AppKey[SocketTable] = web.AppKey("sockets", dict)
SOCKET_END_KEY = web.AppKey("socket_end", asyncio.Event)  # set when a handler of a WebSocket has ended


class SocketQuery(Struct):
    """The query of a WebSocket's URL."""

    agentId: Annotated[Id, Meta(description="The default agent of chats on this connection.")] = "main"
    sessionId: (
        Annotated[Id, Meta(description="Subscribe to this session, and make it the default session of chats.")] | None
    ) = None
    afterSeq: (
        Annotated[int, Meta(ge=0, lt=10**15, description="The cursor: replay the events after this seq.")] | None
    ) = None
    epoch: Annotated[Id, Meta(description="The epoch of the session at the cursor.")] | None = None
    ticket: Annotated[str, Meta(description="A ticket of `POST /tickets`, to sign in.")] | None = None
    stream: Annotated[bool, Meta(description="false: send complete messages instead of a stream of their parts.")] = (
        True
    )


async def serve_websocket(request: web.Request) -> web.StreamResponse:
    """Open a WebSocket.

    The document /asyncapi.json describes its messages.
    """
    # This function runs as long as the connection: few variables and no inner functions save memory.
    client, ws, query = await _accept(request)
    reader = SocketReader(client, ws)
    intake = Intake(client=client, source=reader)
    socket_log = open_socket_log(request, client) if client.hub.settings.access_log else None
    request.app[SOCKETS_KEY][intake] = ws
    try:
        client.check_principal()
        is_welcome = client.principal.is_signed_in or await _sign_in(client, reader, request.match_info.get("agentId"))
        await _open(client, query, is_welcome)
        del query
        while (data := await reader.next()) is not None:
            await intake.receive(data)
    except HubError as refusal:  # the query is refused, or the client sent too many frames
        client.answer(build_error(refusal))
        send_close_frame(client, refusal.close_code, refusal.code)
    except Exception:
        log.exception("a connection failed", connection=client.id)
        send_close_frame(client, WSCloseCode.INTERNAL_ERROR)
    finally:
        await _clean_up(client, reader, intake)
        if socket_log is not None:
            socket_log.close(client.close_code)
        count_close(client.hub.counters.door, client.close_code)
        del request.app[SOCKETS_KEY][intake]
        request.app[SOCKET_END_KEY].set()
        error = ws.exception()
        if error is not None:  # break the cycle: the traceback refers to the socket, and the socket to the error
            error.__traceback__ = error.__context__ = None
    return ws


async def _sign_in(client: ClientHandle, reader: SocketReader, agent_id: str | None) -> bool:
    """Wait as wait_for_sign_in() does. Then check the agent in the path: before, nobody may learn of agents.

    With an agent that is unknown or broken, the client gets an error and stays connected, as its first chat would.
    """
    is_welcome = await wait_for_sign_in(client, reader)
    if agent_id is not None and client.principal.is_signed_in:
        try:
            await commands.get_working_agent(client.hub, client.principal, agent_id)
        except (UnknownAgent, AgentBroken) as refusal:
            client.answer(build_error(refusal))
    return is_welcome


async def _clean_up(client: ClientHandle, reader: SocketReader, intake: Intake) -> None:
    await reader.stop()
    # When the hub shuts down, delivery ends first, so this may run before close_all_sockets(). Both send the same code.
    code = WSCloseCode.SERVICE_RESTART if client.hub.is_draining else WSCloseCode.OK
    await client.close(lambda: _say_goodbye(client, reader, code))
    await intake.wait_until_finished()  # commands run to their end, also after the client has disconnected


async def _say_goodbye(client: ClientHandle, reader: SocketReader, code: int) -> None:
    """Send a close frame unless the hub has sent one. Close the transport after the answer of the peer."""
    transport = client.connection.transport
    if not transport.is_lost:
        send_close_frame(client, code)
        await reader.wait_for_close()
        transport.asyncio_transport.close()


async def _accept(request: web.Request) -> tuple[ClientHandle, WebSocket, SocketQuery]:
    """Complete the handshake, and return the new client, its socket and its query. The caller must close the client."""
    refuse_http_1_0(request)
    check_upgrade(request)
    hub, principal = request.app[HUB_KEY], principal_of(request)
    refuse_bad_credential(request)
    hub.check_connection_count(principal)
    query, protocol_name = read_query(request, SocketQuery), "plain"
    if "agentId" in request.match_info:  # /agents/{agentId}/ws
        query.agentId, protocol_name = request.match_info["agentId"], "hubbub.events"
        if principal.is_signed_in:
            await commands.get_working_agent(hub, principal, query.agentId)
    ws = _make_websocket(hub.limits)
    await ws.prepare(request)
    hub.counters.door.socket_opens += 1
    client = attach(
        *(hub, principal, open_protocol(ws.ws_protocol or protocol_name, hub.limits), request.transport, ws.ping),
        agent=query.agentId,
        session=query.sessionId,
        whole_messages=not query.stream,
    )
    return client, ws, query


def _make_websocket(limits: Limits) -> WebSocket:
    # heartbeat and autoping are off: node/upkeep.py sends the heartbeats and disconnects clients that do not read.
    # autoclose is off: WebSocket.close() does nothing. aiohttp refuses a frame of max_msg_size bytes, hence the + 1.
    return WebSocket(
        heartbeat=None,
        autoping=False,
        autoclose=False,
        compress=False,
        max_msg_size=limits.frame_bytes + 1,
        protocols=[name for name in protocol_names() if name != "plain"],
        decode_text=False,
    )


async def _open(client: ClientHandle, query: SocketQuery, is_welcome: bool) -> None:
    """Welcome the client if *is_welcome*, and subscribe it to the session of the query.

    A client that may not read the session, or whose session does not exist, gets an error and stays connected: its
    first chat may make the session.
    """
    client.hub.check_connection_count(client.principal, is_counted=True)  # other handshakes may have ended meanwhile
    if is_welcome:
        await commands.welcome(client.hub, client.principal, client)
    if client.session is not None and client.principal.is_signed_in:
        try:
            await commands.follow_session(
                client.hub, client.principal, client.session, client.get_open_client, query.afterSeq, query.epoch
            )
        except UnknownSession as refusal:
            client.answer(build_error(refusal))


def close_socket(app: web.Application, client: ClientHandle, error: HubError) -> bool:
    """Send the error and a close frame to a client, without waiting. Return False if it has no WebSocket.

    The handler of the socket goes on reading until the answer of the peer, or the end of the lingering. aiohttp would
    close the transport at once: behind a proxy, the peer would learn of the lost connection before the close frame.
    """
    if not any(intake.client is client for intake in app[SOCKETS_KEY]):
        return False
    client.connection.answer(build_error(error))
    send_close_frame(client, error.close_code, error.code)
    return True


async def close_all_sockets(app: web.Application, hub: Hub, code: int) -> None:
    """Close all sockets with *code* at the same time, within `close_seconds`, then abort the sockets still open.

    Cancel all unfinished commands, also the commands of disconnected clients, and wait for their end.
    """
    sockets: SocketTable = app[SOCKETS_KEY].copy()
    for intake in sockets:
        if not intake.client.is_closed:
            send_close_frame(intake.client, code)
    hub.stop_delivery()
    with suppress(TimeoutError):
        async with asyncio.timeout(hub.limits.close_seconds):
            await _wait_for_handlers(app, sockets)
    for intake in sockets:
        intake.client.abort()
        intake.cancel()
    await asyncio.gather(*(intake.wait_until_finished() for intake in sockets))


async def _wait_for_handlers(app: web.Application, sockets: SocketTable) -> None:
    """Wait until the handlers of all *sockets* have ended."""
    while any(intake in app[SOCKETS_KEY] for intake in sockets):
        app[SOCKET_END_KEY].clear()
        await app[SOCKET_END_KEY].wait()

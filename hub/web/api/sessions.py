"""Sessions over HTTP: what was said, what is being said, and chats."""

from typing import Annotated

import orjson
from aiohttp import web
from msgspec import UNSET, Meta, structs

from hub.access.doors import principal
from hub.commands.dispatch import join, reply, stop
from hub.delivery.connection import Connection
from hub.delivery.registry import Channel
from hub.errors import (
    AgentBroken,
    AlreadyResolved,
    BadFrame,
    BadId,
    Busy,
    Draining,
    IdReused,
    NotRunning,
    SessionDeleted,
    StorageUnavailable,
    TooLarge,
    UnknownAgent,
    UnknownInterrupt,
    UnknownSession,
)
from hub.messages import Accepted, Cancel, Cancelling, Chat, Id, Ok, Resume, State
from hub.node.deleting import clear, delete, purge
from hub.node.node import Node
from hub.protocols.extended import event_fields, notice_fields
from hub.protocols.reading import check_id, convert
from hub.sessions.session import new_id
from hub.storage.log import Head, Listed, Message
from hub.web import bodies
from hub.web.api.outcomes import outcome
from hub.web.api.session_shapes import (
    FAR,
    Cleared,
    Clearing,
    Cursor,
    EventPage,
    Label,
    Listing,
    NewSession,
    Outcome,
    Page,
    Paging,
    SessionState,
    Waiting,
)
from hub.web.clients import NODE, limits_of
from hub.web.routes import STREAM, Route, asked, fields_of, said
from hub.web.sse import LastEvent, last_event, stream, wants_stream

CHAT = '{"agentId":"main","message":"hello"}'


def _session_id(request: web.Request) -> str:
    return check_id("the session", request.match_info["id"])


async def _head(request: web.Request) -> Head:
    session_id = _session_id(request)
    head = await request.app[NODE].log.find(session_id)
    if head is None:
        raise _unknown(session_id)
    return head


def _unknown(session_id: str) -> UnknownSession:
    return UnknownSession(f"there is no session {session_id}: a chat makes it", sessionId=session_id)


async def listed(request: web.Request) -> web.Response:
    """List the sessions, the newest first.

    By agent and by the time of the last message, where asked.
    """
    want = asked(request, Listing)
    log = request.app[NODE].log
    total, found = await log.sessions((want.page - 1) * want.size, want.size, want.agentId, want.since, want.until)
    data = [fields_of(one) for one in found]
    return web.json_response({"data": data, "total": total, "page": want.page, "size": want.size})


async def made(request: web.Request) -> web.Response:
    """Make a session.

    Under the id that the body names, or one of its own; one that is there stays as it is.
    """
    session_id = (await bodies.read(request, NewSession)).sessionId or new_id("s")
    node = request.app[NODE]
    node.refuse_if_draining()
    was = await node.log.find(session_id)
    async with node.use(session_id) as session:
        return said(await _shown(node, session.channel), status=201 if was is None else 200)


async def shown(request: web.Request) -> web.Response:
    """Show where a session stands, and what it is doing."""
    head, node = await _head(request), request.app[NODE]
    return said(await _shown(node, head))


async def labelled(request: web.Request) -> web.Response:
    """Replace a session's title, its metadata, or both."""
    node, given = request.app[NODE], await bodies.read(request, Label)
    changes = {name: value for name, value in structs.asdict(given).items() if value is not UNSET}
    if not changes:
        raise BadFrame(f"neither title nor metadata is given; send for example {Label.example}")
    if given.metadata and len(orjson.dumps(given.metadata)) > node.settings.limits.metadata_bytes:
        most = node.settings.limits.metadata_bytes >> 10
        raise TooLarge(f"the metadata of a session is at most {most} KiB of JSON: keep the rest elsewhere")
    head = await _head(request)
    await node.log.relabel(head.sessionId, changes)
    return said(await _shown(node, await _head(request)))


async def deleted(request: web.Request) -> web.Response:
    """Delete a session: what goes on in it ends, and nothing of it is left."""
    node, session_id = request.app[NODE], _session_id(request)
    if not await delete(node, session_id):
        raise _unknown(session_id)
    await purge(node)
    return web.Response(status=204)


async def cleared(request: web.Request) -> web.Response:
    """Delete many sessions.

    Those that are named, those that nobody wrote in since a time, or all.
    """
    node, chosen = request.app[NODE], await bodies.read(request, Clearing)
    ways = [way for way in (chosen.sessionIds, chosen.before, chosen.all) if way is not None]
    if len(ways) != 1 or chosen.all is False:
        raise BadFrame(f"choose in one way; send for example {Clearing.example}")
    node.refuse_if_draining()
    names, before = chosen.sessionIds, chosen.before
    if names is None:
        # A session without any message was last written in at no time: only `all` takes it.
        since, until = (0, FAR) if before is None else (1, min(before, FAR))
        names = [one.sessionId for one in (await node.log.sessions(0, FAR, None, since, until))[1]]
    count = await clear(node, list(dict.fromkeys(names)), before)
    await purge(node)
    return web.json_response({"deleted": count})


async def _shown(node: Node, head: Head | Channel) -> SessionState:
    session_id = head.sessionId if isinstance(head, Head) else head.id
    label = await node.log.label(session_id)
    if label is None:
        raise _unknown(session_id)
    session = node.sessions.get(session_id)
    seq = head.seq if isinstance(head, Head) else head.head
    state = session.state() if session is not None else State(sessionId=session_id, state="idle", active=(), queue=())
    return SessionState(
        *(session_id, head.epoch, seq, head.floor, state.state, state.active, state.queue),
        *(label.title, label.metadata, state.interrupts),
    )


async def messages(request: web.Request) -> web.Response:
    """List the finished messages; page 1 has the oldest."""
    head, want = await _head(request), asked(request, Paging)
    total, found = await request.app[NODE].log.history(head.sessionId, (want.page - 1) * want.size, want.size)
    data = [fields_of(message) for message in found]
    return web.json_response({"data": data, "total": total, "page": want.page, "size": want.size})


async def events(request: web.Request) -> web.StreamResponse:
    """Read the log: a page of it, or a stream from a cursor on.

    With `Accept: text/event-stream` the stream stays open; see docs/api.md for where it begins.
    """
    node, want = request.app[NODE], asked(request, Cursor)
    if not wants_stream(request):
        head = await _head(request)
        after = want.afterSeq or 0
        found = await node.log.read(head.sessionId, max(after, head.floor), head.seq)
        data = [event_fields(event) for event in found]
        return web.json_response({"data": data, "epoch": head.epoch, "seq": head.seq, "floor": head.floor})
    session_id, last = _session_id(request), last_event(request)
    epoch, cursor = last if last is not None else (None, want.afterSeq)

    async def begin(connection: Connection) -> None:
        async with node.use(session_id) as session:
            await join(node, connection, session, cursor, epoch)

    return await stream(request, begin)


async def _command(request: web.Request, session_id: str) -> Chat:
    body = await bodies.fields(request, CHAT, limits_of(request).chat_bytes)
    key = request.headers.get("Idempotency-Key")
    told = {"sessionId": session_id} | ({"clientMsgId": key} if key is not None else {})
    return convert({**body, **told}, Chat, limits_of(request))


async def chat(request: web.Request) -> web.StreamResponse:
    """Say a message in a session.

    202 and what it became; with `?wait=true`, or as a stream with `Accept: text/event-stream`, also its answer. With an
    `Idempotency-Key` it runs once, however often it is sent.
    """
    node, session_id = request.app[NODE], _session_id(request)
    command = await _command(request, session_id)
    wait = asked(request, Waiting).wait
    node.refuse_if_draining()
    agent = node.agents.get(command.agentId or "main")
    async with node.use(session_id) as session:
        accepted = await session.chat(command, principal(request), agent)
        if wants_stream(request):

            async def begin(connection: Connection) -> None:
                connection.answer(accepted)
                node.registry.subscribe(connection, session.channel, accepted.seq - 1)

            return await stream(request, begin, lambda: session.finished(accepted.runId))
        if wait:
            await session.finished(accepted.runId)
            return web.json_response(await outcome(node, session, accepted))
    return web.json_response(notice_fields(accepted), status=202)


async def cancel(request: web.Request) -> web.Response:
    """Stop what is being answered.

    All of it, or the run that the body names.
    """
    body = await bodies.fields(request, '{"runId":"r1"}')
    command = convert({**body, "sessionId": _session_id(request)}, Cancel, limits_of(request))
    node = request.app[NODE]
    return web.json_response(notice_fields(stop(node, command)))


async def resume(request: web.Request) -> web.Response:
    """Answer a question that a run asked."""
    body = {**await bodies.fields(request, Resume.example), "sessionId": _session_id(request)}
    command = convert(body, Resume, limits_of(request))
    await reply(request.app[NODE], command, principal(request))
    return web.json_response(notice_fields(Ok(ref=command.ref)))


READ_RAISES = (BadId, UnknownSession, StorageUnavailable)
CHAT_RAISES = (UnknownAgent, AgentBroken, IdReused, SessionDeleted, Busy, Draining, StorageUnavailable)
TAG = "Sessions"
ROUTES = (
    Route("GET", "/sessions", listed, TAG, {200: Page[Listed]}, query=Listing, raises=(StorageUnavailable,)),
    Route(
        "POST",
        "/sessions",
        made,
        TAG,
        {200: SessionState, 201: SessionState},
        body=NewSession,
        raises=(SessionDeleted, Draining, StorageUnavailable),
    ),
    Route(
        "POST",
        "/sessions/clear",
        cleared,
        TAG,
        {200: Cleared},
        body=Clearing,
        raises=(Draining, StorageUnavailable),
    ),
    Route("GET", "/sessions/{id}", shown, TAG, {200: SessionState}, raises=READ_RAISES),
    Route("PATCH", "/sessions/{id}", labelled, TAG, {200: SessionState}, body=Label, raises=READ_RAISES),
    Route("DELETE", "/sessions/{id}", deleted, TAG, {204: None}, raises=(*READ_RAISES, Draining)),
    Route("GET", "/sessions/{id}/messages", messages, TAG, {200: Page[Message]}, query=Paging, raises=READ_RAISES),
    Route(
        "GET",
        "/sessions/{id}/events",
        events,
        TAG,
        {200: (EventPage, STREAM)},
        query=Cursor,
        headers={"Last-Event-ID": LastEvent},
        raises=READ_RAISES,
    ),
    Route(
        "POST",
        "/sessions/{id}/chat",
        chat,
        TAG,
        {200: (Outcome, STREAM), 202: Accepted},
        body=Chat,
        told=("sessionId",),
        query=Waiting,
        headers={"Idempotency-Key": Annotated[Id, Meta(description="the message's clientMsgId")]},
        raises=CHAT_RAISES,
    ),
    Route(
        "POST",
        "/sessions/{id}/cancel",
        cancel,
        TAG,
        {200: Cancelling},
        body=Cancel,
        told=("sessionId",),
        raises=(NotRunning,),
    ),
    Route(
        "POST",
        "/sessions/{id}/resume",
        resume,
        TAG,
        {200: Ok},
        body=Resume,
        told=("sessionId",),
        raises=(UnknownInterrupt, AlreadyResolved, Draining, StorageUnavailable),
    ),
)

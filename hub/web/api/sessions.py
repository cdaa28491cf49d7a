"""Sessions over HTTP: what was said, what is being said, and chats."""

from typing import Annotated

from aiohttp import web
from msgspec import UNSET, Meta, structs

from hub.commands import table as commands
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
    UnknownAgent,
    UnknownInterrupt,
    UnknownSession,
)
from hub.messages import (
    Accepted,
    Cancel,
    Cancelling,
    Chat,
    DeletionCount,
    EventPage,
    HistoryMessage,
    Id,
    Ok,
    Resume,
    RunOutcome,
    SessionState,
    SessionSummary,
)
from hub.protocols.extended import event_fields, notice_fields
from hub.protocols.reading import check_id, convert
from hub.web import bodies
from hub.web.api.session_shapes import (
    Clearing,
    Cursor,
    Label,
    Listing,
    NewSession,
    PageBody,
    Paging,
    Waiting,
    listing,
    span_of,
)
from hub.web.doorkeeper import principal_of
from hub.web.routes import HUB, STREAM, Route, asked, limits_of, said
from hub.web.sse import EventStream, LastEvent, last_event, wants_stream

CHAT = '{"agentId":"main","message":"hello"}'


def _session_id(request: web.Request) -> str:
    return check_id("the session", request.match_info["id"])


async def listed(request: web.Request) -> web.Response:
    """List the sessions, by default the one with the newest message first.

    By agent and by the time of the last message, where asked.
    """
    want = asked(request, Listing)
    hub, principal, span = request.app[HUB], principal_of(request), span_of(request, want)
    return listing(
        await commands.list_sessions(hub, principal, span, agent=want.agentId, since=want.since, until=want.until)
    )


async def made(request: web.Request) -> web.Response:
    """Make a session.

    Under the id that the body names, or one of its own; one that is there stays as it is.
    """
    name = (await bodies.read(request, NewSession)).sessionId
    state, is_new = await commands.create_session(request.app[HUB], principal_of(request), name)
    return said(state, status=201 if is_new else 200)


async def shown(request: web.Request) -> web.Response:
    """Show where a session stands, and what it is doing."""
    return said(await commands.get_session(request.app[HUB], principal_of(request), _session_id(request)))


async def labelled(request: web.Request) -> web.Response:
    """Replace a session's title, its metadata, or both."""
    label = await bodies.read(request, Label)
    changes = {name: value for name, value in structs.asdict(label).items() if value is not UNSET}
    if not changes:
        raise BadFrame(f"neither title nor metadata is given; send for example {Label.example}")
    return said(await commands.relabel(request.app[HUB], principal_of(request), _session_id(request), changes))


async def deleted(request: web.Request) -> web.Response:
    """Delete a session: what goes on in it ends, and nothing of it is left."""
    await commands.delete_session(request.app[HUB], principal_of(request), _session_id(request))
    return web.Response(status=204)


async def cleared(request: web.Request) -> web.Response:
    """Delete many sessions.

    Those that are named, those that nobody wrote in since a time, or all.
    """
    chosen = await bodies.read(request, Clearing)
    ways = [way for way in (chosen.sessionIds, chosen.before, chosen.all) if way is not None]
    if len(ways) != 1 or chosen.all is False:
        raise BadFrame(f"choose in one way; send for example {Clearing.example}")
    result = await commands.clear_sessions(
        request.app[HUB], principal_of(request), session_ids=chosen.sessionIds, before=chosen.before
    )
    return web.json_response(structs.asdict(result))


async def messages(request: web.Request) -> web.Response:
    """List the finished messages, by default the oldest first."""
    name, span = _session_id(request), span_of(request, asked(request, Paging))
    return listing(await commands.list_messages(request.app[HUB], principal_of(request), name, span))


async def events(request: web.Request) -> web.StreamResponse:
    """Read the log: a page of it, or a stream from a cursor on.

    With `Accept: text/event-stream` the stream stays open; see docs/api.md for where it begins.
    """
    hub, principal, want = request.app[HUB], principal_of(request), asked(request, Cursor)
    name = _session_id(request)
    if not wants_stream(request):
        page = await commands.read_events(hub, principal, name, want.afterSeq or 0)
        data = [event_fields(event) for event in page.data]
        place = {"epoch": page.epoch, "seq": page.seq, "floor": page.floor, "more": page.more}
        return web.json_response({"data": data, **place})
    last = last_event(request)
    epoch, cursor = last if last is not None else (None, want.afterSeq)
    async with EventStream(request) as stream:
        await commands.listen(hub, principal, name, stream.open, cursor, epoch)
        await stream.serve()
    return stream.response


async def _command(request: web.Request, session_id: str) -> Chat:
    limits = limits_of(request)
    body = await bodies.fields(request, CHAT, limits.chat_bytes)
    key = request.headers.get("Idempotency-Key")
    told = {"sessionId": session_id} | ({"clientMsgId": key} if key is not None else {})
    return convert({**body, **told}, Chat, limits)


async def chat(request: web.Request) -> web.StreamResponse:
    """Say a message in a session.

    202 and what it became; with `?wait=true`, or as a stream with `Accept: text/event-stream`, also its answer. With an
    `Idempotency-Key` it runs once, however often it is sent.
    """
    hub, principal = request.app[HUB], principal_of(request)
    command = await _command(request, _session_id(request))
    wait = asked(request, Waiting).wait
    if wants_stream(request):
        async with EventStream(request) as stream:
            accepted = await commands.stream_chat(hub, principal, command, lambda *_: stream.open())
            await stream.serve_run(accepted.runId)
        return stream.response
    if wait:
        return said(await commands.ask(hub, principal, command))
    return web.json_response(notice_fields(await commands.chat(hub, principal, command)), status=202)


async def cancel(request: web.Request) -> web.Response:
    """Stop what is being answered.

    All of it, or the run that the body names.
    """
    body = await bodies.fields(request, '{"runId":"r1"}')
    command = convert({**body, "sessionId": _session_id(request)}, Cancel, limits_of(request))
    return web.json_response(notice_fields(await commands.cancel(request.app[HUB], principal_of(request), command)))


async def resume(request: web.Request) -> web.Response:
    """Answer a question that a run asked."""
    body = {**await bodies.fields(request, Resume.example), "sessionId": _session_id(request)}
    command = convert(body, Resume, limits_of(request))
    return web.json_response(notice_fields(await commands.resume(request.app[HUB], principal_of(request), command)))


READ_RAISES = (BadId, UnknownSession, StorageUnavailable)
CHAT_RAISES = (UnknownAgent, AgentBroken, IdReused, SessionDeleted, Busy, Draining, StorageUnavailable)
TAG = "Sessions"
ROUTES = (
    Route(
        method="GET",
        path="/sessions",
        handler=listed,
        tag=TAG,
        answers={200: PageBody[SessionSummary]},
        query=Listing,
        raises=(StorageUnavailable,),
    ),
    Route(
        method="POST",
        path="/sessions",
        handler=made,
        tag=TAG,
        answers={200: SessionState, 201: SessionState},
        body=NewSession,
        raises=(SessionDeleted, Draining, StorageUnavailable),
    ),
    Route(
        method="POST",
        path="/sessions/clear",
        handler=cleared,
        tag=TAG,
        answers={200: DeletionCount},
        body=Clearing,
        raises=(Draining, StorageUnavailable),
    ),
    Route(method="GET", path="/sessions/{id}", handler=shown, tag=TAG, answers={200: SessionState}, raises=READ_RAISES),
    Route(
        method="PATCH",
        path="/sessions/{id}",
        handler=labelled,
        tag=TAG,
        answers={200: SessionState},
        body=Label,
        raises=READ_RAISES,
    ),
    Route(
        method="DELETE",
        path="/sessions/{id}",
        handler=deleted,
        tag=TAG,
        answers={204: None},
        raises=(*READ_RAISES, Draining),
    ),
    Route(
        method="GET",
        path="/sessions/{id}/messages",
        handler=messages,
        tag=TAG,
        answers={200: PageBody[HistoryMessage]},
        query=Paging,
        raises=READ_RAISES,
    ),
    Route(
        method="GET",
        path="/sessions/{id}/events",
        handler=events,
        tag=TAG,
        answers={200: (EventPage, STREAM)},
        query=Cursor,
        headers={"Last-Event-ID": LastEvent},
        raises=READ_RAISES,
    ),
    Route(
        method="POST",
        path="/sessions/{id}/chat",
        handler=chat,
        tag=TAG,
        answers={200: (RunOutcome, STREAM), 202: Accepted},
        body=Chat,
        told=("sessionId",),
        query=Waiting,
        headers={"Idempotency-Key": Annotated[Id, Meta(description="the message's clientMsgId")]},
        raises=CHAT_RAISES,
    ),
    Route(
        method="POST",
        path="/sessions/{id}/cancel",
        handler=cancel,
        tag=TAG,
        answers={200: Cancelling},
        body=Cancel,
        told=("sessionId",),
        raises=(NotRunning,),
    ),
    Route(
        method="POST",
        path="/sessions/{id}/resume",
        handler=resume,
        tag=TAG,
        answers={200: Ok},
        body=Resume,
        told=("sessionId",),
        raises=(UnknownInterrupt, AlreadyResolved, Draining, StorageUnavailable),
    ),
)

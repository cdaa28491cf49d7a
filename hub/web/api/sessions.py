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
    ChatQuery,
    ClearBody,
    EventsQuery,
    LabelBody,
    NewSessionBody,
    PageBody,
    PageQuery,
    SessionListQuery,
    page_request,
    page_response,
)
from hub.web.doorkeeper import principal_of
from hub.web.routes import HUB_KEY, STREAM_CONTENT, Route, limits_of, read_query, record_response
from hub.web.sse import EventStream, LastEventId, read_last_event_id, wants_stream

CHAT_EXAMPLE = '{"agentId":"main","message":"hello"}'


def _session_id(request: web.Request) -> str:
    return check_id("the session", request.match_info["id"])


async def get_sessions(request: web.Request) -> web.Response:
    """List the sessions, newest message first by default; filter by agent and by time of the last message."""
    want = read_query(request, SessionListQuery)
    hub, principal, span = request.app[HUB_KEY], principal_of(request), page_request(request, want)
    return page_response(
        await commands.list_sessions(hub, principal, span, agent=want.agentId, since=want.since, until=want.until)
    )


async def post_session(request: web.Request) -> web.Response:
    """Make a session.

    Under the id that the body names, or one of its own; one that is there stays as it is.
    """
    name = (await bodies.read_body(request, NewSessionBody)).sessionId
    state, is_new = await commands.create_session(request.app[HUB_KEY], principal_of(request), name)
    return record_response(state, status=201 if is_new else 200)


async def show_session(request: web.Request) -> web.Response:
    """Show where a session stands, and what it is doing."""
    return record_response(
        await commands.get_session(request.app[HUB_KEY], principal_of(request), _session_id(request))
    )


async def patch_session(request: web.Request) -> web.Response:
    """Replace a session's title, its metadata, or both."""
    label = await bodies.read_body(request, LabelBody)
    changes = {name: value for name, value in structs.asdict(label).items() if value is not UNSET}
    if not changes:
        raise BadFrame(f"neither title nor metadata is given; send for example {LabelBody.example}")
    return record_response(
        await commands.relabel(request.app[HUB_KEY], principal_of(request), _session_id(request), changes)
    )


async def delete_one_session(request: web.Request) -> web.Response:
    """Delete a session: what goes on in it ends, and nothing of it is left."""
    await commands.delete_session(request.app[HUB_KEY], principal_of(request), _session_id(request))
    return web.Response(status=204)


async def post_clear(request: web.Request) -> web.Response:
    """Delete many sessions.

    Those that are named, those that nobody wrote in since a time, or all.
    """
    chosen = await bodies.read_body(request, ClearBody)
    ways = [way for way in (chosen.sessionIds, chosen.before, chosen.all) if way is not None]
    if len(ways) != 1 or chosen.all is False:
        raise BadFrame(f"choose in one way; send for example {ClearBody.example}")
    result = await commands.clear_sessions(
        request.app[HUB_KEY], principal_of(request), session_ids=chosen.sessionIds, before=chosen.before
    )
    return web.json_response(structs.asdict(result))


async def get_messages(request: web.Request) -> web.Response:
    """List the finished messages, by default the oldest first."""
    name, span = _session_id(request), page_request(request, read_query(request, PageQuery))
    return page_response(await commands.list_messages(request.app[HUB_KEY], principal_of(request), name, span))


async def get_events(request: web.Request) -> web.StreamResponse:
    """Read the log: a page of it, or a stream from a cursor on.

    With `Accept: text/event-stream` the stream stays open; see docs/api.md for where it begins.
    """
    hub, principal, want = request.app[HUB_KEY], principal_of(request), read_query(request, EventsQuery)
    name = _session_id(request)
    if not wants_stream(request):
        page = await commands.read_events(hub, principal, name, want.afterSeq or 0)
        data = [event_fields(event) for event in page.data]
        place = {"epoch": page.epoch, "seq": page.seq, "floor": page.floor, "more": page.more}
        return web.json_response({"data": data, **place})
    last = read_last_event_id(request)
    epoch, cursor = last if last is not None else (None, want.afterSeq)
    async with EventStream(request) as stream:
        await commands.listen(hub, principal, name, stream.open, cursor, epoch)
        await stream.serve()
    return stream.response


async def _command(request: web.Request, session_id: str) -> Chat:
    limits = limits_of(request)
    body = await bodies.read_fields(request, CHAT_EXAMPLE, limits.chat_bytes)
    key = request.headers.get("Idempotency-Key")
    told = {"sessionId": session_id} | ({"clientMsgId": key} if key is not None else {})
    return convert({**body, **told}, Chat, limits)


async def post_chat(request: web.Request) -> web.StreamResponse:
    """Say a message in a session.

    202 and what it became; with `?wait=true`, or as a stream with `Accept: text/event-stream`, also its answer. With an
    `Idempotency-Key` it runs once, however often it is sent.
    """
    hub, principal = request.app[HUB_KEY], principal_of(request)
    command = await _command(request, _session_id(request))
    wait = read_query(request, ChatQuery).wait
    if wants_stream(request):
        async with EventStream(request) as stream:
            accepted = await commands.stream_chat(hub, principal, command, lambda *_: stream.open())
            await stream.serve_run(accepted.runId)
        return stream.response
    if wait:
        return record_response(await commands.ask(hub, principal, command))
    return web.json_response(notice_fields(await commands.chat(hub, principal, command)), status=202)


async def post_cancel(request: web.Request) -> web.Response:
    """Stop what is being answered.

    All of it, or the run that the body names.
    """
    body = await bodies.read_fields(request, '{"runId":"r1"}')
    command = convert({**body, "sessionId": _session_id(request)}, Cancel, limits_of(request))
    return web.json_response(notice_fields(await commands.cancel(request.app[HUB_KEY], principal_of(request), command)))


async def post_resume(request: web.Request) -> web.Response:
    """Answer a question that a run asked."""
    body = {**await bodies.read_fields(request, Resume.example), "sessionId": _session_id(request)}
    command = convert(body, Resume, limits_of(request))
    return web.json_response(notice_fields(await commands.resume(request.app[HUB_KEY], principal_of(request), command)))


READ_RAISES = (BadId, UnknownSession, StorageUnavailable)
CHAT_RAISES = (UnknownAgent, AgentBroken, IdReused, SessionDeleted, Busy, Draining, StorageUnavailable)
SESSIONS_TAG = "Sessions"
ROUTES = (
    Route(
        method="GET",
        path="/sessions",
        handler=get_sessions,
        tag=SESSIONS_TAG,
        responses={200: PageBody[SessionSummary]},
        query=SessionListQuery,
        raises=(StorageUnavailable,),
    ),
    Route(
        method="POST",
        path="/sessions",
        handler=post_session,
        tag=SESSIONS_TAG,
        responses={200: SessionState, 201: SessionState},
        body=NewSessionBody,
        raises=(SessionDeleted, Draining, StorageUnavailable),
    ),
    Route(
        method="POST",
        path="/sessions/clear",
        handler=post_clear,
        tag=SESSIONS_TAG,
        responses={200: DeletionCount},
        body=ClearBody,
        raises=(Draining, StorageUnavailable),
    ),
    Route(
        method="GET",
        path="/sessions/{id}",
        handler=show_session,
        tag=SESSIONS_TAG,
        responses={200: SessionState},
        raises=READ_RAISES,
    ),
    Route(
        method="PATCH",
        path="/sessions/{id}",
        handler=patch_session,
        tag=SESSIONS_TAG,
        responses={200: SessionState},
        body=LabelBody,
        raises=READ_RAISES,
    ),
    Route(
        method="DELETE",
        path="/sessions/{id}",
        handler=delete_one_session,
        tag=SESSIONS_TAG,
        responses={204: None},
        raises=(*READ_RAISES, Draining),
    ),
    Route(
        method="GET",
        path="/sessions/{id}/messages",
        handler=get_messages,
        tag=SESSIONS_TAG,
        responses={200: PageBody[HistoryMessage]},
        query=PageQuery,
        raises=READ_RAISES,
    ),
    Route(
        method="GET",
        path="/sessions/{id}/events",
        handler=get_events,
        tag=SESSIONS_TAG,
        responses={200: (EventPage, STREAM_CONTENT)},
        query=EventsQuery,
        headers={"Last-Event-ID": LastEventId},
        raises=READ_RAISES,
    ),
    Route(
        method="POST",
        path="/sessions/{id}/chat",
        handler=post_chat,
        tag=SESSIONS_TAG,
        responses={200: (RunOutcome, STREAM_CONTENT), 202: Accepted},
        body=Chat,
        path_fields=("sessionId",),
        query=ChatQuery,
        headers={"Idempotency-Key": Annotated[Id, Meta(description="the message's clientMsgId")]},
        raises=CHAT_RAISES,
    ),
    Route(
        method="POST",
        path="/sessions/{id}/cancel",
        handler=post_cancel,
        tag=SESSIONS_TAG,
        responses={200: Cancelling},
        body=Cancel,
        path_fields=("sessionId",),
        raises=(NotRunning,),
    ),
    Route(
        method="POST",
        path="/sessions/{id}/resume",
        handler=post_resume,
        tag=SESSIONS_TAG,
        responses={200: Ok},
        body=Resume,
        path_fields=("sessionId",),
        raises=(UnknownInterrupt, AlreadyResolved, Draining, StorageUnavailable),
    ),
)

"""HTTP routes of sessions: their list, messages, events, chats, cancels and questions."""

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
    PrincipalQuotaExceeded,
    SessionDeleted,
    StorageUnavailable,
    ToolCallAnswered,
    UnknownAgent,
    UnknownInterrupt,
    UnknownSession,
    UnknownToolCall,
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
from hub.protocols.reading import convert
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
    page_response,
    read_page_request,
    read_session_id,
)
from hub.web.doorkeeper import principal_of
from hub.web.routes import HUB_KEY, STREAM_CONTENT, Route, json_response, limits_of, read_query
from hub.web.sse import EventStream, LastEventId, read_last_event_id, wants_stream

CHAT_EXAMPLE = '{"agentId":"main","message":"hello"}'


async def get_sessions(request: web.Request) -> web.Response:
    """List the sessions, newest message first by default. Filter by agent or time."""
    query = read_query(request, SessionListQuery)
    hub, principal, page_request = request.app[HUB_KEY], principal_of(request), read_page_request(request, query)
    return page_response(
        await commands.list_sessions(
            hub, principal, page_request, agent=query.agentId, since=query.since, until=query.until
        )
    )


async def post_session(request: web.Request) -> web.Response:
    """Create a session.

    If a session with this id exists, the hub does not change it, and the status is 200. Else it is 201.
    """
    session_id = (await bodies.read_body(request, NewSessionBody)).sessionId
    state, is_new = await commands.create_session(request.app[HUB_KEY], principal_of(request), session_id)
    return json_response(state, status=201 if is_new else 200)


async def show_session(request: web.Request) -> web.Response:
    """Show the state of a session: its head, its runs and its open questions."""
    return json_response(
        await commands.get_session(request.app[HUB_KEY], principal_of(request), read_session_id(request))
    )


async def patch_session(request: web.Request) -> web.Response:
    """Change the title or the metadata of a session.

    If the session does not exist, the hub creates it, unless all values are null.
    """
    label = await bodies.read_body(request, LabelBody)
    changes = {name: value for name, value in structs.asdict(label).items() if value is not UNSET}
    if not changes:
        raise BadFrame(f"the body has neither title nor metadata: send for example {LabelBody.example}")
    return json_response(
        await commands.relabel(request.app[HUB_KEY], principal_of(request), read_session_id(request), changes)
    )


async def delete_one_session(request: web.Request) -> web.Response:
    """Delete a session with its messages, events and files, and stop its runs."""
    await commands.delete_session(request.app[HUB_KEY], principal_of(request), read_session_id(request))
    return web.Response(status=204)


async def post_clear(request: web.Request) -> web.Response:
    """Delete many sessions: by id, by the time of their last message, or all."""
    body = await bodies.read_body(request, ClearBody)
    criteria = [value for value in (body.sessionIds, body.before, body.all) if value is not None]
    if len(criteria) != 1 or body.all is False:
        raise BadFrame(f"the body needs exactly one of sessionIds, before, all: send for example {ClearBody.example}")
    result = await commands.clear_sessions(
        request.app[HUB_KEY], principal_of(request), session_ids=body.sessionIds, before=body.before
    )
    return web.json_response(structs.asdict(result))


async def get_messages(request: web.Request) -> web.Response:
    """List the finished messages of a session, oldest first by default."""
    session_id, page_request = read_session_id(request), read_page_request(request, read_query(request, PageQuery))
    return page_response(
        await commands.list_messages(request.app[HUB_KEY], principal_of(request), session_id, page_request)
    )


async def get_events(request: web.Request) -> web.StreamResponse:
    """Read a page of the session's log, or stream its events from a cursor.

    With `Accept: text/event-stream` the response is a stream of server-sent events that stays open. It resumes after
    `Last-Event-ID`, or starts after `afterSeq`. Without a cursor, it starts like a new subscription of a WebSocket.
    """
    hub, principal, query = request.app[HUB_KEY], principal_of(request), read_query(request, EventsQuery)
    session_id = read_session_id(request)
    if not wants_stream(request):
        page = await commands.read_events(hub, principal, session_id, query.afterSeq or 0)
        data = [event_fields(event) for event in page.data]
        position = {"epoch": page.epoch, "seq": page.seq, "floor": page.floor, "more": page.more}
        return web.json_response({"data": data, **position})
    last_event = read_last_event_id(request)
    epoch, cursor = last_event if last_event is not None else (None, query.afterSeq)
    async with EventStream(request) as stream:
        await commands.follow_session(hub, principal, session_id, stream.open, cursor, epoch)
        await stream.serve()
    return stream.response


async def _read_chat(request: web.Request, session_id: str) -> Chat:
    """Return the chat in the body, with the session of the path and the key of the header `Idempotency-Key`."""
    limits = limits_of(request)
    body = await bodies.read_fields(request, CHAT_EXAMPLE, limits.chat_bytes)
    key = request.headers.get("Idempotency-Key")
    fields = {"sessionId": session_id} | ({"clientMsgId": key} if key is not None else {})
    return convert({**body, **fields}, Chat, limits)


async def post_chat(request: web.Request) -> web.StreamResponse:
    """Send a message to an agent in a session.

    The response comes when the message is stored, with the status 202. With `?wait=true` the response comes when the
    run has ended, and has the text of the answer. With `Accept: text/event-stream` the response is a stream of
    the run's events. A request that is repeated with the same `Idempotency-Key` gets the same run.
    """
    hub, principal = request.app[HUB_KEY], principal_of(request)
    command = await _read_chat(request, read_session_id(request))
    wait = read_query(request, ChatQuery).wait
    if wants_stream(request):
        async with EventStream(request) as stream:
            receipt = await commands.stream_chat(hub, principal, command, lambda *_: stream.open())
            await stream.serve_run(receipt.runId)
        return stream.response
    if wait:
        return json_response(await commands.ask(hub, principal, command))
    return web.json_response(notice_fields(await commands.chat(hub, principal, command)), status=202)


async def post_cancel(request: web.Request) -> web.Response:
    """Stop one run of a session, or all its runs."""
    body = await bodies.read_fields(request, '{"runId":"r1"}')
    command = convert({**body, "sessionId": read_session_id(request)}, Cancel, limits_of(request))
    return web.json_response(notice_fields(await commands.cancel(request.app[HUB_KEY], principal_of(request), command)))


async def post_resume(request: web.Request) -> web.Response:
    """Answer an open question of a run."""
    body = {**await bodies.read_fields(request, Resume.example), "sessionId": read_session_id(request)}
    command = convert(body, Resume, limits_of(request))
    return web.json_response(notice_fields(await commands.resume(request.app[HUB_KEY], principal_of(request), command)))


READ_RAISES = (BadId, UnknownSession, StorageUnavailable)
CHAT_RAISES = (
    UnknownAgent,
    UnknownToolCall,
    ToolCallAnswered,
    AgentBroken,
    IdReused,
    SessionDeleted,
    Busy,
    PrincipalQuotaExceeded,
    Draining,
    StorageUnavailable,
)
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
        raises=(*READ_RAISES, SessionDeleted),
    ),
    Route(
        method="DELETE",
        path="/sessions/{id}",
        handler=delete_one_session,
        tag=SESSIONS_TAG,
        responses={204: None},
        raises=(*READ_RAISES, Draining),
        operation="delete_session",
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
        headers={
            "Idempotency-Key": Annotated[Id, Meta(description="The idempotency key of the message, as `clientMsgId`.")]
        },
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

"""HTTP routes of sessions: their list, labels, messages and events."""

from aiohttp import web
from msgspec import UNSET, structs

from hub.commands import table as commands
from hub.errors import (
    BadFrame,
    BadId,
    Draining,
    SessionDeleted,
    StorageUnavailable,
    UnknownSession,
)
from hub.messages import (
    DeletionCount,
    EventPage,
    HistoryMessage,
    SessionState,
    SessionSummary,
)
from hub.protocols.extended import event_fields
from hub.web import bodies
from hub.web.api.session_shapes import (
    SESSIONS_TAG,
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
from hub.web.routes import HUB_KEY, STREAM_CONTENT, Route, json_response, read_query
from hub.web.sse import EventStream, LastEventId, read_last_event_id, wants_stream


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


READ_RAISES = (BadId, UnknownSession, StorageUnavailable)
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
        raises=(*READ_RAISES, Draining),
    ),
)

"""HTTP routes of the commands of a session, which are also commands of the WebSocket."""

from functools import partial
from typing import Annotated, TypeVar

from aiohttp import web
from msgspec import Meta

from hub.commands import table as commands
from hub.errors import (
    AgentBroken,
    AlreadyResolved,
    BadId,
    Busy,
    Draining,
    IdReused,
    NotRunning,
    PrincipalQuotaExceeded,
    RequiresAction,
    SessionDeleted,
    SessionExists,
    StorageUnavailable,
    ToolCallAnswered,
    UnknownAgent,
    UnknownFile,
    UnknownInterrupt,
    UnknownMessage,
    UnknownSession,
    UnknownToolCall,
    WrongMessage,
)
from hub.messages import (
    Accepted,
    Cancel,
    Cancelling,
    Chat,
    Command,
    Edit,
    Fork,
    Id,
    Ok,
    Regenerate,
    Resume,
    RunOutcome,
    SessionState,
    Typing,
)
from hub.protocols.extended import notice_fields
from hub.protocols.reading import convert
from hub.protocols.run_failures import find_failure
from hub.web import bodies
from hub.web.api.session_shapes import SESSIONS_TAG, ChatQuery, read_session_id
from hub.web.doorkeeper import principal_of
from hub.web.loss import while_connected
from hub.web.routes import HUB_KEY, STREAM_CONTENT, ErrorBody, Route, json_response, limits_of, read_query
from hub.web.sse import EventStream, wants_stream

C = TypeVar("C", bound=Command)


async def _read_command(request: web.Request, kind: type[C], example: str, max_bytes: int | None = None) -> C:
    """Return the command in the body, with the session of the path and the key of the header `Idempotency-Key`."""
    body = await bodies.read_fields(request, example, max_bytes)
    key = request.headers.get("Idempotency-Key")
    has_key = key is not None and "clientMsgId" in kind.__struct_fields__
    fields = {"sessionId": read_session_id(request)} | ({"clientMsgId": key} if has_key else {})
    return convert({**body, **fields}, kind, limits_of(request))


async def post_chat(request: web.Request) -> web.StreamResponse:
    """Send a message to an agent in a session.

    The response comes when the message is stored, with the status 202. With `?wait=true` the response comes when the
    run has ended, and has the text of the answer. If the run fails, is stopped or asks a question, it is an error. With
    `Accept: text/event-stream` the response is a stream of the run's events. A request that is repeated with the same
    `Idempotency-Key` gets the same run.
    """
    hub, principal = request.app[HUB_KEY], principal_of(request)
    command = await _read_command(request, Chat, '{"agentId":"main","message":"hello"}', limits_of(request).chat_bytes)
    wait = read_query(request, ChatQuery).wait
    if wants_stream(request):
        async with EventStream(request) as stream:
            receipt = await commands.stream_chat(hub, principal, command, lambda *_: stream.open())
            await stream.serve_run(receipt.runId)
        return stream.response
    if wait:
        return _make_outcome_response(await commands.ask(hub, principal, command, partial(while_connected, request)))
    return web.json_response(notice_fields(await commands.chat(hub, principal, command)), status=202)


def _make_outcome_response(outcome: RunOutcome) -> web.Response:
    failure = find_failure(outcome)
    if failure is None:
        return json_response(outcome)
    body = ErrorBody(
        error=failure.message,
        code=failure.code,
        sessionId=outcome.sessionId,
        runId=outcome.runId,
        messageId=outcome.messageId,
        content=outcome.content,
        stopReason=outcome.stopReason,
        interrupts=outcome.interrupts,
    )
    return json_response(body, status=failure.status)


async def post_cancel(request: web.Request) -> web.Response:
    """Stop one run of a session, or all its runs."""
    command = await _read_command(request, Cancel, '{"runId":"r1"}')
    return web.json_response(notice_fields(await commands.cancel(request.app[HUB_KEY], principal_of(request), command)))


async def post_resume(request: web.Request) -> web.Response:
    """Reply to an open question of an agent. The first reply counts."""
    command = await _read_command(request, Resume, '{"interruptId":"i_1","status":"resolved","payload":true}')
    return web.json_response(notice_fields(await commands.resume(request.app[HUB_KEY], principal_of(request), command)))


async def post_edit(request: web.Request) -> web.Response:
    """Replace a message of a user, and remove the messages after it.

    The response comes when the new message is stored. The agent answers it.
    """
    example, limits = '{"messageId":"m_1","message":"hello"}', limits_of(request)
    command = await _read_command(request, Edit, example, limits.chat_bytes)
    accepted = await commands.edit(request.app[HUB_KEY], principal_of(request), command)
    return web.json_response(notice_fields(accepted), status=202)


async def post_regenerate(request: web.Request) -> web.Response:
    """Have a user's message answered again, and remove the messages after it.

    `messageId` is that message or its answer. The response comes when the new run is stored.
    """
    command = await _read_command(request, Regenerate, '{"messageId":"m_2"}')
    accepted = await commands.regenerate(request.app[HUB_KEY], principal_of(request), command)
    return web.json_response(notice_fields(accepted), status=202)


async def post_fork(request: web.Request) -> web.Response:
    """Create a session with the history of this one, up to and including a message."""
    command = await _read_command(request, Fork, '{"messageId":"m_2"}')
    state = await commands.fork(request.app[HUB_KEY], principal_of(request), command)
    return json_response(state, status=201)


async def post_typing(request: web.Request) -> web.Response:
    """Show the members of a session that the principal is typing."""
    command = Typing(sessionId=read_session_id(request))
    await commands.typing(request.app[HUB_KEY], principal_of(request), command)
    return web.Response(status=204)


FAILURE_STATUSES = (422, 499, 502, 504)  # and those of RUN_RAISES
RUN_RAISES = (
    UnknownAgent,
    UnknownFile,
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
REWRITE_RAISES = (UnknownSession, UnknownMessage, WrongMessage, *RUN_RAISES)
COMMAND_HEADERS = {
    "Idempotency-Key": Annotated[Id, Meta(description="The idempotency key of the command, as `clientMsgId`.")]
}
ROUTES = (
    Route(
        method="POST",
        path="/sessions/{id}/chat",
        handler=post_chat,
        tag=SESSIONS_TAG,
        responses={200: (RunOutcome, STREAM_CONTENT), 202: Accepted} | dict.fromkeys(FAILURE_STATUSES, ErrorBody),
        body=Chat,
        path_fields=("sessionId",),
        query=ChatQuery,
        headers=COMMAND_HEADERS,
        raises=(RequiresAction, *RUN_RAISES),
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
    Route(
        method="POST",
        path="/sessions/{id}/edit",
        handler=post_edit,
        tag=SESSIONS_TAG,
        responses={202: Accepted},
        body=Edit,
        path_fields=("sessionId",),
        headers=COMMAND_HEADERS,
        raises=REWRITE_RAISES,
    ),
    Route(
        method="POST",
        path="/sessions/{id}/regenerate",
        handler=post_regenerate,
        tag=SESSIONS_TAG,
        responses={202: Accepted},
        body=Regenerate,
        path_fields=("sessionId",),
        headers=COMMAND_HEADERS,
        raises=REWRITE_RAISES,
    ),
    Route(
        method="POST",
        path="/sessions/{id}/fork",
        handler=post_fork,
        tag=SESSIONS_TAG,
        responses={201: SessionState},
        body=Fork,
        path_fields=("sessionId",),
        raises=(
            *(UnknownSession, UnknownMessage, WrongMessage, SessionExists, SessionDeleted),
            *(Draining, StorageUnavailable),
        ),
    ),
    Route(
        method="POST",
        path="/sessions/{id}/typing",
        handler=post_typing,
        tag=SESSIONS_TAG,
        responses={204: None},
        raises=(UnknownSession, BadId),
    ),
)

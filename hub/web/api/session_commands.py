"""HTTP routes of the commands of a session: chats, cancels and replies to questions."""

from typing import Annotated

from aiohttp import web
from msgspec import Meta

from hub.commands import table as commands
from hub.errors import (
    AgentBroken,
    AlreadyResolved,
    Busy,
    Draining,
    IdReused,
    NotRunning,
    PrincipalQuotaExceeded,
    RequiresAction,
    SessionDeleted,
    StorageUnavailable,
    ToolCallAnswered,
    UnknownAgent,
    UnknownInterrupt,
    UnknownToolCall,
)
from hub.messages import Accepted, Cancel, Cancelling, Chat, Id, Ok, Resume, RunOutcome
from hub.protocols.extended import notice_fields
from hub.protocols.reading import convert
from hub.protocols.run_failures import find_failure
from hub.web import bodies
from hub.web.api.session_shapes import SESSIONS_TAG, ChatQuery, read_session_id
from hub.web.doorkeeper import principal_of
from hub.web.routes import HUB_KEY, STREAM_CONTENT, ErrorBody, Route, json_response, limits_of, read_query
from hub.web.sse import EventStream, wants_stream

CHAT_EXAMPLE = '{"agentId":"main","message":"hello"}'


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
    run has ended, and has the text of the answer; if the run fails or asks a question, the response is an error. With
    `Accept: text/event-stream` the response is a stream of the run's events. A request that is repeated with the same
    `Idempotency-Key` gets the same run.
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
        return _make_outcome_response(await commands.ask(hub, principal, command))
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
    body = await bodies.read_fields(request, '{"runId":"r1"}')
    command = convert({**body, "sessionId": read_session_id(request)}, Cancel, limits_of(request))
    return web.json_response(notice_fields(await commands.cancel(request.app[HUB_KEY], principal_of(request), command)))


async def post_resume(request: web.Request) -> web.Response:
    """Answer an open question of a run."""
    body = {**await bodies.read_fields(request, Resume.example), "sessionId": read_session_id(request)}
    command = convert(body, Resume, limits_of(request))
    return web.json_response(notice_fields(await commands.resume(request.app[HUB_KEY], principal_of(request), command)))


FAILURE_STATUSES = (422, 499, 502, 504)  # and those of CHAT_RAISES
CHAT_RAISES = (
    UnknownAgent,
    UnknownToolCall,
    ToolCallAnswered,
    AgentBroken,
    IdReused,
    RequiresAction,
    SessionDeleted,
    Busy,
    PrincipalQuotaExceeded,
    Draining,
    StorageUnavailable,
)
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

"""HTTP routes of OpenAI's chat completions: an agent is a model, and the request has the complete conversation."""

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import wraps
from time import time
from typing import Annotated, Any

import msgspec
import orjson
from aiohttp import web

from hub.commands import table as commands
from hub.commands.client import ClientHandle
from hub.commands.complete import AnswerChunks
from hub.errors import (
    AgentBroken,
    AgentError,
    Busy,
    Draining,
    HubError,
    IdReused,
    SessionDeleted,
    StorageUnavailable,
    UnknownAgent,
)
from hub.messages import Chat, Id, PageRequest, Usage
from hub.protocols import openai_chat as mapping
from hub.protocols.openai_chat import CompletionRequest, OpenAIError, OpenAIStream
from hub.protocols.openai_shapes import ChatCompletion, OpenAIErrorBody, OpenAIModelList
from hub.protocols.splitting import split_text
from hub.web import bodies
from hub.web.doorkeeper import principal_of
from hub.web.loss import watch_connection
from hub.web.routes import API_PREFIX, HUB_KEY, STREAM_CONTENT, Handler, Route, limits_of, refuse_http_1_0
from hub.web.sse import EventStream


def with_openai_errors(handler: Handler) -> Handler:
    """Return a handler that reports errors in OpenAI's form."""

    @wraps(handler)
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except (OpenAIError, HubError, AgentError, TimeoutError) as error:
            refusal = mapping.openai_error_of(error)
            return web.json_response(refusal.body, status=refusal.status)
        except ConnectionError:
            return web.Response(status=499)  # the client is gone: nobody reads this

    return handle


@with_openai_errors
async def get_models(request: web.Request) -> web.Response:
    """List the working agents as OpenAI lists models."""
    page = await commands.list_agents(request.app[HUB_KEY], principal_of(request), PageRequest(sys.maxsize))
    return web.json_response(mapping.model_list([agent.agentId for agent in page.rows if agent.status == "ok"]))


@with_openai_errors
async def post_completion(request: web.Request) -> web.StreamResponse:
    """Answer a conversation in the form of OpenAI's chat completions.

    With `stream` the response is a stream of server-sent events that ends with `[DONE]`. If the client disconnects, the
    agent is stopped. In a session the run continues.
    """
    hub, principal, limits = request.app[HUB_KEY], principal_of(request), limits_of(request)
    body = await bodies.read_fields(request, CompletionRequest.example, limits.conversation_bytes)
    completion = mapping.read_completion(body, request.headers)
    if completion.stream:
        refuse_http_1_0(request)
    message, past = mapping.split_conversation(completion.messages)
    if completion.sessionId is not None:
        key = completion.clientMsgId
        command = Chat(message=message, agentId=completion.model, sessionId=completion.sessionId, clientMsgId=key)
        return await _in_session(request, completion, command)
    name = f"chatcmpl-{secrets.token_hex(12)}"
    async with await commands.complete(hub, principal, completion.model, name, message, past) as pieces:
        if completion.stream:
            return await _stream(request, completion, name, pieces)
        async with _while_connected(request):
            return await _answer_at_once(completion, name, pieces)


@asynccontextmanager
async def _while_connected(request: web.Request) -> AsyncIterator[None]:
    """Raise TimeoutError inside this context when the client disconnects.

    Without this, a disconnect would be noticed only at the next write, and a silent agent writes nothing.
    """

    def stop() -> None:
        if not scope.expired():
            scope.reschedule(asyncio.get_running_loop().time())

    async with asyncio.timeout(None) as scope:
        with watch_connection(request, stop):
            yield


async def _answer_at_once(completion: CompletionRequest, name: str, pieces: AnswerChunks) -> web.Response:
    texts, reason = [], "end_turn"
    usage: Usage | None = None
    async for piece in pieces:
        if isinstance(piece, str):
            texts.append(piece)
        else:
            reason, usage = piece.reason, piece.usage
    return web.json_response(mapping.completion_body(completion.model, name, "".join(texts), reason, usage))


async def _stream(
    request: web.Request, completion: CompletionRequest, name: str, pieces: AnswerChunks
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    head, reason = mapping.chunk_head(name, int(time()), completion.model), "end_turn"
    usage: Usage | None = None
    try:
        async with _while_connected(request):
            piece = await anext(pieces, None)  # before the first output an error can still set the status
            await response.prepare(request)
            await _say(request, response, mapping.delta_chunk(head, mapping.FIRST_DELTA))
            while piece is not None:
                if not isinstance(piece, str):
                    reason, usage = piece.reason, piece.usage
                else:
                    for text in split_text(piece, limits_of(request).out_frame_bytes // 2):
                        await _say(request, response, mapping.delta_chunk(head, {"content": text}))
                piece = await anext(pieces, None)
        for fields in mapping.final_chunks(head, reason, usage, completion.wants_usage):
            await _say(request, response, fields)
    except (AgentError, TimeoutError) as error:
        if not response.prepared:
            raise
        await _say(request, response, mapping.openai_error_of(error).body)
    await _write(request, response, mapping.STREAM_END)
    return response


async def _say(request: web.Request, response: web.StreamResponse, fields: dict[str, Any]) -> None:
    await _write(request, response, b"data: " + orjson.dumps(fields) + b"\n\n")


async def _write(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    """Write with backpressure. Raises ConnectionError, and aborts, if the client reads nothing for `stuck_seconds`."""
    try:
        async with asyncio.timeout(limits_of(request).stuck_seconds):
            await response.write(data)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the client reads nothing") from None


async def _in_session(request: web.Request, completion: CompletionRequest, command: Chat) -> web.StreamResponse:
    """Chat in a session: the hub has the history, and a disconnect does not stop the run."""
    hub, principal = request.app[HUB_KEY], principal_of(request)
    if completion.stream:
        async with EventStream(request) as stream:

            async def opener(run_id: str, is_whole: bool) -> ClientHandle:
                return await stream.open(OpenAIStream(completion.model, run_id, completion.wants_usage))

            receipt = await commands.stream_chat(hub, principal, command, opener)
            await stream.serve_run(receipt.runId)
        return stream.response
    outcome = await commands.ask(hub, principal, command)
    if outcome.error is not None:
        raise AgentError(outcome.error.message, outcome.error.code)
    if outcome.stopReason is None:
        raise mapping.dropped_answer_error()
    name = f"chatcmpl-{outcome.runId}"
    return web.json_response(
        mapping.completion_body(completion.model, name, outcome.content, outcome.stopReason, outcome.usage)
    )


OPENAI_TAG = "OpenAI"
OPENAI_PREFIXES = (API_PREFIX, "/v1")  # OpenAI's clients use the second by default
ROUTES = (
    Route(
        method="POST",
        path="/chat/completions",
        handler=post_completion,
        tag=OPENAI_TAG,
        responses={200: (ChatCompletion, STREAM_CONTENT)} | dict.fromkeys((422, 499, 500, 502, 504), OpenAIErrorBody),
        body=CompletionRequest,
        headers={
            mapping.SESSION_HEADER: Annotated[
                Id, msgspec.Meta(description="The session to chat in, as `sessionId` in the body.")
            ],
            mapping.KEY_HEADER: Annotated[
                Id, msgspec.Meta(description="In a session: the idempotency key, as `clientMsgId` in the body.")
            ],
        },
        raises=(UnknownAgent, AgentBroken, IdReused, SessionDeleted, Busy, Draining, StorageUnavailable),
        error_body=OpenAIErrorBody,
        prefixes=OPENAI_PREFIXES,
    ),
    Route(
        method="GET",
        path="/models",
        handler=get_models,
        tag=OPENAI_TAG,
        responses={200: OpenAIModelList},
        error_body=OpenAIErrorBody,
        prefixes=OPENAI_PREFIXES,
    ),
)

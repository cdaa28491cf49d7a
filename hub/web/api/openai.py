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
from hub.commands.complete import AnswerChunks, Conversation
from hub.errors import (
    AgentBroken,
    AgentError,
    Busy,
    Draining,
    HubError,
    IdReused,
    PrincipalQuotaExceeded,
    SessionDeleted,
    StorageUnavailable,
    UnknownAgent,
    UnknownSession,
)
from hub.messages import Body, Chat, Id, PageRequest, Past, Usage
from hub.protocols import openai_chat
from hub.protocols.openai_chat import CompletionRequest, OpenAIError, OpenAIStream
from hub.protocols.openai_shapes import ChatCompletion, OpenAIErrorBody, OpenAIModelList
from hub.protocols.splitting import split_text
from hub.web import bodies
from hub.web.doorkeeper import principal_of
from hub.web.loss import watch_connection
from hub.web.routes import (
    API_PREFIX,
    HUB_KEY,
    STREAM_CONTENT,
    Handler,
    Route,
    limits_of,
    make_error_headers,
    refuse_http_1_0,
)
from hub.web.sse import EventStream


def make_openai_response(error: Exception) -> web.Response:
    """Return the response for a HubError, an AgentError or a TimeoutError, in OpenAI's form."""
    openai_error = openai_chat.openai_error_of(error)
    headers = make_error_headers(error) if isinstance(error, HubError) else None
    return web.json_response(openai_error.body, status=openai_error.status, headers=headers)


def with_openai_errors(handler: Handler) -> Handler:
    """Return a handler that reports errors in OpenAI's form."""

    @wraps(handler)
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except (OpenAIError, HubError, AgentError, TimeoutError) as error:
            if isinstance(error, HubError):
                request.app[HUB_KEY].counters.door.refusals[error.code] += 1
            return make_openai_response(error)
        except ConnectionError:
            return web.Response(status=499)  # the client has disconnected, and reads no response

    return handle


@with_openai_errors
async def get_models(request: web.Request) -> web.Response:
    """List the working agents as OpenAI lists models."""
    page = await commands.list_agents(request.app[HUB_KEY], principal_of(request), PageRequest(sys.maxsize))
    return web.json_response(openai_chat.model_list([agent.agentId for agent in page.rows if agent.status == "ok"]))


@with_openai_errors
async def post_completion(request: web.Request) -> web.StreamResponse:
    """Answer a conversation in the form of OpenAI's chat completions.

    With `stream` the response is a stream of server-sent events that ends with `[DONE]`. If the client disconnects, the
    hub stops the agent. In a session, the run continues without the client.
    """
    hub, principal, limits = request.app[HUB_KEY], principal_of(request), limits_of(request)
    body = await bodies.read_fields(request, CompletionRequest.example, limits.conversation_bytes)
    completion = openai_chat.read_completion(body, request.headers)
    if completion.stream:
        refuse_http_1_0(request)
    message, history = openai_chat.split_conversation(completion.messages)
    if completion.sessionId is not None:
        key = completion.clientMsgId
        command = Chat(message=message, agentId=completion.model, sessionId=completion.sessionId, clientMsgId=key)
        return await _answer_in_session(request, completion, command)
    completion_id = f"chatcmpl-{secrets.token_hex(12)}"
    past = [Past(role, content) for role, content in history]
    conversation = Conversation(run_id=completion_id, message=message, history=past)
    async with await commands.complete(hub, principal, completion.model, conversation) as chunks:
        if completion.stream:
            return await _stream_answer(request, completion, completion_id, chunks)
        async with _while_connected(request):
            return await _collect_answer(completion, completion_id, chunks)


@asynccontextmanager
async def _while_connected(request: web.Request) -> AsyncIterator[None]:
    """Cancel the code in this context when the client disconnects. The context then raises TimeoutError.

    aiohttp reports a disconnect only at the next write, and the hub writes nothing while the agent is silent.
    """

    def stop() -> None:
        if not scope.expired():
            scope.reschedule(asyncio.get_running_loop().time())

    async with asyncio.timeout(None) as scope:
        with watch_connection(request, stop):
            yield


async def _collect_answer(completion: CompletionRequest, completion_id: str, chunks: AnswerChunks) -> web.Response:
    """Wait for the complete answer, and return it as one response."""
    texts, reason = [], "end_turn"
    usage: Usage | None = None
    async for chunk in chunks:
        if isinstance(chunk, str):
            texts.append(chunk)
        elif not isinstance(chunk, Body):
            reason, usage = chunk.reason, chunk.usage
    return web.json_response(
        openai_chat.completion_body(completion.model, completion_id, "".join(texts), reason, usage)
    )


async def _stream_answer(
    request: web.Request, completion: CompletionRequest, completion_id: str, chunks: AnswerChunks
) -> web.StreamResponse:
    """Write the answer as server-sent events while it grows.

    An error of the agent before the first output is raised; a later one is written as an event. Raises ConnectionError
    if the client does not read, or has disconnected.
    """
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    head, reason = openai_chat.chunk_head(completion_id, int(time()), completion.model), "end_turn"
    usage: Usage | None = None
    try:
        async with _while_connected(request):
            chunk = await anext(chunks, None)  # before prepare(): an error can still set the status
            await response.prepare(request)
            await _write_event(request, response, openai_chat.delta_chunk(head, openai_chat.FIRST_DELTA))
            while chunk is not None:
                if isinstance(chunk, str):
                    for text in split_text(chunk, limits_of(request).out_frame_bytes // 2):
                        await _write_event(request, response, openai_chat.delta_chunk(head, {"content": text}))
                elif not isinstance(chunk, Body):
                    reason, usage = chunk.reason, chunk.usage
                chunk = await anext(chunks, None)
        for fields in openai_chat.final_chunks(head, reason, usage, completion.wants_usage):
            await _write_event(request, response, fields)
    except (AgentError, TimeoutError) as error:
        if not response.prepared:
            raise
        await _write_event(request, response, openai_chat.openai_error_of(error).body)
    await _write(request, response, openai_chat.STREAM_END)
    return response


async def _write_event(request: web.Request, response: web.StreamResponse, fields: dict[str, Any]) -> None:
    await _write(request, response, b"data: " + orjson.dumps(fields) + b"\n\n")


async def _write(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    """Write with backpressure.

    If the client does not read for `stuck_seconds`, abort the connection and raise ConnectionError.
    """
    try:
        async with asyncio.timeout(limits_of(request).stuck_seconds):
            await response.write(data)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the client reads nothing") from None


async def _answer_in_session(request: web.Request, completion: CompletionRequest, command: Chat) -> web.StreamResponse:
    """Chat in a session: the hub has the history, and a disconnect does not stop the run."""
    hub, principal = request.app[HUB_KEY], principal_of(request)
    if completion.stream:
        async with EventStream(request) as stream:

            async def open_stream(run_id: str, is_whole: bool) -> ClientHandle:
                return await stream.open(OpenAIStream(completion.model, run_id, completion.wants_usage))

            receipt = await commands.stream_chat(hub, principal, command, open_stream)
            await stream.serve_run(receipt.runId)
        return stream.response
    outcome = await commands.ask(hub, principal, command)
    if outcome.error is not None:
        raise AgentError(outcome.error.message, outcome.error.code)
    if outcome.stopReason is None:
        raise openai_chat.dropped_answer_error()
    completion_id = f"chatcmpl-{outcome.runId}"
    return web.json_response(
        openai_chat.completion_body(completion.model, completion_id, outcome.content, outcome.stopReason, outcome.usage)
    )


OPENAI_TAG = "OpenAI"
OPENAI_PREFIXES = (API_PREFIX, "/v1")  # by default, OpenAI's clients use /v1
ROUTES = (
    Route(
        method="POST",
        path="/chat/completions",
        handler=post_completion,
        tag=OPENAI_TAG,
        responses={200: (ChatCompletion, STREAM_CONTENT)} | dict.fromkeys((422, 499, 500, 502, 504), OpenAIErrorBody),
        body=CompletionRequest,
        headers={
            openai_chat.SESSION_HEADER: Annotated[
                Id, msgspec.Meta(description="The session to chat in, as `sessionId` in the body.")
            ],
            openai_chat.KEY_HEADER: Annotated[
                Id, msgspec.Meta(description="In a session: the idempotency key, as `clientMsgId` in the body.")
            ],
        },
        raises=(
            UnknownAgent,
            UnknownSession,
            AgentBroken,
            IdReused,
            SessionDeleted,
            Busy,
            PrincipalQuotaExceeded,
            Draining,
            StorageUnavailable,
        ),
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

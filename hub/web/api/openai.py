"""The routes of OpenAI's chat completions: an agent is a model, and the messages given are the whole conversation."""

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
from hub.commands.complete import Pieces
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
from hub.protocols.cutting import split_text
from hub.protocols.openai_chat import CompletionRequest, OpenAIError, OpenAIStream
from hub.protocols.openai_shapes import ChatCompletion, OpenAIErrorBody, OpenAIModelList
from hub.web import bodies
from hub.web.doorkeeper import principal_of
from hub.web.loss import watch_connection
from hub.web.routes import API_PREFIX, HUB_KEY, STREAM_CONTENT, Handler, Route, limits_of, refuse_http_1_0
from hub.web.sse import EventStream


def with_openai_errors(handler: Handler) -> Handler:
    """Say the handler's errors as OpenAI does."""

    @wraps(handler)
    async def wrapped(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except (OpenAIError, HubError, AgentError, TimeoutError) as error:
            refusal = mapping.openai_error_of(error)
            return web.json_response(refusal.body, status=refusal.status)
        except ConnectionError:
            return web.Response(status=499)  # nobody hears it: the client has gone

    return wrapped


@with_openai_errors
async def get_models(request: web.Request) -> web.Response:
    """List the agents that work, as OpenAI lists models."""
    hosted = await commands.list_agents(request.app[HUB_KEY], principal_of(request), PageRequest(sys.maxsize))
    return web.json_response(mapping.model_list([agent.agentId for agent in hosted.rows if agent.status == "ok"]))


@with_openai_errors
async def post_completion(request: web.Request) -> web.StreamResponse:
    """Answer a conversation as OpenAI's chat completions do.

    Whole, or with `stream` as server-sent events that end with `[DONE]`. A client that goes away stops the agent, but
    not in a session.
    """
    hub, principal, limits = request.app[HUB_KEY], principal_of(request), limits_of(request)
    body = await bodies.read_fields(request, CompletionRequest.example, limits.conversation_bytes)
    asked = mapping.read_completion(body, request.headers)
    if asked.stream:
        refuse_http_1_0(request)
    message, past = mapping.split_conversation(asked.messages)
    if asked.sessionId is not None:
        key = asked.clientMsgId
        command = Chat(message=message, agentId=asked.model, sessionId=asked.sessionId, clientMsgId=key)
        return await _in_session(request, asked, command)
    name = f"chatcmpl-{secrets.token_hex(12)}"
    async with await commands.complete(hub, principal, asked.model, name, message, past) as pieces:
        if asked.stream:
            return await _stream(request, asked, name, pieces)
        async with _while_heard(request):
            return await _whole(asked, name, pieces)


@asynccontextmanager
async def _while_heard(request: web.Request) -> AsyncIterator[None]:
    """Raise TimeoutError inside this context when the client is gone.

    An agent that says nothing cannot notice that nobody hears it any more.
    """

    def stop() -> None:
        if not scope.expired():
            scope.reschedule(asyncio.get_running_loop().time())

    async with asyncio.timeout(None) as scope:
        with watch_connection(request, stop):
            yield


async def _whole(asked: CompletionRequest, name: str, pieces: Pieces) -> web.Response:
    texts, reason = [], "end_turn"
    usage: Usage | None = None
    async for piece in pieces:
        if isinstance(piece, str):
            texts.append(piece)
        else:
            reason, usage = piece.reason, piece.usage
    return web.json_response(mapping.completion_body(asked.model, name, "".join(texts), reason, usage))


async def _stream(request: web.Request, asked: CompletionRequest, name: str, pieces: Pieces) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    head, reason = mapping.chunk_head(name, int(time()), asked.model), "end_turn"
    usage: Usage | None = None
    try:
        async with _while_heard(request):
            piece = await anext(pieces, None)  # what fails before it can still be told by its status
            await response.prepare(request)
            await _say(request, response, mapping.delta_chunk(head, mapping.FIRST_DELTA))
            while piece is not None:
                if not isinstance(piece, str):
                    reason, usage = piece.reason, piece.usage
                else:
                    for text in split_text(piece, limits_of(request).out_frame_bytes // 2):
                        await _say(request, response, mapping.delta_chunk(head, {"content": text}))
                piece = await anext(pieces, None)
        for fields in mapping.final_chunks(head, reason, usage, asked.wants_usage):
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
    """Write as the client takes it; one that takes nothing for `stuck_seconds` is cut off: raises ConnectionError."""
    try:
        async with asyncio.timeout(limits_of(request).stuck_seconds):
            await response.write(data)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the client reads nothing") from None


async def _in_session(request: web.Request, asked: CompletionRequest, command: Chat) -> web.StreamResponse:
    """Ask in a session: the hub has its history, all there hear the answer, and it goes on where this client goes."""
    hub, principal = request.app[HUB_KEY], principal_of(request)
    if asked.stream:
        async with EventStream(request) as stream:

            async def opener(run_id: str, is_whole: bool) -> ClientHandle:
                return await stream.open(OpenAIStream(asked.model, run_id, asked.wants_usage))

            accepted = await commands.stream_chat(hub, principal, command, opener)
            await stream.serve_run(accepted.runId)
        return stream.response
    said = await commands.ask(hub, principal, command)
    if said.error is not None:
        raise AgentError(said.error.message, said.error.code)
    if said.stopReason is None:
        raise mapping.dropped_answer_error()
    name = f"chatcmpl-{said.runId}"
    return web.json_response(mapping.completion_body(asked.model, name, said.content, said.stopReason, said.usage))


OPENAI_TAG = "OpenAI"
OPENAI_PREFIXES = (API_PREFIX, "/v1")  # the latter is where OpenAI's clients look by default
ROUTES = (
    Route(
        method="POST",
        path="/chat/completions",
        handler=post_completion,
        tag=OPENAI_TAG,
        responses={200: (ChatCompletion, STREAM_CONTENT)} | dict.fromkeys((422, 499, 500, 502, 504), OpenAIErrorBody),
        body=CompletionRequest,
        headers={
            mapping.SESSION_HEADER: Annotated[Id, msgspec.Meta(description="the sessionId of the body")],
            mapping.KEY_HEADER: Annotated[Id, msgspec.Meta(description="in a session, the message's clientMsgId")],
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

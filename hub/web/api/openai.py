"""OpenAI's chat completions: an agent is a model, and the messages given are the whole conversation.

The shapes are those of OpenAI's API reference (chat completions, models, errors).
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from time import time
from typing import Annotated, Any, cast

import msgspec
import orjson
from aiohttp import web

from hub.access.doors import principal
from hub.delivery.connection import Connection
from hub.errors import AgentBroken, AgentError, Busy, Draining, SessionDeleted, StorageUnavailable, UnknownAgent
from hub.hosting.calls import answer
from hub.hosting.contract import Finish
from hub.hosting.hosted import Agent
from hub.messages import Chat, Chunk, Event, Id, RunError, RunFinished, RunStarted, Usage, WholeMessage
from hub.node.node import Node
from hub.protocols.sse import OneRun, chunk
from hub.web.api.openai_requests import Completion, conversation, in_openai_form, read, refused
from hub.web.api.openai_shapes import ChatCompletion, Models, OpenAIError
from hub.web.api.outcomes import outcome
from hub.web.clients import NODE
from hub.web.routes import BASE, STREAM, Route
from hub.web.sse import stream

LOOK_SECONDS = 0.5  # how often a silent answer is looked at: its client may have gone
REASONS = {"end_turn": "stop", "max_tokens": "length"}
BEGIN = {"role": "assistant", "content": ""}


@in_openai_form
async def models(request: web.Request) -> web.Response:
    """List the agents that work, as OpenAI lists models."""
    hosted = [agent.id for agent in request.app[NODE].agents.all() if not agent.error]
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "hubbub"} for name in hosted]
    return web.json_response({"object": "list", "data": data})


@in_openai_form
async def completions(request: web.Request) -> web.StreamResponse:
    """Answer a conversation as OpenAI's chat completions do.

    Whole, or with `stream` as server-sent events that end with `[DONE]`. A client that goes away stops the agent, but
    not in a session.
    """
    node = request.app[NODE]
    node.refuse_if_draining()
    asked = await read(request)
    message, history = conversation(asked.messages)
    agent = node.agents.get(asked.model)
    if asked.sessionId is not None:
        return await _in_session(request, asked, asked.sessionId, agent, message)
    name = f"chatcmpl-{secrets.token_hex(12)}"
    said = answer(node.agents, agent, name, message, history, principal(request), node.settings.limits.call_depth)
    async with _place(node, agent), aclosing(cast(Any, said)) as pieces:
        if asked.stream:
            return await _stream(request, asked, name, pieces)
        async with _while_heard(request):
            return await _whole(asked, name, pieces, node.settings.limits.run_bytes)


@asynccontextmanager
async def _place(node: Node, agent: Agent) -> AsyncIterator[None]:
    """Count against the agent's limit while it answers; raises Busy."""
    if agent.full:
        raise Busy(f"agent {agent.id} gives as many answers as it may: try again later")
    agent.working += 1
    try:
        yield
    finally:
        agent.working -= 1
        node.freed(agent)


@asynccontextmanager
async def _while_heard(request: web.Request) -> AsyncIterator[None]:
    """Raise TimeoutError in what is done here where it takes too long, or its client has gone.

    aiohttp does not tell a handler that its client has gone; nor can an agent that says nothing notice.
    """

    async def watch() -> None:
        while request.transport is not None and not request.transport.is_closing():
            await asyncio.sleep(LOOK_SECONDS)
        scope.reschedule(asyncio.get_running_loop().time())

    async with asyncio.timeout(request.app[NODE].settings.limits.run_seconds) as scope:
        watcher = asyncio.create_task(watch())
        try:
            yield
        finally:
            watcher.cancel()


async def _whole(asked: Completion, name: str, pieces: AsyncIterator[str | Finish], most: int) -> web.Response:
    texts, finish, size = [], Finish(), 0
    async for piece in pieces:
        if isinstance(piece, Finish):
            finish = piece
            continue
        texts.append(piece)
        size += len(piece)
        if size > most:
            raise AgentError(f"agent {asked.model} said more than {most >> 20} MiB in one answer", "answer_too_long")
    return _completion(asked.model, name, "".join(texts), finish)


def _completion(model: str, name: str, text: str, finish: Finish) -> web.Response:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None,
        "finish_reason": REASONS[finish.reason],
    }
    head = {"id": name, "object": "chat.completion", "created": int(time()), "model": model}
    return web.json_response({**head, "choices": [choice], "usage": _usage(finish.usage)})


def _usage(usage: Usage | None) -> dict[str, int] | None:
    """Return the tokens that the agent's model counted; None where nobody did."""
    if usage is None:
        return None
    said, heard = usage.outputTokens, usage.inputTokens
    return {"prompt_tokens": heard, "completion_tokens": said, "total_tokens": heard + said}


async def _stream(
    request: web.Request, asked: Completion, name: str, pieces: AsyncIterator[str | Finish]
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    head, finish = _head(name, int(time()), asked.model), Finish()

    try:
        async with _while_heard(request):
            piece = await anext(pieces, None)  # what fails before it can still be told by its status
            await response.prepare(request)
            await _say(response, _delta(head, BEGIN))
            while piece is not None:
                if isinstance(piece, Finish):
                    finish = piece
                elif piece:
                    await _say(response, _delta(head, {"content": piece}))
                piece = await anext(pieces, None)
        for fields in _end(head, REASONS[finish.reason], finish.usage, asked.wants_usage):
            await _say(response, fields)
    except (AgentError, TimeoutError) as error:
        if not response.prepared:
            raise
        await _say(response, refused(error).body)
    await response.write(b"data: [DONE]\n\n")
    return response


async def _say(response: web.StreamResponse, fields: dict[str, Any]) -> None:
    await response.write(b"data: " + orjson.dumps(fields) + b"\n\n")


# --- chunks -----------------------------------------------------------------------------------------------------------


def _head(name: str, created: int, model: str) -> dict[str, Any]:
    """Return what all chunks of an answer begin with."""
    return {"id": name, "object": "chat.completion.chunk", "created": created, "model": model}


def _delta(head: dict[str, Any], delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]}


def _end(head: dict[str, Any], reason: str, usage: Usage | None, wants_usage: bool) -> list[dict[str, Any]]:
    end = [_delta(head, {}, reason)]
    return [*end, {**head, "choices": [], "usage": _usage(usage)}] if wants_usage else end


# --- in a session -----------------------------------------------------------------------------------------------------


async def _in_session(
    request: web.Request, asked: Completion, session_id: str, agent: Agent, message: str
) -> web.StreamResponse:
    """Ask in a session: the hub has its history, all there hear the answer, and it goes on where this client goes."""
    node = request.app[NODE]
    async with node.use(session_id) as session:
        accepted = await session.chat(Chat(message=message, agentId=agent.id), principal(request), agent)
        if asked.stream:

            async def begin(connection: Connection) -> None:
                node.registry.subscribe(connection, session.channel, accepted.seq - 1)

            protocol = OneAnswer(asked.model, accepted.runId, asked.wants_usage)
            return await stream(request, begin, lambda: session.finished(accepted.runId), protocol)
        await session.finished(accepted.runId)
        said = await outcome(node, session, accepted)
    if "error" in said:
        raise AgentError(said["error"]["message"], said["error"]["code"])
    usage_ = Usage(**said["usage"]) if "usage" in said else None
    finish = Finish("max_tokens" if said.get("stopReason") == "max_tokens" else "end_turn", usage_)
    return _completion(asked.model, f"chatcmpl-{accepted.runId}", said["content"], finish)


class OneAnswer(OneRun):
    """The chunks of one run as OpenAI's clients read them."""

    def __init__(self, model: str, run_id: str, wants_usage: bool) -> None:
        super().__init__(run_id)
        self.model, self.wants_usage = model, wants_usage

    def said(self, event: Event, body: Any) -> list[dict[str, Any]]:
        head = _head(f"chatcmpl-{event.runId}", event.ts // 1000, self.model)
        if isinstance(body, RunStarted):
            return [_delta(head, BEGIN)]
        if isinstance(body, (Chunk, WholeMessage)):
            return [_delta(head, {"content": body.content})]
        if isinstance(body, RunError):
            return [refused(AgentError(body.message, body.code)).body]
        if isinstance(body, RunFinished):
            return _end(head, REASONS.get(body.stopReason, "stop"), body.usage, self.wants_usage)
        return []

    def event(self, event: Event) -> bytes:
        ended = event.runId == self.run_id and isinstance(event.body, RunFinished)
        return super().event(event) + (chunk(b"data: [DONE]\n\n") if ended else b"")


TAG = "OpenAI"
BASES = (BASE, "/v1")  # the latter is where OpenAI's clients look by default
ROUTES = (
    Route(
        "POST",
        "/chat/completions",
        completions,
        TAG,
        {200: (ChatCompletion, STREAM), 500: OpenAIError, 504: OpenAIError},
        body=Completion,
        headers={"X-Session-Id": Annotated[Id, msgspec.Meta(description="the sessionId of the body")]},
        raises=(UnknownAgent, AgentBroken, SessionDeleted, Busy, Draining, StorageUnavailable),
        failure=OpenAIError,
        bases=BASES,
    ),
    Route("GET", "/models", models, TAG, {200: Models}, failure=OpenAIError, bases=BASES),
)

"""OpenAI's chat completions: an agent is a model, and the messages given are the whole conversation.

The shapes are those of OpenAI's API reference (chat completions, models, errors).
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import wraps
from time import time
from typing import Annotated, Any, ClassVar, cast

import msgspec
import orjson
from aiohttp import web

from hub.agent import Finish, Past
from hub.api import BASE, STREAM, Handler, Route, bodies
from hub.api.openai_shapes import ChatCompletion, Models, OpenAIError
from hub.api.sessions import outcome
from hub.auth import principal
from hub.calls import answer
from hub.clients import NODE
from hub.connection import Connection
from hub.errors import AgentBroken, AgentError, Busy, Draining, HubError, StorageUnavailable, UnknownAgent
from hub.loading import Agent
from hub.messages import Chat, Chunk, Event, Id, RunError, RunFinished, RunStarted, Usage, WholeMessage
from hub.node import Node
from hub.protocols.reading import LIMITS
from hub.protocols.sse import OneRun, chunk
from hub.sse import stream

LOOK_SECONDS = 0.5  # how often a silent answer is looked at: its client may have gone
REASONS = {"end_turn": "stop", "max_tokens": "length"}
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
# What would change the answer if it were passed over, and the value that asks for nothing.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "functions": (None, []),
    "n": (None, 1),
    "logprobs": (None, False),
    "audio": (None,),
    "modalities": (None, ["text"]),
    "response_format": (None, {"type": "text"}),
}


class Refusal(Exception):
    """An error in OpenAI's form: `{"error": {"message", "type", "param", "code"}}`."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


class Part(msgspec.Struct):
    """One part of a message's content; only text has a meaning here."""

    type: Annotated[str, msgspec.Meta(extra_json_schema={"enum": ["text"]})]
    text: str | None = None


class Turn(msgspec.Struct):
    """One message of the conversation."""

    role: Annotated[str, msgspec.Meta(examples=["user"], extra_json_schema={"enum": list(ROLES)})]
    content: Annotated[str | list[Part] | None, msgspec.Meta(examples=["hello"])] = None


class StreamOptions(msgspec.Struct):
    """What a stream says beside the answer."""

    include_usage: bool = False


class Completion(msgspec.Struct):
    """The body of a request; what it has beside these is ignored, or refused by UNSUPPORTED."""

    example: ClassVar[str] = '{"model":"main","messages":[{"role":"user","content":"hello"}]}'
    model: Annotated[str, msgspec.Meta(examples=["main"])]
    messages: Annotated[list[Turn], msgspec.Meta(extra_json_schema={"minItems": 1})]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    sessionId: Id | None = None


def in_openai_form(handler: Handler) -> Handler:
    """Say the handler's errors as OpenAI does."""

    @wraps(handler)
    async def wrapped(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except (Refusal, HubError, AgentError, TimeoutError, web.HTTPRequestEntityTooLarge) as error:
            refusal = refused(error)
            return web.json_response(refusal.body, status=refusal.status)
        except ConnectionError:
            return web.Response(status=499)  # nobody hears it: the client has gone

    return wrapped


def refused(error: Exception) -> Refusal:
    """Return what a client is told of an error."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, UnknownAgent):
        return Refusal(404, "invalid_request_error", error.message, "model", "model_not_found")
    if isinstance(error, Busy):
        return Refusal(429, "rate_limit_error", error.message, None, error.code)
    if isinstance(error, HubError):
        kind = "invalid_request_error" if error.status < 500 else "server_error"
        return Refusal(error.status, kind, error.message, None, error.code)
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return Refusal(413, "invalid_request_error", "the request is too large", None, "request_entity_too_large")
    if isinstance(error, AgentError):
        return Refusal(500, "server_error", error.message, None, error.code)
    return Refusal(504, "server_error", "the answer took longer than the hub allows", None, "timeout")


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
    asked = await _asked(request)
    message, history = _conversation(asked.messages)
    agent = node.agents.get(asked.model)
    if asked.sessionId is not None:
        return await _in_session(request, asked, asked.sessionId, agent, message)
    name = f"chatcmpl-{secrets.token_hex(12)}"
    said = answer(node.agents, agent, name, message, history, principal(request), LIMITS.call_depth)
    async with _place(node, agent), aclosing(cast(Any, said)) as pieces:
        if asked.stream:
            return await _stream(request, asked, name, pieces)
        async with _while_heard(request):
            return await _whole(asked, name, pieces, node.settings.limits.run_bytes)


async def _asked(request: web.Request) -> Completion:
    body = await bodies.fields(request, Completion.example, LIMITS.conversation_bytes)
    for param, harmless in UNSUPPORTED.items():
        if body.get(param) not in harmless:
            raise Refusal(
                400,
                "invalid_request_error",
                f"{param} is not supported here: leave it out",
                param,
                "unsupported_parameter",
            )
    try:
        named = request.headers.get("X-Session-Id")
        return msgspec.convert(body if named is None else {**body, "sessionId": named}, Completion)
    except msgspec.ValidationError as wrong:
        raise Refusal(400, "invalid_request_error", str(wrong)) from None


def _conversation(turns: list[Turn]) -> tuple[str, list[Past]]:
    """Return the message to answer, and what was said before it."""
    past = []
    for at, turn in enumerate(turns):
        if turn.role not in ROLES:
            raise Refusal(
                400, "invalid_request_error", f"role {turn.role[:40]!r} is not supported here", f"messages[{at}].role"
            )
        past.append(Past(cast(Any, ROLES[turn.role]), _text(turn, at)))
    if not past or past[-1].role != "user":
        raise Refusal(400, "invalid_request_error", "the last message must be the user's", "messages")
    return past[-1].content, past[:-1]


def _text(turn: Turn, at: int) -> str:
    if not isinstance(turn.content, list):
        return turn.content or ""
    wrong = next((part.type for part in turn.content if part.type != "text"), None)
    if wrong is not None:
        raise Refusal(
            400,
            "invalid_request_error",
            f"content of type {wrong[:40]!r} is not supported here",
            f"messages[{at}].content",
        )
    return "".join(part.text or "" for part in turn.content)


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
    return web.json_response({**head, "choices": [choice], "usage": _usage(finish)})


def _usage(finish: Finish) -> dict[str, int] | None:
    """Return the tokens that the agent's model counted; None where nobody did."""
    if finish.usage is None:
        return None
    said, heard = finish.usage.outputTokens, finish.usage.inputTokens
    return {"prompt_tokens": heard, "completion_tokens": said, "total_tokens": heard + said}


async def _stream(
    request: web.Request, asked: Completion, name: str, pieces: AsyncIterator[str | Finish]
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    head = {"id": name, "object": "chat.completion.chunk", "created": int(time()), "model": asked.model}

    async def say(fields: dict[str, Any]) -> None:
        await response.write(b"data: " + orjson.dumps(fields) + b"\n\n")

    async def delta(delta: dict[str, str], reason: str | None = None) -> None:
        await say({**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]})

    finish = Finish()
    try:
        async with _while_heard(request):
            piece = await anext(pieces, None)  # what fails before it can still be told by its status
            await response.prepare(request)
            await delta({"role": "assistant", "content": ""})
            while piece is not None:
                if isinstance(piece, Finish):
                    finish = piece
                elif piece:
                    await delta({"content": piece})
                piece = await anext(pieces, None)
        await delta({}, REASONS[finish.reason])
        if asked.stream_options is not None and asked.stream_options.include_usage:
            await say({**head, "choices": [], "usage": _usage(finish)})
    except (AgentError, TimeoutError) as error:
        if not response.prepared:
            raise
        await say(refused(error).body)
    await response.write(b"data: [DONE]\n\n")
    return response


# --- in a session -----------------------------------------------------------------------------------------------------


async def _in_session(
    request: web.Request, asked: Completion, session_id: str, agent: Agent, message: str
) -> web.StreamResponse:
    """Ask in a session: the hub has its history, all there hear the answer, and it goes on where this client goes."""
    node = request.app[NODE]
    async with node.use(session_id) as session:
        accepted = await session.chat(Chat(message=message, agentId=agent.id), principal(request), agent)
        if asked.stream:
            usage = asked.stream_options is not None and asked.stream_options.include_usage

            async def begin(connection: Connection) -> None:
                node.registry.subscribe(connection, session.channel, accepted.seq - 1)

            protocol = OneAnswer(asked.model, accepted.runId, usage)
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

    def __init__(self, model: str, run_id: str, usage: bool) -> None:
        super().__init__(run_id)
        self.model, self.usage = model, usage

    def said(self, event: Event, body: Any) -> list[dict[str, Any]]:
        if isinstance(body, RunStarted):
            return [self._delta(event, {"role": "assistant", "content": ""})]
        if isinstance(body, (Chunk, WholeMessage)):
            return [self._delta(event, {"content": body.content})]
        if isinstance(body, RunError):
            return [refused(AgentError(body.message, body.code)).body]
        if not isinstance(body, RunFinished):
            return []
        end = [self._delta(event, {}, REASONS.get(body.stopReason, "stop"))]
        usage = _usage(Finish(usage=body.usage))
        return [*end, {**self._head(event), "choices": [], "usage": usage}] if self.usage else end

    def event(self, event: Event) -> bytes:
        ended = event.runId == self.run_id and isinstance(event.body, RunFinished)
        return super().event(event) + (chunk(b"data: [DONE]\n\n") if ended else b"")

    def _delta(self, event: Event, delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**self._head(event), "choices": [choice]}

    def _head(self, event: Event) -> dict[str, Any]:
        name = f"chatcmpl-{event.runId}"
        return {"id": name, "object": "chat.completion.chunk", "created": event.ts // 1000, "model": self.model}


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
        raises=(UnknownAgent, AgentBroken, Busy, Draining, StorageUnavailable),
        failure=OpenAIError,
        bases=BASES,
    ),
    Route("GET", "/models", models, TAG, {200: Models}, failure=OpenAIError, bases=BASES),
)

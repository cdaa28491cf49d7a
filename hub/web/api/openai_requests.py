"""What OpenAI's clients ask for, and how they are refused: by the reference of chat completions and of errors."""

from functools import wraps
from typing import Annotated, Any, ClassVar, cast

import msgspec
from aiohttp import web

from hub.errors import AgentError, Busy, HubError, UnknownAgent
from hub.hosting.contract import Past
from hub.messages import Id
from hub.web import bodies
from hub.web.clients import limits_of
from hub.web.routes import Handler

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

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


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


async def read(request: web.Request) -> Completion:
    """Return what is asked; raises Refusal where the hub cannot do it."""
    body = await bodies.fields(request, Completion.example, limits_of(request).conversation_bytes)
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


def conversation(turns: list[Turn]) -> tuple[str, list[Past]]:
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

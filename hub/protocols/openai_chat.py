"""OpenAI's chat completions, by its API reference: what clients ask for, and how they are answered and refused."""

from collections.abc import Mapping
from time import time
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import orjson

from hub.errors import AgentError, Busy, HubError, UnknownAgent
from hub.ids import quote
from hub.messages import Chunk, Event, Id, Notice, Reset, RunError, RunFinished, RunStarted, Usage, WholeMessage
from hub.protocols.reading import split_error
from hub.protocols.sse import OneRun, chunk

Role = Literal["system", "user", "assistant"]
ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
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
# What each end of an answer is called.
REASONS: dict[str, str] = {
    "end_turn": "stop",
    "max_tokens": "length",
    "refused": "content_filter",
    "tool_calls": "tool_calls",
}
# The ends that are no answer, each with its HTTP status and what the client is told.
EARLY_ENDS: dict[str, tuple[int, str]] = {
    "timeout": (504, "the answer took longer than the hub allows"),
    "cancelled": (499, "the answer was stopped"),
    "aborted": (503, "the answer ended with the hub"),
}
# The HTTP status of an agent's error by its code. All others are 422, which OpenAI's clients do not send again.
STATUS: dict[str, int] = {
    "agent_broken": 503,
    "storage_unavailable": 503,
    "timeout": 504,
    "aborted": 503,
    "model_aborted": 502,
    "model_rate_limited": 429,
    "model_timeout": 504,
    "model_unavailable": 503,
    "model_unreachable": 502,
}
BEGIN = {"role": "assistant", "content": ""}
DONE = b"data: [DONE]\n\n"


# --- what is asked ----------------------------------------------------------------------------------------------------


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
    clientMsgId: Id | None = None  # of the message, in a session

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


# Headers for fields of the body. The key counts only with a session: clients send it with other requests, too.
SESSION_HEADER, KEY_HEADER = "X-Session-Id", "Idempotency-Key"


def read_completion(body: dict[str, Any], headers: Mapping[str, str]) -> Completion:
    """Return the request of a body and its headers. Raises Refusal for a request that the hub cannot fulfil."""
    for param, harmless in UNSUPPORTED.items():
        if body.get(param) not in harmless:
            text = f"{param} is not supported here: leave it out"
            raise Refusal(400, "invalid_request_error", text, param, "unsupported_parameter")
    if SESSION_HEADER in headers:
        body = {**body, "sessionId": headers[SESSION_HEADER]}
    if KEY_HEADER in headers and body.get("sessionId") is not None:
        body = {**body, "clientMsgId": headers[KEY_HEADER]}
    try:
        return msgspec.convert(body, Completion)
    except msgspec.ValidationError as wrong:
        expected, field = split_error(wrong, Completion)
        raise Refusal(400, "invalid_request_error", expected, field or None) from None


def conversation(turns: list[Turn]) -> tuple[str, list[tuple[Role, str]]]:
    """Return the message to answer, and the role and text of those before it; raises Refusal."""
    past: list[tuple[Role, str]] = []
    for at, turn in enumerate(turns):
        if turn.role not in ROLES:
            text = f"role {quote(turn.role)} is not supported here"
            raise Refusal(400, "invalid_request_error", text, f"messages[{at}].role")
        past.append((ROLES[turn.role], _text(turn, at)))
    if not past or past[-1][0] != "user":
        raise Refusal(400, "invalid_request_error", "the last message must be the user's", "messages")
    return past[-1][1], past[:-1]


def _text(turn: Turn, at: int) -> str:
    if not isinstance(turn.content, list):
        return turn.content or ""
    wrong = next((part.type for part in turn.content if part.type != "text"), None)
    if wrong is not None:
        text = f"content of type {quote(wrong)} is not supported here"
        raise Refusal(400, "invalid_request_error", text, f"messages[{at}].content")
    return "".join(part.text or "" for part in turn.content)


# --- what is refused --------------------------------------------------------------------------------------------------


class Refusal(Exception):
    """An error in OpenAI's form: `{"error": {"message", "type", "param", "code"}}`."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


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
    if isinstance(error, AgentError):
        status = STATUS.get(error.code, 422)
        kind = "rate_limit_error" if status == 429 else "server_error"
        return Refusal(status, kind, error.message, None, error.code)
    return early_end("timeout")


def early_end(reason: str) -> Refusal:
    """Return what a client is told of an answer that was ended before its end."""
    status, message = EARLY_ENDS[reason]
    return Refusal(status, "server_error", message, None, reason)


def gone() -> Refusal:
    """Return what a client is told that asks for an answer again whose events were dropped."""
    text = "the answer to this message is not kept any more: send the message under another key"
    return Refusal(422, "invalid_request_error", text, None, "answer_gone")


# --- what is answered -------------------------------------------------------------------------------------------------


def models(names: list[str]) -> dict[str, Any]:
    """Return agents as a list of models."""
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "hubbub"} for name in names]
    return {"object": "list", "data": data}


def completion(model: str, name: str, text: str, reason: str, usage: Usage | None) -> dict[str, Any]:
    """Return a whole answer; raises Refusal where *reason*, the run's stop reason, says that it is none."""
    if reason in EARLY_ENDS:
        raise early_end(reason)
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None,
        "finish_reason": REASONS.get(reason, "stop"),
    }
    head = {"id": name, "object": "chat.completion", "created": int(time()), "model": model}
    return {**head, "choices": [choice], "usage": _usage(usage)}


def _usage(usage: Usage | None) -> dict[str, int] | None:
    """Return the tokens that the agent's model counted; None where nobody did, as OpenAI's clients take no half."""
    if usage is None or usage.inputTokens is None or usage.outputTokens is None:
        return None
    said, heard = usage.outputTokens, usage.inputTokens
    return {"prompt_tokens": heard, "completion_tokens": said, "total_tokens": heard + said}


def head(name: str, created: int, model: str) -> dict[str, Any]:
    """Return what all chunks of an answer begin with."""
    return {"id": name, "object": "chat.completion.chunk", "created": created, "model": model}


def delta(head: dict[str, Any], content: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    """Return one chunk."""
    return {**head, "choices": [{"index": 0, "delta": content, "logprobs": None, "finish_reason": reason}]}


def end(head: dict[str, Any], reason: str, usage: Usage | None, wants_usage: bool) -> list[dict[str, Any]]:
    """Return the last chunks; *reason* is the run's stop reason, and `error` was told already."""
    if reason in EARLY_ENDS:
        return [early_end(reason).body]
    if reason == "error":
        return []
    last = [delta(head, {}, REASONS.get(reason, "stop"))]
    return [*last, {**head, "choices": [], "usage": _usage(usage)}] if wants_usage else last


class OneAnswer(OneRun):
    """The chunks of one run as OpenAI's clients read them."""

    def __init__(self, model: str, run_id: str, wants_usage: bool) -> None:
        super().__init__(run_id)
        self.model, self.wants_usage = model, wants_usage

    def said(self, event: Event, body: Any) -> list[dict[str, Any]]:
        begin = head(f"chatcmpl-{event.runId}", event.ts // 1000, self.model)
        if isinstance(body, RunStarted):
            return [delta(begin, BEGIN)]
        if isinstance(body, (Chunk, WholeMessage)):
            return [delta(begin, {"content": body.content})]
        if isinstance(body, RunError):
            return [refused(AgentError(body.message, body.code)).body]
        if isinstance(body, RunFinished):
            return end(begin, body.stopReason, body.usage, self.wants_usage)
        return []

    def answer(self, notice: Notice) -> bytes:
        if not isinstance(notice, Reset):
            return b""
        return chunk(b"data: %b\n\n" % orjson.dumps(gone().body)) + chunk(DONE)

    def event(self, event: Event) -> bytes:
        ended = event.runId == self.run_id and isinstance(event.body, RunFinished)
        return super().event(event) + (chunk(DONE) if ended else b"")

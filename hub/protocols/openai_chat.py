"""OpenAI's chat completions, as in its API reference: requests, response bodies, errors and streams."""

from collections.abc import Mapping
from time import time
from typing import Annotated, Any, ClassVar

import msgspec
import orjson

from hub.errors import AgentError, HubError, PrincipalQuotaExceeded, Unauthenticated, UnknownAgent
from hub.ids import quote
from hub.messages import Chunk, Event, Id, Notice, Reset, Role, RunError, RunFinished, RunStarted, Usage, WholeMessage
from hub.protocols.reading import split_error
from hub.protocols.sse import RunStream, http_chunk

OPENAI_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
# Parameters that change the form of the answer, and that the hub does not support. Only the listed values, which change
# nothing, are accepted.
UNSUPPORTED_PARAMETERS: dict[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "functions": (None, []),
    "n": (None, 1),
    "logprobs": (None, False),
    "audio": (None,),
    "modalities": (None, ["text"]),
    "response_format": (None, {"type": "text"}),
}
# OpenAI's `finish_reason` by the hub's stop reason.
OPENAI_FINISH_REASONS: dict[str, str] = {
    "end_turn": "stop",
    "max_tokens": "length",
    "refused": "content_filter",
    "tool_calls": "tool_calls",
}
# The stop reasons of runs that were stopped before their end, with the HTTP status and the error text for clients.
EARLY_ENDS: dict[str, tuple[int, str]] = {
    "timeout": (504, "the answer took longer than the hub allows: try again, or ask for less"),
    "cancelled": (499, "the answer was stopped before its end"),
    "aborted": (503, "the hub stopped before the end of the answer: try again"),
}
# The HTTP status by the code of an agent's error. Other codes get 422, after which OpenAI's clients do not retry.
AGENT_ERROR_STATUS: dict[str, int] = {
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
FIRST_DELTA = {"role": "assistant", "content": ""}
STREAM_END = b"data: [DONE]\n\n"


# --- requests ---------------------------------------------------------------------------------------------------------


class ContentPart(msgspec.Struct):
    """One part of a message's content; only text is supported."""

    type: Annotated[str, msgspec.Meta(extra_json_schema={"enum": ["text"]})]
    text: str | None = None


class ConversationMessage(msgspec.Struct):
    """One message of the conversation."""

    role: Annotated[str, msgspec.Meta(examples=["user"], extra_json_schema={"enum": list(OPENAI_ROLES)})]
    content: Annotated[str | list[ContentPart] | None, msgspec.Meta(examples=["hello"])] = None


class StreamOptions(msgspec.Struct):
    """Options of a stream."""

    include_usage: bool = False


class CompletionRequest(msgspec.Struct):
    """The body of a request. Other parameters of OpenAI are ignored, or refused if they change the answer's form."""

    example: ClassVar[str] = '{"model":"main","messages":[{"role":"user","content":"hello"}]}'
    model: Annotated[str, msgspec.Meta(examples=["main"])]
    messages: Annotated[list[ConversationMessage], msgspec.Meta(extra_json_schema={"minItems": 1})]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    sessionId: Id | None = None
    clientMsgId: Id | None = None  # the idempotency key of the message; used only with a sessionId

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


# Headers for sessionId and clientMsgId. OpenAI's clients may send an idempotency key with every request. Without a
# session, the key is ignored.
SESSION_HEADER, KEY_HEADER = "X-Session-Id", "Idempotency-Key"


def read_completion(body: dict[str, Any], headers: Mapping[str, str]) -> CompletionRequest:
    """Return the request in a body and its headers. Raises OpenAIError if it is malformed or not supported."""
    for param, neutral_values in UNSUPPORTED_PARAMETERS.items():
        if body.get(param) not in neutral_values:
            text = f"the hub does not support this value of {param}: leave {param} out"
            raise OpenAIError(400, "invalid_request_error", text, param, "unsupported_parameter")
    if SESSION_HEADER in headers:
        body = {**body, "sessionId": headers[SESSION_HEADER]}
    if KEY_HEADER in headers and body.get("sessionId") is not None:
        body = {**body, "clientMsgId": headers[KEY_HEADER]}
    try:
        return msgspec.convert(body, CompletionRequest)
    except msgspec.ValidationError as error:
        problem, field = split_error(error, CompletionRequest)
        raise OpenAIError(400, "invalid_request_error", problem, field or None) from None


def split_conversation(messages: list[ConversationMessage]) -> tuple[str, list[tuple[Role, str]]]:
    """Return the text of the last message, and the role and text of each earlier one.

    Raises OpenAIError for a role or content that is not supported, or if the last message is not a user's.
    """
    texts: list[tuple[Role, str]] = []
    for index, message in enumerate(messages):
        if message.role not in OPENAI_ROLES:
            text = f"the hub does not support the role {quote(message.role)}: use one of {', '.join(OPENAI_ROLES)}"
            raise OpenAIError(400, "invalid_request_error", text, f"messages[{index}].role")
        texts.append((OPENAI_ROLES[message.role], _join_text(message, index)))
    if not texts or texts[-1][0] != "user":
        text = 'the last message must have the role "user": the agent answers it'
        raise OpenAIError(400, "invalid_request_error", text, "messages")
    return texts[-1][1], texts[:-1]


def _join_text(message: ConversationMessage, index: int) -> str:
    if not isinstance(message.content, list):
        return message.content or ""
    wrong_type = next((part.type for part in message.content if part.type != "text"), None)
    if wrong_type is not None:
        text = f"the hub does not support content of the type {quote(wrong_type)}: send parts of the type text"
        raise OpenAIError(400, "invalid_request_error", text, f"messages[{index}].content")
    return "".join(part.text or "" for part in message.content)


# --- errors -----------------------------------------------------------------------------------------------------------


class OpenAIError(Exception):
    """An error with OpenAI's body: `{"error": {"message", "type", "param", "code"}}`."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def openai_error_of(error: Exception) -> OpenAIError:
    """Convert a HubError, an AgentError or a TimeoutError to an OpenAIError. An OpenAIError is returned unchanged."""
    if isinstance(error, OpenAIError):
        return error
    if isinstance(error, UnknownAgent):
        return OpenAIError(404, "invalid_request_error", error.message, "model", "model_not_found")
    if isinstance(error, Unauthenticated):
        return OpenAIError(401, "invalid_request_error", error.message, None, "invalid_api_key")
    if isinstance(error, PrincipalQuotaExceeded):
        return OpenAIError(429, "insufficient_quota", error.message, None, error.code)
    if isinstance(error, HubError):
        kind = "rate_limit_error" if error.status == 429 else "invalid_request_error"
        kind = kind if error.status < 500 else "server_error"
        return OpenAIError(error.status, kind, error.message, None, error.code)
    if isinstance(error, AgentError):
        status = AGENT_ERROR_STATUS.get(error.code, 422)
        kind = "rate_limit_error" if status == 429 else "server_error"
        return OpenAIError(status, kind, error.message, None, error.code)
    return early_end_error("timeout")


def early_end_error(reason: str) -> OpenAIError:
    """Return the error for a stop reason of EARLY_ENDS."""
    status, message = EARLY_ENDS[reason]
    return OpenAIError(status, "server_error", message, None, reason)


def dropped_answer_error() -> OpenAIError:
    """Return the error for a repeated idempotency key whose answer retention has deleted."""
    text = "the hub no longer stores the answer to this message: send the message with another idempotency key"
    return OpenAIError(422, "invalid_request_error", text, None, "answer_gone")


# --- responses --------------------------------------------------------------------------------------------------------


def model_list(names: list[str]) -> dict[str, Any]:
    """Return the body that lists agents as models."""
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "hubbub"} for name in names]
    return {"object": "list", "data": data}


def completion_body(model: str, completion_id: str, text: str, stop_reason: str, usage: Usage | None) -> dict[str, Any]:
    """Return the body of a complete answer; raises OpenAIError for a stop reason of EARLY_ENDS."""
    if stop_reason in EARLY_ENDS:
        raise early_end_error(stop_reason)
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None,
        "finish_reason": OPENAI_FINISH_REASONS.get(stop_reason, "stop"),
    }
    head = {"id": completion_id, "object": "chat.completion", "created": int(time()), "model": model}
    return {**head, "choices": [choice], "usage": _usage(usage)}


def _usage(usage: Usage | None) -> dict[str, int] | None:
    """Return OpenAI's token counts, or None if a count is unknown: OpenAI's clients require both counts."""
    if usage is None or usage.inputTokens is None or usage.outputTokens is None:
        return None
    prompt, answer = usage.inputTokens, usage.outputTokens
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def chunk_head(completion_id: str, created: int, model: str) -> dict[str, Any]:
    """Return the fields that all chunks of an answer share."""
    return {"id": completion_id, "object": "chat.completion.chunk", "created": created, "model": model}


def delta_chunk(head: dict[str, Any], delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    """Return one chunk of an answer."""
    return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]}


def final_chunks(
    head: dict[str, Any], stop_reason: str, usage: Usage | None, wants_usage: bool
) -> list[dict[str, Any]]:
    """Return the last chunks of an answer, or an error for a stop reason of EARLY_ENDS.

    For the stop reason `error`, return nothing: the error was sent before.
    """
    if stop_reason in EARLY_ENDS:
        return [early_end_error(stop_reason).body]
    if stop_reason == "error":
        return []
    end_chunk = delta_chunk(head, {}, OPENAI_FINISH_REASONS.get(stop_reason, "stop"))
    return [end_chunk, {**head, "choices": [], "usage": _usage(usage)}] if wants_usage else [end_chunk]


class OpenAIStream(RunStream):
    """One run of a session as a stream of OpenAI's chunks."""

    def __init__(self, model: str, run_id: str, wants_usage: bool) -> None:
        super().__init__(run_id)
        self.model, self.wants_usage = model, wants_usage

    def translate(self, event: Event, body: Any) -> list[dict[str, Any]]:
        head = chunk_head(f"chatcmpl-{event.runId}", event.ts // 1000, self.model)
        if isinstance(body, RunStarted):
            return [delta_chunk(head, FIRST_DELTA)]
        if isinstance(body, (Chunk, WholeMessage)):
            return [delta_chunk(head, {"content": body.content})]
        if isinstance(body, RunError):
            return [openai_error_of(AgentError(body.message, body.code)).body]
        if isinstance(body, RunFinished):
            return final_chunks(head, body.stopReason, body.usage, self.wants_usage)
        return []

    def answer(self, notice: Notice) -> bytes:
        if not isinstance(notice, Reset):
            return b""
        return http_chunk(b"data: %b\n\n" % orjson.dumps(dropped_answer_error().body)) + http_chunk(STREAM_END)

    def event(self, event: Event) -> bytes:
        is_end = event.runId == self.run_id and isinstance(event.body, RunFinished)
        return super().event(event) + (http_chunk(STREAM_END) if is_end else b"")

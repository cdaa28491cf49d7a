"""OpenAI's chat completions, as in its API reference: the bodies of answers, and their streams."""

from time import time
from typing import Any

import attrs
import orjson

from hub.errors import AgentError
from hub.messages import (
    TOKEN_BYTES,
    Event,
    Interrupt,
    Notice,
    Reset,
    RunError,
    RunFinished,
    RunStarted,
    Usage,
    make_open_question,
)
from hub.protocols.openai_deltas import DeltaMaker, count_message_bytes
from hub.protocols.openai_errors import convert_failure, early_end_error, openai_error_of
from hub.protocols.run_failures import EARLY_ENDS, make_dropped_failure, make_question_failure
from hub.protocols.sse import RunStream, escape_separators, http_chunk

# OpenAI's `finish_reason` by the hub's stop reason.
OPENAI_FINISH_REASONS: dict[str, str] = {
    "end_turn": "stop",
    "max_tokens": "length",
    "refused": "content_filter",
    "tool_calls": "tool_calls",
}
FIRST_DELTA = {"role": "assistant", "content": ""}
STREAM_END = b"data: [DONE]\n\n"


def format_chunk(fields: dict[str, Any]) -> bytes:
    """Return one chunk of a stream as a server-sent event, without the framing of HTTP."""
    return b"data: %b\n\n" % escape_separators(orjson.dumps(fields))


def model_body(name: str) -> dict[str, Any]:
    """Return an agent as a model."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "hubbub"}


def model_list(names: list[str]) -> dict[str, Any]:
    """Return the body that lists agents as models."""
    return {"object": "list", "data": [model_body(name) for name in names]}


def usage_body(usage: Usage | None, prompt_bytes: int, answer_bytes: int) -> dict[str, int]:
    """Return OpenAI's token counts. A count that the agent does not report is an estimate from the bytes of the text.

    `estimated` is the number of estimated tokens. It is left out if there are none.
    """
    counts = (usage.inputTokens, usage.outputTokens) if usage is not None else (None, None)
    estimates = [-(-size // TOKEN_BYTES) for size in (prompt_bytes, answer_bytes)]
    prompt, answer = [guess if count is None else count for count, guess in zip(counts, estimates, strict=True)]
    estimated = sum(guess for count, guess in zip(counts, estimates, strict=True) if count is None)
    body = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
    return body | ({"estimated": estimated} if estimated else {})


@attrs.frozen(kw_only=True)
class AnswerForm:
    """What a request says about its answer. *prompt_bytes* is the size of its messages, for estimates of tokens.

    *tool_names* are the client's tools. Calls of other tools are the agent's own business.
    """

    model: str
    wants_usage: bool = False
    prompt_bytes: int = 0
    tool_names: frozenset[str] = frozenset()


def completion_body(
    form: AnswerForm, completion_id: str, message: dict[str, Any], stop_reason: str, counts: dict[str, int]
) -> dict[str, Any]:
    """Return the body of a complete answer. *counts* is its usage."""
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": OPENAI_FINISH_REASONS.get(stop_reason, "stop"),
    }
    head = {"id": completion_id, "object": "chat.completion", "created": int(time()), "model": form.model}
    return {**head, "choices": [choice], "usage": counts}


def chunk_head(completion_id: str, created: int, model: str) -> dict[str, Any]:
    """Return the fields that all chunks of an answer share."""
    return {"id": completion_id, "object": "chat.completion.chunk", "created": created, "model": model}


def delta_chunk(head: dict[str, Any], delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    """Return one chunk of an answer."""
    return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]}


def final_chunks(head: dict[str, Any], stop_reason: str, counts: dict[str, int] | None) -> list[dict[str, Any]]:
    """Return the last chunks of an answer, or an error for a stop reason of EARLY_ENDS.

    If the request asks for the usage, *counts* has it. For the stop reason `error`, return nothing: the error was sent
    before.
    """
    if stop_reason in EARLY_ENDS:
        return [early_end_error(stop_reason).body]
    if stop_reason == "error":
        return []
    end_chunk = delta_chunk(head, {}, OPENAI_FINISH_REASONS.get(stop_reason, "stop"))
    return [end_chunk] if counts is None else [end_chunk, {**head, "choices": [], "usage": counts}]


class OpenAIStream(RunStream):
    """One run of a session as a stream of OpenAI's chunks."""

    def __init__(self, form: AnswerForm, run_id: str) -> None:
        super().__init__(run_id)
        self.form = form
        self._deltas = DeltaMaker(tool_names=form.tool_names)
        self._counted_seq = self._answer_bytes = 0

    def translate(self, event: Event, body: Any) -> list[dict[str, Any]]:
        head = chunk_head(f"chatcmpl-{event.runId}", event.ts // 1000, self.form.model)
        if isinstance(body, RunStarted):
            return [delta_chunk(head, FIRST_DELTA)]
        if isinstance(body, RunError):
            return [openai_error_of(AgentError(body.message, body.code)).body]
        if isinstance(body, RunFinished):
            counts = usage_body(body.usage, self.form.prompt_bytes, self._answer_bytes)
            return final_chunks(head, body.stopReason, counts if self.form.wants_usage else None)
        if isinstance(body, Interrupt):
            question = make_open_question(self.run_id, body)
            failure = make_question_failure(event.sessionId, question)
            error = convert_failure(failure, [question], sessionId=event.sessionId, runId=self.run_id)
            return [error.body] if event.seq == self.end_seq else []
        delta = self._deltas.make(body)
        return [] if delta is None else [delta_chunk(head, delta)]

    def answer(self, notice: Notice) -> bytes:
        if not isinstance(notice, Reset):
            return b""
        return http_chunk(format_chunk(convert_failure(make_dropped_failure()).body)) + http_chunk(STREAM_END)

    def event(self, event: Event) -> bytes:
        self.note_question(event)
        if event.runId != self.run_id or (self.end_seq is not None and event.seq > self.end_seq):
            return b""
        if event.seq > self._counted_seq and (delta := self._deltas.make(event.body)) is not None:
            # An event may be translated twice, when delivery starts anew from the log.
            self._counted_seq, self._answer_bytes = event.seq, self._answer_bytes + count_message_bytes(delta)
        is_end = isinstance(event.body, RunFinished) or event.seq == self.end_seq
        return super().event(event) + (http_chunk(STREAM_END) if is_end else b"")

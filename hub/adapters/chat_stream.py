"""Read the answer of an endpoint: chunks as server-sent events, or one complete body."""

import json
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import aiohttp
import attrs

from hub.adapters.chat_calls import ToolCalls, calls_of
from hub.adapters.chat_delta import DeltaKind, delta_of, read_texts
from hub.adapters.chat_errors import (
    RequestFacts,
    abort_error,
    find_error,
    stream_error,
    truncated_error,
    wrong_address_error,
)
from hub.adapters.chat_reasons import END_REASONS, normalize_reason
from hub.adapters.chat_surrogates import SurrogateJoiner
from hub.adapters.chat_usage import TokenCounts
from hub.adapters.sse import ServerSentEvent, SSEDecoder
from hub.hosting.contract import AgentOutput, Finish
from hub.messages import Reasoning

END_MARK = "[DONE]"
JSON_START = re.compile(r"\[?\s*\{")  # Gemini's endpoint sends an error in a list
LEADING_BLANKS = b"\xef\xbb\xbf \t\r\n"  # before a body; the first three bytes are a byte order mark
MAX_BODY_BYTES = 16 * 1024 * 1024  # the limit of one event, and of a body that is not a stream


async def read_answer(stream: aiohttp.StreamReader, reader: "AnswerReader") -> AsyncGenerator[AgentOutput, None]:
    """Yield the endpoint's output, then its Finish.

    Raises AgentError if the endpoint
    failed, or if its stream ended too early. Raises ValueError for invalid JSON, and for an event or a body that is too
    long. Raises RecursionError for JSON that is nested too deeply. Raises ClientError or TimeoutError if the connection
    failed before the `finish_reason`.
    """
    try:
        async with aclosing(decode_events(stream)) as events:
            async for event in events:
                for output in reader.read(event):
                    yield output
                if reader.is_done:
                    break
    except (aiohttp.ClientError, TimeoutError):
        if not reader.reason:  # the finish_reason ends the answer: a connection that breaks later changes nothing
            raise
    for output in reader.end():
        yield output


async def decode_events(stream: aiohttp.StreamReader) -> AsyncGenerator[ServerSentEvent, None]:
    """Yield the events of a body, whatever its Content-Type. A JSON body is one event.

    Raises WrongAddress for HTML, and ValueError for an event or a JSON body that is longer than MAX_BODY_BYTES.
    """
    decoder, has_begun = SSEDecoder(MAX_BODY_BYTES), False
    async for data in stream.iter_any():
        if not has_begun:
            data = data.lstrip(LEADING_BLANKS)
            has_begun = bool(data)
            if data.startswith(b"<"):
                raise wrong_address_error()
            if data.startswith((b"{", b"[")):
                body = data + await _read_rest(stream, len(data))
                yield ServerSentEvent(body.decode(errors="replace"), is_body=True)
                return
        for event in decoder.feed(data):
            yield event
    for event in decoder.end():
        yield event


async def _read_rest(stream: aiohttp.StreamReader, size: int) -> bytes:
    body = bytearray()
    async for data in stream.iter_any():
        body += data
        if size + len(body) > MAX_BODY_BYTES:
            raise ValueError(f"a body is longer than {MAX_BODY_BYTES} bytes")
    return bytes(body)


def parse_documents(data: str) -> list[Any]:
    """Return the JSON documents of an event, and END_MARK for `[DONE]`.

    Other text is a keep-alive: it has no documents. Some endpoints send no empty lines between their events; then each
    line is a document. Raises ValueError for invalid JSON, and RecursionError for JSON that is nested too deeply.
    """
    text = data.strip()
    if text == END_MARK:
        return [END_MARK]
    if not JSON_START.match(text):
        return []
    try:
        document = json.loads(text, strict=False)
    except ValueError:
        lines = text.split("\n")
        if len(lines) == 1:
            raise
        return [document for line in lines for document in parse_documents(line)]
    return document if isinstance(document, list) else [document]


@attrs.define(kw_only=True)
class AnswerReader:
    """The state of one answer.

    *report_unknown_reason* is called for a `finish_reason` that END_REASONS lacks. *reason* is the endpoint's
    `finish_reason` in lower case; it is empty until the endpoint sends one. *is_done* is True after `[DONE]`.
    """

    request: RequestFacts
    report_unknown_reason: Callable[[str], None]
    calls: ToolCalls
    reason: str = ""
    is_done: bool = False
    _has_output: bool = False
    _has_refusal: bool = False
    _is_body: bool = False
    _is_complete: bool = False  # a complete message came: such an answer needs no finish_reason and no [DONE]
    _token_counts: TokenCounts = attrs.Factory(TokenCounts)
    _joiner: SurrogateJoiner = attrs.Factory(SurrogateJoiner)

    def read(self, event: ServerSentEvent) -> Iterator[AgentOutput]:
        """Yield the output of an event.

        Raises AgentError for an error in the event, and the errors of parse_documents().
        """
        self._is_body = event.is_body
        for document in parse_documents(event.data):
            if document == END_MARK:
                self.is_done = True
            elif isinstance(document, dict):
                for output in self._read_chunk(document):
                    self._has_output = True
                    yield output
                endpoint_error = find_error(document, event.name)
                if endpoint_error is not None:
                    raise stream_error(endpoint_error, self.request)

    def _read_chunk(self, chunk: dict[str, Any]) -> Iterator[AgentOutput]:
        self._token_counts.update(chunk)
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                delta = delta_of(choice, self._has_output)
                self._is_complete = self._is_complete or delta is choice.get("message")
                self.reason = normalize_reason(choice.get("finish_reason")) or self.reason
                yield from self._read_delta(delta)

    def _read_delta(self, delta: dict[str, Any]) -> Iterator[AgentOutput]:
        for kind, text in read_texts(delta):
            yield from self._output(kind, self._joiner.join(kind, text))
        for call in calls_of(delta):
            yield from self.calls.add(call)

    def _output(self, kind: DeltaKind, text: str) -> Iterator[AgentOutput]:
        if text:
            self._has_refusal = self._has_refusal or kind == "refusal"
            yield Reasoning(text) if kind == "reasoning" else text

    def end(self) -> Iterator[AgentOutput]:
        """Yield the rest of the output, and the Finish.

        Raises AgentError if the answer broke off, if the endpoint aborted it, or if a JSON body holds no answer.
        """
        for kind, rest in self._joiner.flush().items():
            yield Reasoning(rest) if kind == "reasoning" else rest
        reason = END_REASONS.get(self.reason, "end_turn")
        if reason == "error":
            raise abort_error(self.reason)
        if not self.reason and not (self._has_output and (self.is_done or self._is_complete)):
            raise wrong_address_error() if self._is_body else truncated_error()
        if self.reason and self.reason not in END_REASONS:
            self.report_unknown_reason(self.reason)
        yield from self.calls.end()
        if reason == "end_turn":  # some endpoints send `stop` for a refusal or a tool call
            reason = "refused" if self._has_refusal else "tool_calls" if self.calls.ids else reason
        yield Finish(reason, self._token_counts.usage())

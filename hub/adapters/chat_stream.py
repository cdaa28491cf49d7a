"""Read the answer of an endpoint: chunks as server-sent events, or one whole body."""

import json
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import aiohttp
import attrs

from hub.adapters.chat_calls import Calls, calls_of
from hub.adapters.chat_delta import Channel, texts_of, turn_of
from hub.adapters.chat_errors import RequestFacts, abort_error, cut_error, fault_of, in_stream, wrong_address
from hub.adapters.chat_halves import Halves
from hub.adapters.chat_reasons import REASONS, word_of
from hub.adapters.chat_usage import Counts
from hub.adapters.sse import Decoder, Incoming
from hub.hosting.contract import AgentOutput, Finish
from hub.messages import Reasoning

DONE = "[DONE]"
JSON = re.compile(r"\[?\s*\{")  # a list holds an error of Gemini's endpoint
BLANK = b"\xef\xbb\xbf \t\r\n"  # before a body; the first three are a byte order mark
BODY_BYTES = 16 * 1024 * 1024  # of one event, or of a body that is no stream


async def read(
    stream: aiohttp.StreamReader, request: RequestFacts, note: Callable[[str], None]
) -> AsyncGenerator[AgentOutput, None]:
    """Yield what the endpoint says, then its Finish; raises AgentError where it failed or the end is missing.

    *note* hears each `finish_reason` that the table does not know. Raises ValueError for broken JSON.
    """
    reading = Reading(request=request, note=note)
    try:
        async with aclosing(events(stream)) as incoming:
            async for event in incoming:
                for piece in reading.take(event):
                    yield piece
                if reading.is_done:
                    break
    except (aiohttp.ClientError, TimeoutError):
        if not reading.word:  # the reason is the end; a connection that breaks after it breaks nothing
            raise
    for piece in reading.end():
        yield piece


async def events(stream: aiohttp.StreamReader) -> AsyncGenerator[Incoming, None]:
    """Yield the events of a body, whatever its Content-Type says; a body of JSON is one event."""
    decoder, has_begun = Decoder(BODY_BYTES), False
    async for data in stream.iter_any():
        if not has_begun:
            data = data.lstrip(BLANK)
            has_begun = bool(data)
            if data.startswith(b"<"):
                raise wrong_address()
            if data.startswith((b"{", b"[")):
                body = data + await _rest(stream, len(data))
                yield Incoming(body.decode(errors="replace"), is_body=True)
                return
        for event in decoder.feed(data):
            yield event
    for event in decoder.end():
        yield event


async def _rest(stream: aiohttp.StreamReader, size: int) -> bytes:
    body = bytearray()
    async for data in stream.iter_any():
        body += data
        if size + len(body) > BODY_BYTES:
            raise ValueError(f"a body is longer than {BODY_BYTES} bytes")
    return bytes(body)


def documents(data: str) -> list[Any]:
    """Return the JSON of an event, and DONE where it says so.

    Other words are no JSON, and keep the connection open. Some endpoints write no empty lines between their events;
    then each line is one document. Raises ValueError for broken JSON.
    """
    text = data.strip()
    if text == DONE:
        return [DONE]
    if not JSON.match(text):
        return []
    try:
        document = json.loads(text, strict=False)
    except ValueError:
        lines = text.split("\n")
        if len(lines) == 1:
            raise
        return [document for line in lines for document in documents(line)]
    return document if isinstance(document, list) else [document]


@attrs.define(kw_only=True)
class Reading:
    """What an endpoint has said so far; *word* is its `finish_reason`, *is_done* says that nothing follows."""

    request: RequestFacts
    note: Callable[[str], None]
    word: str = ""
    is_done: bool = False
    _has_spoken: bool = False
    _has_refused: bool = False
    _is_body: bool = False
    _is_whole: bool = False  # a whole message came, which needs no other end
    _counts: Counts = attrs.Factory(Counts)
    _halves: Halves = attrs.Factory(Halves)
    _calls: Calls = attrs.Factory(Calls)

    def take(self, event: Incoming) -> Iterator[AgentOutput]:
        """Yield the pieces of an event; raises AgentError where it is an error, ValueError where its JSON is broken."""
        self._is_body = event.is_body
        for document in documents(event.data):
            if document == DONE:
                self.is_done = True
            elif isinstance(document, dict):
                for piece in self._chunk(document):
                    self._has_spoken = True
                    yield piece
                fault = fault_of(document, event.name)
                if fault is not None:
                    raise in_stream(fault, self.request)

    def _chunk(self, chunk: dict[str, Any]) -> Iterator[AgentOutput]:
        self._counts.take(chunk)
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                turn = turn_of(choice, self._has_spoken)
                self._is_whole = self._is_whole or turn is choice.get("message")
                self.word = word_of(choice.get("finish_reason")) or self.word
                yield from self._turn(turn)

    def _turn(self, turn: dict[str, Any]) -> Iterator[AgentOutput]:
        for channel, text in texts_of(turn):
            yield from self._say(channel, self._halves.join(channel, text))
        for call in calls_of(turn):
            yield from self._calls.take(call)

    def _say(self, channel: Channel, text: str) -> Iterator[AgentOutput]:
        if text:
            self._has_refused = self._has_refused or channel == "refusal"
            yield Reasoning(text) if channel == "thought" else text

    def end(self) -> Iterator[AgentOutput]:
        """Yield what is left, and the Finish; raises AgentError where the answer has no end."""
        for channel, rest in self._halves.rest().items():
            yield Reasoning(rest) if channel == "thought" else rest
        reason = REASONS.get(self.word, "end_turn")
        if reason == "error":
            raise abort_error(self.word)
        if not self.word and not (self._has_spoken and (self.is_done or self._is_whole)):
            raise wrong_address() if self._is_body else cut_error()
        if self.word and self.word not in REASONS:
            self.note(self.word)
        yield from self._calls.end()
        if reason == "end_turn":  # some endpoints say `stop` where they mean one of these
            reason = "refused" if self._has_refused else "tool_calls" if self._calls.ids else reason
        yield Finish(reason, self._counts.usage())

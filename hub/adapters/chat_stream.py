"""Read the stream of a chat completion: chunks as server-sent events, `[DONE]` at the end."""

from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import attrs
import msgspec

from hub.adapters.chat_errors import cut_off, in_stream
from hub.adapters.sse import Decoder
from hub.hosting.contract import Finish, Piece
from hub.messages import Usage


@attrs.frozen
class Delta:
    """`content` is no string where a model thinks aloud; that, and `reasoning_content`, is left out."""

    content: Any = None


@attrs.frozen
class Choice:
    delta: Delta | None = None
    finish_reason: str | None = None


@attrs.frozen
class Counted:
    prompt_tokens: int = 0
    completion_tokens: int = 0


@attrs.frozen
class Chunk:
    """What is used of a `chat.completion.chunk`; the one with the usage has no choices."""

    choices: list[Choice] | None = None
    usage: Counted | None = None
    error: Any = None


@attrs.define
class Heard:
    """What the stream has said of its end."""

    reason: str | None = None
    usage: Usage | None = None

    def take(self, data: str) -> str:
        """Return the text of one chunk; raises AgentError where it is an error, ValueError where it is no chunk."""
        chunk = msgspec.json.decode(data, type=Chunk)
        if chunk.error is not None:
            raise in_stream(chunk.error)
        if chunk.usage:
            self.usage = Usage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
        text = ""
        for choice in chunk.choices or ():
            self.reason = choice.finish_reason or self.reason
            if choice.delta and isinstance(choice.delta.content, str):
                text += choice.delta.content
        return text

    def finish(self) -> Finish:
        return Finish("max_tokens" if self.reason == "length" else "end_turn", self.usage)


async def read(stream: aiohttp.StreamReader) -> AsyncGenerator[Piece, None]:
    """Yield the text of a stream of chunks, then its Finish; raises AgentError where the end is missing."""
    decoder, heard = Decoder(), Heard()
    async for data in stream.iter_any():
        for event in decoder.feed(data):
            if event == "[DONE]":
                yield heard.finish()
                return
            if text := heard.take(event):
                yield text
    if heard.reason is None:  # some endpoints leave out [DONE], some the reason; without either it was cut
        raise cut_off()
    yield heard.finish()

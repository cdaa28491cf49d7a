"""What is longer than one frame may be, in several: text is cut between code points, lists between their items."""

from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import orjson

from hub.messages import (
    Body,
    Chunk,
    MessageRemoved,
    Reasoning,
    Reset,
    Subscribed,
    ToolCallArgs,
    UserMessage,
    WholeMessage,
)
from hub.messages.pieces import CUT

# What comes in several frames: of the first the last frame has the seq, of the second all but the last have `more`.
STREAMED = (Chunk, WholeMessage, Reasoning, ToolCallArgs, MessageRemoved)
CONTINUED = (UserMessage, Subscribed, Reset)
LEAST = 64  # bytes of a piece, where the fields around it are longer than a whole frame


def split_text(text: str, size: int) -> Sequence[str]:
    """Cut a text between code points, so that no piece takes more than *size* bytes as JSON; one code point is one."""
    pieces, at, step = list[str](), 0, size
    while at < len(text):
        while step > 1 and len(orjson.dumps(text[at : at + step])) > size:
            step //= 2
        pieces.append(text[at : at + step])
        at += step
    return pieces


def split_body(body: Body, size: int) -> list[Body]:
    """Cut what streams into several of its kind, each with at most *size* bytes of text as JSON; else it is one.

    A whole message becomes chunks: each tells by its offset where it belongs.
    """
    if isinstance(body, (Chunk, WholeMessage)):
        offset, pieces = body.offset if isinstance(body, Chunk) else 0, list[Body]()
        for text in split_text(body.content, size):
            pieces.append(Chunk(body.messageId, text, offset))
            offset += len(text)
        return pieces or [body]
    if isinstance(body, (Reasoning, ToolCallArgs)):
        return [attrs.evolve(body, delta=text) for text in split_text(body.delta, size)] or [body]
    if isinstance(body, MessageRemoved):
        return [attrs.evolve(body, messageIds=tuple(ids)) for ids in _split_list(body.messageIds, size)] or [body]
    return [body]


def split_fields(fields: dict[str, Any], size: int) -> list[dict[str, Any]]:
    """Cut a frame into several of at most *size* bytes as JSON, each but the last with `more: true`.

    Each has all fields that are not cut; a text of which it has nothing is "". An item of a list that is longer than a
    frame is cut in the same way. hub.messages.pieces puts them together.
    """
    if len(orjson.dumps(fields)) <= size:
        return [fields]
    head = {name: "" if isinstance(value, str) and name in CUT else value for name, value in fields.items()}
    head = {name: value for name, value in head.items() if not (value and name in CUT)}
    left = max(size - len(orjson.dumps(head | {"more": True, "messages": []})), LEAST)
    pieces = []
    for name in CUT:
        value = fields.get(name)
        if not value:
            continue
        if isinstance(value, str):
            pieces += [head | {name: text} for text in split_text(value, left)]
        elif isinstance(value, dict):
            pieces += [head | {name: piece} for piece in split_fields(value, left)]
        else:
            pieces += [head | {name: items} for items in _split_list(value, left)]
    for piece in pieces[:-1]:
        piece["more"] = True
    return pieces or [fields]


def _split_list(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    some: list[Any] = []
    used = 0
    for item in items:
        for piece in split_fields(item, size) if isinstance(item, dict) else [item]:
            weight = len(orjson.dumps(piece)) + 1
            if some and used + weight > size:
                yield some
                some, used = [], 0
            some.append(piece)
            used += weight
    if some:
        yield some

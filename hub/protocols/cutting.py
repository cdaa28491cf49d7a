"""Split long frames: texts between code points, lists between items."""

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
    Welcome,
    WholeMessage,
)
from hub.messages.pieces import CUT_FIELDS

# The bodies that can take several frames. Of STREAMED, only the last frame has the seq; of CONTINUED, all other frames
# also have `more`. A WholeMessage is split as CONTINUED if it has parts or a stop reason.
STREAMED = (Chunk, WholeMessage, Reasoning, ToolCallArgs, MessageRemoved)
CONTINUED = (UserMessage, WholeMessage, Welcome, Subscribed, Reset)
MIN_PIECE_BYTES = 64  # the size of a piece if its other fields alone exceed a frame


def split_text(text: str, size: int) -> Sequence[str]:
    """Split a text into pieces of at most *size* bytes as JSON, but of at least one code point."""
    pieces, start, step = list[str](), 0, size
    while start < len(text):
        while step > 1 and len(orjson.dumps(text[start : start + step])) > size:
            step //= 2
        pieces.append(text[start : start + step])
        start += step
    return pieces


def split_body(body: Body, size: int) -> list[Body]:
    """Split a body of STREAMED into bodies of at most *size* bytes of text as JSON; other bodies stay as they are.

    A WholeMessage becomes chunks with offsets.
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
    """Split a frame into frames of at most *size* bytes as JSON; all but the last have `more: true`.

    Each frame has all fields outside of CUT_FIELDS. A text that is in another frame is "" in this one. A list item that
    is longer than a frame is split in the same way. hub.messages.pieces joins the frames.
    """
    if len(orjson.dumps(fields)) <= size:
        return [fields]
    head = {name: "" if isinstance(value, str) and name in CUT_FIELDS else value for name, value in fields.items()}
    head = {name: value for name, value in head.items() if not (value and name in CUT_FIELDS)}
    available = max(size - len(orjson.dumps(head | {"more": True, "messages": []})), MIN_PIECE_BYTES)
    pieces = []
    for name in CUT_FIELDS:
        value = fields.get(name)
        if not value:
            continue
        if isinstance(value, str):
            pieces += [head | {name: text} for text in split_text(value, available)]
        elif isinstance(value, dict):
            pieces += [head | {name: piece} for piece in split_fields(value, available)]
        else:
            pieces += [head | {name: items} for items in _split_list(value, available)]
    for piece in pieces[:-1]:
        piece["more"] = True
    return pieces or [fields]


def _split_list(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    group: list[Any] = []
    total = 0
    for item in items:
        for piece in split_fields(item, size) if isinstance(item, dict) else [item]:
            weight = len(orjson.dumps(piece)) + 1
            if group and total + weight > size:
                yield group
                group, total = [], 0
            group.append(piece)
            total += weight
    if group:
        yield group

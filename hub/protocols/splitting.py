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
from hub.messages.pieces import SPLIT_FIELDS

# split_body() splits the bodies in the first tuple into bodies. split_fields() splits the events and notices in the
# second tuple into frames, of which all but the last have `more`. In both cases, only the last frame of an event has
# the seq. The extended protocol splits a WholeMessage with parts or with a stop reason by split_fields(), because
# split_body() makes chunks, which have neither.
SPLITTABLE_BODIES = (Chunk, WholeMessage, Reasoning, ToolCallArgs, MessageRemoved)
TYPES_WITH_MORE = (UserMessage, WholeMessage, Welcome, Subscribed, Reset)
MIN_PIECE_BYTES = 64  # the least size of a piece, even if the other fields of its frame exceed the limit


def split_text(text: str, size: int) -> Sequence[str]:
    """Split a text into pieces of at most *size* bytes as JSON. Each piece has one code point or more."""
    pieces, start, step = list[str](), 0, size
    while start < len(text):
        while step > 1 and len(orjson.dumps(text[start : start + step])) > size:
            step //= 2
        pieces.append(text[start : start + step])
        start += step
    return pieces


def split_body(body: Body, size: int) -> list[Body]:
    """Split one of SPLITTABLE_BODIES into bodies whose text or ids have at most *size* bytes as JSON.

    A WholeMessage becomes chunks with offsets. Another body is returned as the only item of the list.
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

    Each frame has a piece of one of SPLIT_FIELDS, and all fields that are not split. The others of SPLIT_FIELDS are
    empty or left out. An object in a list is split in the same way if it is longer than a frame. hub.messages.pieces
    joins the frames.
    """
    if len(orjson.dumps(fields)) <= size:
        return [fields]
    shared_fields = {
        name: "" if isinstance(value, str) and name in SPLIT_FIELDS else value
        for name, value in fields.items()
        if name not in SPLIT_FIELDS or isinstance(value, str) or not value
    }
    # Leave room for `more` and for the name of one of SPLIT_FIELDS.
    piece_bytes = max(size - len(orjson.dumps(shared_fields | {"more": True, "messages": []})), MIN_PIECE_BYTES)
    pieces = []
    for name in SPLIT_FIELDS:
        value = fields.get(name)
        if not value:
            continue
        if isinstance(value, str):
            pieces += [shared_fields | {name: text} for text in split_text(value, piece_bytes)]
        elif isinstance(value, dict):
            pieces += [shared_fields | {name: piece} for piece in split_fields(value, piece_bytes)]
        else:
            pieces += [shared_fields | {name: items} for items in _split_list(value, piece_bytes)]
    for piece in pieces[:-1]:
        piece["more"] = True
    return pieces or [fields]


def _split_list(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    """Split a list into lists of at most *size* bytes as JSON. A dict in the list that is longer is split too."""
    group: list[Any] = []
    group_bytes = 0
    for item in items:
        for piece in split_fields(item, size) if isinstance(item, dict) else [item]:
            item_bytes = len(orjson.dumps(piece)) + 1  # with its comma
            if group and group_bytes + item_bytes > size:
                yield group
                group, group_bytes = [], 0
            group.append(piece)
            group_bytes += item_bytes
    if group:
        yield group

"""Join the frames of an event or a notice that is longer than one frame.

These frames follow each other on a connection without other frames between them.
"""

from typing import Any

# The fields that can continue in the next frame, also inside other fields: texts, lists, and the source of a part.
SPLIT_FIELDS = (
    "content",
    "text",
    "value",
    "data",
    "source",
    "parts",
    "history",
    "messages",
    "agents",
    "delta",
    "messageIds",
)


def has_continuation(frame: dict[str, Any]) -> bool:
    """Return whether the next frame continues this one: it has `more`, or it is an event without a seq."""
    return "more" in frame or ("ts" in frame and "seq" not in frame)


def is_continuation(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Return whether *second* continues *first*, and does not belong to another message."""
    return all(first.get(name) == second.get(name) for name in ("type", "messageId"))


def join_frames(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Join two pieces: append the fields of SPLIT_FIELDS, and take the other fields from *second*."""
    frame = {
        **first,
        **second,
        **{name: _join(first[name], second.get(name)) for name in SPLIT_FIELDS if name in first},
    }
    if "offset" in first:
        frame["offset"] = first["offset"]
    if "more" not in second:
        frame.pop("more", None)
    return frame


def write_fields_javascript() -> str:
    """Return SPLIT_FIELDS as the line of hub/client_js/pieces.js that holds it."""
    return f"export const SPLIT_FIELDS = [{', '.join(map(repr, SPLIT_FIELDS))}]\n"


def _join(first: Any, second: Any) -> Any:
    if second is None:
        return first
    if isinstance(first, dict):
        return join_frames(first, second)
    if isinstance(first, str):
        return first + second
    items: list[Any] = []
    for item in [*first, *second]:
        if items and isinstance(items[-1], dict) and "more" in items[-1]:
            items[-1] = join_frames(items[-1], item)
        else:
            items.append(item)
    return items

"""Join the frames of one event or notice that is longer than one frame.

On a connection, no other frame comes between the frames of one event or notice.
"""

from typing import Any

# The fields whose text, list or object can continue in the next frame. Of objects, only `source` of a part does.
SPLIT_FIELDS = (
    "content",
    "text",
    "arguments",
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
    """Return whether the next frame continues this one: this one has `more`, or is an event without a seq."""
    return "more" in frame or ("ts" in frame and "seq" not in frame)


def is_continuation(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Return whether *second* continues *first*: both have the same type and message id."""
    return all(first.get(name) == second.get(name) for name in ("type", "messageId"))


def join_frames(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Join two frames: join the fields of SPLIT_FIELDS, and keep the `offset` of *first*.

    Other fields have the value in *second*, or in *first* if *second* lacks them. `more` is only taken from *second*.
    """
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
    """Return the line of hub/client_js/pieces.js that defines SPLIT_FIELDS."""
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

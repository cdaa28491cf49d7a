"""Join the frames of an event or a notice that is too long for one frame.

These frames follow each other on a connection, with no other frame between them.
"""

from typing import Any

# The fields that are cut, in a frame or inside its fields: texts, lists, and the source of a part.
CUT_FIELDS = (
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
    """Return whether the next frame continues this one: it has `more`, or is an event without a seq."""
    return "more" in frame or ("ts" in frame and "seq" not in frame)


def is_continuation(first: dict[str, Any], then: dict[str, Any]) -> bool:
    """Return whether a frame continues the piece before it, and does not belong to another message."""
    return all(first.get(name) == then.get(name) for name in ("type", "messageId"))


def join_frames(first: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    """Join two pieces: append the fields that are cut; take the other fields from the second piece."""
    whole = {**first, **then, **{name: _join(first[name], then.get(name)) for name in CUT_FIELDS if name in first}}
    if "offset" in first:
        whole["offset"] = first["offset"]
    if "more" not in then:
        whole.pop("more", None)
    return whole


def write_fields_javascript() -> str:
    """Return CUT_FIELDS as the line of hub/client_js/pieces.js that holds it."""
    return f"export const CUT_FIELDS = [{', '.join(map(repr, CUT_FIELDS))}]\n"


def _join(first: Any, then: Any) -> Any:
    if then is None:
        return first
    if isinstance(first, dict):
        return join_frames(first, then)
    if isinstance(first, str):
        return first + then
    items: list[Any] = []
    for item in [*first, *then]:
        if items and isinstance(items[-1], dict) and "more" in items[-1]:
            items[-1] = join_frames(items[-1], item)
        else:
            items.append(item)
    return items

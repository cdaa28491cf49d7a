"""What comes in several frames because one would be too long, and how its reader puts it together.

The frames of one such thing follow each other on a connection, with nothing between them.
"""

from typing import Any

# The fields that are cut, in a frame or in what it holds: texts, lists, and the source of a part.
CUT = ("content", "text", "value", "data", "source", "parts", "history", "messages", "delta", "messageIds")


def is_piece(frame: dict[str, Any]) -> bool:
    """Return whether the next frame goes on with this one: with `more`, and an event without its place in the log."""
    return "more" in frame or ("ts" in frame and "seq" not in frame)


def join(first: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    """Put a piece and the one after it together: what is cut follows each other, the rest is that of the last piece."""
    whole = {**first, **then, **{name: _join(first[name], then.get(name)) for name in CUT if name in first}}
    if "offset" in first:
        whole["offset"] = first["offset"]
    if "more" not in then:
        whole.pop("more", None)
    return whole


def javascript() -> str:
    """Return CUT as the line of hub/client_js/client.js that holds it."""
    return f"const CUT = [{', '.join(map(repr, CUT))}]\n"


def _join(first: Any, then: Any) -> Any:
    if then is None:
        return first
    if isinstance(first, dict):
        return join(first, then)
    if isinstance(first, str):
        return first + then
    items: list[Any] = []
    for item in [*first, *then]:
        if items and isinstance(items[-1], dict) and "more" in items[-1]:
            items[-1] = join(items[-1], item)
        else:
            items.append(item)
    return items

"""Reads what the hub says into the classes of hub.messages."""

from typing import Any

import attrs
import msgspec
import orjson

from hub.messages import BODIES, NOTICES, Body, Chunk, Event, Notice, RunFinished
from hub.messages.pieces import has_continuation, is_continuation, join_frames


@attrs.frozen
class Unknown(Body):
    """An event of a newer hub: its type and its fields, as they came."""

    type = "unknown"
    name: str
    fields: dict[str, Any]


class Frames:
    """Reads the frames of one connection, in order, and joins those of one long event or notice."""

    def __init__(self) -> None:
        self._held: dict[str, Any] | None = None

    def read(self, data: bytes) -> Event | Notice | None:
        """Return the event or notice of a frame; None if more frames of it follow, or if only a newer hub knows it.

        Raises ValueError for a frame that is not valid.
        """
        frame = orjson.loads(data)
        if not isinstance(frame, dict):
            raise ValueError("a frame that is no object")
        if self._held is not None and is_continuation(self._held, frame):
            frame = join_frames(self._held, frame)
        self._held = frame if has_continuation(frame) else None
        return None if self._held else _read(frame)


def _read(frame: dict[str, Any]) -> Event | Notice | None:
    kind = frame.get("type")
    if kind in NOTICES:
        return msgspec.convert(frame, NOTICES[kind])  # msgspec.ValidationError is a ValueError
    return read_event(frame) if "seq" in frame else None


def read_event(frame: dict[str, Any]) -> Event:
    """Return an event; raises ValueError where it lacks its place in the log."""
    try:
        session_id, epoch, seq, ts = frame["sessionId"], frame["epoch"], frame["seq"], frame["ts"]
    except KeyError as missing:
        raise ValueError(f"an event without {missing}") from None
    return Event(frame.get("agentId"), frame.get("runId"), _body(frame), session_id, epoch, seq, ts)


def _body(frame: dict[str, Any]) -> Body:
    kind = frame.get("type", "")
    try:
        if kind == "stream":  # nearly all there is
            return Chunk(frame["messageId"], frame["content"], frame["offset"])
        return msgspec.convert(frame, BODIES[kind])
    except (KeyError, msgspec.ValidationError):
        return Unknown(kind, frame)


def is_end(event: Event) -> bool:
    """Tell whether this is the one end of its run."""
    body = event.body
    return isinstance(body, RunFinished) or (isinstance(body, Unknown) and body.name == RunFinished.type)

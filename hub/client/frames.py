"""Parse frames of the hub into the classes of hub.messages."""

from typing import Any

import attrs
import msgspec
import orjson

from hub.messages import BODIES, NOTICES, Body, Chunk, Event, Notice, RunFinished
from hub.messages.pieces import has_continuation, is_continuation, join_frames


@attrs.frozen
class Unknown(Body):
    """An event of a newer hub, with its type and its fields as received."""

    type = "unknown"
    name: str
    fields: dict[str, Any]


class FrameReader:
    """Parses the frames of one connection in order, and joins the frames of one long event or notice."""

    def __init__(self) -> None:
        self._first_frames: dict[str, Any] | None = None

    def read(self, data: bytes) -> Event | Notice | None:
        """Return the event or notice of a frame; None if more frames of it follow, or if its type is unknown.

        Raises ValueError for a frame that is not valid.
        """
        frame = orjson.loads(data)
        if not isinstance(frame, dict):
            raise ValueError("the hub sent a frame that is no JSON object")
        if self._first_frames is not None and is_continuation(self._first_frames, frame):
            frame = join_frames(self._first_frames, frame)
        self._first_frames = frame if has_continuation(frame) else None
        return None if self._first_frames else _read(frame)


def _read(frame: dict[str, Any]) -> Event | Notice | None:
    kind = frame.get("type")
    if kind in NOTICES:
        return msgspec.convert(frame, NOTICES[kind])  # msgspec.ValidationError is a ValueError
    return read_event(frame) if "seq" in frame else None


def read_event(frame: dict[str, Any]) -> Event:
    """Return the event of a frame; raises ValueError if a field of its position in the log is missing."""
    try:
        session_id, epoch, seq, ts = frame["sessionId"], frame["epoch"], frame["seq"], frame["ts"]
    except KeyError as missing:
        raise ValueError(f"the hub sent an event without the field {missing}") from None
    return Event(frame.get("agentId"), frame.get("runId"), _body(frame), session_id, epoch, seq, ts)


def _body(frame: dict[str, Any]) -> Body:
    kind = frame.get("type", "")
    try:
        if kind == "stream":  # the most frequent event: parsed without msgspec
            return Chunk(frame["messageId"], frame["content"], frame["offset"])
        return msgspec.convert(frame, BODIES[kind])
    except (KeyError, msgspec.ValidationError):
        return Unknown(kind, frame)


def is_end(event: Event) -> bool:
    """Return whether the event is the end of its run."""
    body = event.body
    return isinstance(body, RunFinished) or (isinstance(body, Unknown) and body.name == RunFinished.type)

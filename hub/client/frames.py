"""Parse frames of the hub as events and notices of hub.messages."""

from typing import Any

import attrs
import msgspec
import orjson

from hub.messages import BODIES, NOTICES, Body, Chunk, Event, Notice, RunFinished
from hub.messages.pieces import has_continuation, is_continuation, join_frames


@attrs.frozen
class Unknown(Body):
    """The body of an event that this client cannot parse: *name* is its type, *fields* is its complete frame."""

    type = "unknown"
    name: str
    fields: dict[str, Any]


class FrameReader:
    """Parses the frames of one connection in order, and joins the frames of one long event or notice."""

    def __init__(self) -> None:
        self._partial_frame: dict[str, Any] | None = None

    def read(self, data: bytes) -> Event | Notice | None:
        """Return the event or notice of a frame.

        Return None for an unknown notice, and if the event or notice continues in the next frame.
        Raises ValueError for a frame that is not valid.
        """
        frame = orjson.loads(data)
        if not isinstance(frame, dict) or not isinstance(frame.get("type", ""), str):
            raise ValueError("the hub sent a frame that is no JSON object, or whose type is no text")
        if self._partial_frame is not None and is_continuation(self._partial_frame, frame):
            try:
                frame = join_frames(self._partial_frame, frame)
            except TypeError:
                raise ValueError(f"the hub sent two frames of one {frame.get('type')} that do not match") from None
        self._partial_frame = frame if has_continuation(frame) else None
        return None if self._partial_frame else _parse(frame)


def _parse(frame: dict[str, Any]) -> Event | Notice | None:
    frame_type = frame.get("type")
    if frame_type in NOTICES:
        return msgspec.convert(frame, NOTICES[frame_type])  # msgspec.ValidationError is a ValueError
    return read_event(frame) if "seq" in frame else None


def read_event(frame: dict[str, Any]) -> Event:
    """Return the event of a frame. Raises ValueError if a field that each event has is missing or has a wrong type."""
    get = frame.get
    agent_id, run_id, session_id, epoch = get("agentId"), get("runId"), get("sessionId"), get("epoch")
    seq, ts = get("seq"), get("ts")
    if not (
        (agent_id is None or isinstance(agent_id, str))
        and (run_id is None or isinstance(run_id, str))
        and isinstance(session_id, str)
        and isinstance(epoch, str)
        and isinstance(seq, int)
        and isinstance(ts, int)
    ):
        raise ValueError("the hub sent an event with a missing or wrong agentId, runId, sessionId, epoch, seq or ts")
    return Event(agent_id, run_id, _parse_body(frame), session_id, epoch, seq, ts)


def _parse_body(frame: dict[str, Any]) -> Body:
    frame_type = frame.get("type", "")
    if frame_type == "stream":  # the most frequent event: parsed without msgspec
        message_id, content, offset = frame.get("messageId"), frame.get("content"), frame.get("offset")
        if isinstance(message_id, str) and isinstance(content, str) and isinstance(offset, int):
            return Chunk(message_id, content, offset)
    try:
        return msgspec.convert(frame, BODIES[frame_type])
    except (KeyError, TypeError, msgspec.ValidationError):  # TypeError: the type is a list or an object
        return Unknown(str(frame_type), frame)


def is_end(event: Event) -> bool:
    """Return whether the event is the end of its run."""
    body = event.body
    return isinstance(body, RunFinished) or (isinstance(body, Unknown) and body.name == RunFinished.type)

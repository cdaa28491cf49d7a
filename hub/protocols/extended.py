"""The extended protocol `hubbub.v1` sends every event under the type of its body, and all notices."""

from typing import Any

import attrs
import orjson
from msgspec.structs import replace

from hub.limits import Limits
from hub.messages import Command, Event, Notice, WholeMessage
from hub.protocols import WireProtocol, text_frame
from hub.protocols.reading import read_command
from hub.protocols.splitting import split_body, split_fields


class ExtendedProtocol(WireProtocol):
    name = "hubbub.v1"

    def command(self, data: bytes, limits: Limits) -> Command:
        return read_command(data, limits)

    def event(self, event: Event) -> bytes:
        fields = event_fields(event)
        data = orjson.dumps(fields)
        if len(data) <= self.out_frame_bytes:
            return self.frame(fields, data)
        return self._encode(split_event(event, self.out_frame_bytes))

    def whole(self, event: Event, message_id: str, content: str) -> bytes:
        frames = split_event(replace(event, body=WholeMessage(message_id, content)), self.out_frame_bytes)
        frames[-1].pop("seq")  # only the frame of *event*, below, has a seq: if it is lost, both are sent again
        return self._encode(frames) + self.event(event)

    def answer(self, notice: Notice) -> bytes:
        return self._encode(split_fields(notice_fields(notice), self.out_frame_bytes))

    notice = answer

    def frame(self, fields: dict[str, Any], data: bytes) -> bytes:
        """Return *data*, the JSON of *fields*, as a frame of this protocol."""
        return text_frame(data)

    def _encode(self, frames: list[dict[str, Any]]) -> bytes:
        return b"".join([self.frame(fields, orjson.dumps(fields)) for fields in frames])


def event_fields(event: Event) -> dict[str, Any]:
    """Return the fields of an event on the wire, without those that are None."""
    frame: dict[str, Any] = {"type": event.body.type, "sessionId": event.sessionId}
    if event.agentId is not None:
        frame["agentId"] = event.agentId
    if event.runId is not None:
        frame["runId"] = event.runId
    frame |= attrs.asdict(event.body, filter=is_not_none)
    frame["epoch"], frame["seq"], frame["ts"] = event.epoch, event.seq, event.ts
    return frame


def split_event(event: Event, size: int) -> list[dict[str, Any]]:
    """Split an event into frames of at most *size* bytes.

    Only the last frame has the seq: if the connection is lost before it, all frames are sent again.
    """
    fields = event_fields(event)
    if len(orjson.dumps(fields)) <= size:
        return [fields]
    if isinstance(event.body, WholeMessage) and (event.body.parts or event.body.stopReason):
        pieces = [fields]  # not as chunks: a chunk has no parts and no stop reason
    else:
        pieces = [event_fields(replace(event, body=body)) for body in split_body(event.body, size // 2)]
    frames = pieces if len(pieces) > 1 else split_fields(pieces[0], size)
    for frame in frames[:-1]:
        del frame["seq"]
    return frames


def notice_fields(notice: Notice) -> dict[str, Any]:
    """Return the fields of a notice on the wire, without those that are None."""
    return {"type": notice.type, **attrs.asdict(notice, filter=is_not_none)}


def is_not_none(_: Any, value: Any) -> bool:
    """Return whether a field is not None: a filter for attrs.asdict(), which applies it to nested objects too."""
    return value is not None

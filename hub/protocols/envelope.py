"""The protocol `hubbub.events`: each message is `{"id","type","agentId","taskId","timestamp","payload"}`.

`taskId` is the run. `id` is `EPOCH:SEQ`, the cursor with which a client resumes. Of several frames for one event, only
the last has an id: if the connection is lost between them, the client gets all of them again.
"""

from datetime import UTC, datetime
from time import time
from typing import Any

import orjson
from msgspec.structs import replace

from hub.limits import Limits
from hub.messages import BODIES, Command, Event, Notice, WholeMessage
from hub.protocols import WireProtocol, text_frame
from hub.protocols.cutting import split_fields
from hub.protocols.extended import event_fields, notice_fields, split_event
from hub.protocols.reading import read_command

# The envelope type by the type of the event or notice. Others are a `status`, whose payload has the type.
ENVELOPE_TYPES = {
    "stream": "text",
    "message": "text",
    "reasoning": "think",
    "tool_call_start": "tool",
    "tool_call_args": "tool",
    "tool_call_end": "tool",
    "tool_call_result": "tool_result",
    "progress": "progress",
    "run_error": "error",
    "error": "error",
    "run_finished": "done",
}
# The envelope types whose payload does not have the type of the event.
UNNAMED_TYPES = {"text", "think", "tool_result", "progress", "error", "done"}

MAX_ENVELOPE_BYTES = 256  # the most bytes that the envelope adds to a frame


class EnvelopeProtocol(WireProtocol):
    name = "hubbub.events"

    def command(self, data: bytes, limits: Limits) -> Command:
        return read_command(data, limits)

    def event(self, event: Event) -> bytes:
        data = orjson.dumps(_envelope(event_fields(event)))
        if len(data) <= self.out_frame_bytes:
            return text_frame(data)
        return _frames(split_event(event, self.out_frame_bytes - MAX_ENVELOPE_BYTES))

    def whole(self, event: Event, message_id: str, content: str) -> bytes:
        frames = split_event(
            replace(event, body=WholeMessage(message_id, content)), self.out_frame_bytes - MAX_ENVELOPE_BYTES
        )
        frames[-1].pop("seq")
        return _frames(frames) + self.event(event)

    def answer(self, notice: Notice) -> bytes:
        return _frames(split_fields(notice_fields(notice), self.out_frame_bytes - MAX_ENVELOPE_BYTES))

    notice = answer


def _frames(frames: list[dict[str, Any]]) -> bytes:
    return b"".join([text_frame(orjson.dumps(_envelope(fields))) for fields in frames])


def _envelope(fields: dict[str, Any]) -> dict[str, Any]:
    """Wrap the *fields* of an event or a notice of the extended protocol; removes some of *fields*."""
    name = fields.pop("type")
    kind = ENVELOPE_TYPES.get(name, "status")
    envelope = {"type": kind, "agentId": fields.pop("agentId", None), "taskId": fields.pop("runId", None)}
    if name in BODIES:
        epoch, seq, ts = fields.pop("epoch"), fields.pop("seq", None), fields.pop("ts")
        cursor = {} if seq is None else {"id": f"{epoch}:{seq}"}
    else:
        cursor, ts = {}, int(time() * 1000)
    payload = fields if kind in UNNAMED_TYPES else {"event": name} | fields
    return envelope | {"timestamp": _iso_time(ts), "payload": payload} | cursor


def _iso_time(ts: int) -> str:
    """Return milliseconds since 1970 as ISO 8601 in UTC."""
    return datetime.fromtimestamp(ts / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

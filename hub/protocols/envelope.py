"""The protocol `hubbub.events`: each frame is `{"id","type","agentId","taskId","timestamp","payload"}`.

`taskId` is the id of the run. `id` is `EPOCH:SEQ`, the cursor with which a client resumes. Notices have no `id`. If an
event needs several frames, only the last frame has the `id`: if the connection is lost before it, the client gets all
of these frames again.
"""

from datetime import UTC, datetime
from time import time
from typing import Any

import orjson
from msgspec.structs import replace

from hub.limits import Limits
from hub.messages import BODIES, Command, Event, Notice, WholeMessage
from hub.protocols import WireProtocol, text_frame
from hub.protocols.extended import event_fields, notice_fields, split_event
from hub.protocols.reading import read_command
from hub.protocols.splitting import split_fields

# The envelope types of events and notices. An event or notice without a row here has the type `status`.
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
# The payload of all envelope types but these has a field `event`: the type of the event or notice.
TYPES_WITHOUT_EVENT_FIELD = {"text", "think", "tool_result", "progress", "error", "done"}

MAX_ENVELOPE_BYTES = 256  # the most bytes that the envelope adds to a frame


class EnvelopeProtocol(WireProtocol):
    name = "hubbub.events"

    def command(self, data: bytes, limits: Limits) -> Command:
        return read_command(data, limits)

    def event(self, event: Event) -> bytes:
        data = orjson.dumps(_envelope(event_fields(event)))
        if len(data) <= self.out_frame_bytes:
            return text_frame(data)
        return _encode(split_event(event, self.out_frame_bytes - MAX_ENVELOPE_BYTES))

    def whole(self, event: Event, message_id: str, content: str) -> bytes:
        frames = split_event(
            replace(event, body=WholeMessage(message_id, content)), self.out_frame_bytes - MAX_ENVELOPE_BYTES
        )
        frames[-1].pop("seq")  # only the frame of *event* has a seq, as in the extended protocol
        return _encode(frames) + self.event(event)

    def answer(self, notice: Notice) -> bytes:
        return _encode(split_fields(notice_fields(notice), self.out_frame_bytes - MAX_ENVELOPE_BYTES))

    notice = answer


def _encode(frames: list[dict[str, Any]]) -> bytes:
    return b"".join([text_frame(orjson.dumps(_envelope(fields))) for fields in frames])


def _envelope(fields: dict[str, Any]) -> dict[str, Any]:
    """Wrap the *fields* of an event or a notice of the extended protocol. Changes *fields*."""
    name = fields.pop("type")
    envelope_type = ENVELOPE_TYPES.get(name, "status")
    envelope = {"type": envelope_type, "agentId": fields.pop("agentId", None), "taskId": fields.pop("runId", None)}
    if name in BODIES:
        epoch, seq, ts = fields.pop("epoch"), fields.pop("seq", None), fields.pop("ts")
        cursor = {} if seq is None else {"id": f"{epoch}:{seq}"}
    else:
        cursor, ts = {}, int(time() * 1000)
    payload = fields if envelope_type in TYPES_WITHOUT_EVENT_FIELD else {"event": name} | fields
    return envelope | {"timestamp": _iso_time(ts), "payload": payload} | cursor


def _iso_time(ts: int) -> str:
    """Return the time *ts*, in milliseconds since 1970, as ISO 8601 text in UTC."""
    return datetime.fromtimestamp(ts / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""The event envelope `hubbub.events`: all in one shape, `{"id","type","agentId","taskId","timestamp","payload"}`.

`taskId` is the run, and `id` is `EPOCH:SEQ`: what a client hands back to go on. Where one event gives several frames,
only the last has an id, so a cut between them loses nothing.
"""

from datetime import UTC, datetime
from time import time
from typing import Any

import orjson
from msgspec.structs import replace

from hub.limits import Limits
from hub.messages import Command, Error, Event, Notice, WholeMessage
from hub.protocols import WireProtocol, text_frame
from hub.protocols.extended import event_fields, notice_fields
from hub.protocols.reading import read_command

# What is not here is a `status`, whose payload names the event.
TYPES = {
    "stream": "text",
    "message": "text",
    "reasoning": "think",
    "tool_call_start": "tool",
    "tool_call_args": "tool",
    "tool_call_end": "tool",
    "tool_call_result": "tool_result",
    "progress": "progress",
    "run_error": "error",
    "run_finished": "done",
}
PLAIN = {"text", "think", "tool_result", "progress", "error", "done"}  # one kind of event each: it needs no name


class Envelope(WireProtocol):
    name = "hubbub.events"

    def command(self, data: bytes, limits: Limits) -> Command:
        return read_command(data, limits)

    def event(self, event: Event) -> bytes:
        return text_frame(orjson.dumps(_envelope(event) | {"id": f"{event.epoch}:{event.seq}"}))

    def whole(self, event: Event, message_id: str, content: str) -> bytes:
        message = replace(event, body=WholeMessage(message_id, content))
        return text_frame(orjson.dumps(_envelope(message))) + self.event(event)

    def answer(self, notice: Notice) -> bytes:
        fields = notice_fields(notice)
        kind = "error" if isinstance(notice, Error) else "status"
        about = {"agentId": fields.pop("agentId", None), "taskId": fields.pop("runId", None)}
        name = {} if kind == "error" else {"event": notice.type}
        del fields["type"]
        return text_frame(
            orjson.dumps({"type": kind, **about, "timestamp": _when(int(time() * 1000)), "payload": name | fields})
        )

    notice = answer


def _envelope(event: Event) -> dict[str, Any]:
    payload = event_fields(event)
    kind = TYPES.get(event.body.type, "status")
    for name in ("type", "agentId", "runId", "epoch", "seq", "ts"):
        payload.pop(name, None)
    if kind not in PLAIN:
        payload = {"event": event.body.type} | payload
    return {
        "type": kind,
        "agentId": event.agentId,
        "taskId": event.runId,
        "timestamp": _when(event.ts),
        "payload": payload,
    }


def _when(ts: int) -> str:
    """Return milliseconds since 1970 as ISO 8601 in UTC."""
    return datetime.fromtimestamp(ts / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

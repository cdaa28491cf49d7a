"""The extended protocol `hubbub.v1`: every event of the log by its own name, and what is said beside the log."""

from typing import Any

import attrs
import orjson
from msgspec.structs import replace

from hub.limits import Limits
from hub.messages import Command, Event, Notice, WholeMessage
from hub.protocols import WireProtocol, text_frame
from hub.protocols.reading import read_command


class Extended(WireProtocol):
    name = "hubbub.v1"

    def command(self, data: bytes, limits: Limits) -> Command:
        return read_command(data, limits)

    def event(self, event: Event) -> bytes:
        return text_frame(orjson.dumps(event_fields(event)))

    def whole(self, event: Event, message_id: str, content: str) -> bytes:
        message = event_fields(replace(event, body=WholeMessage(message_id, content)))
        del message["seq"]  # the frame that follows carries it: a cut between the two loses nothing
        return text_frame(orjson.dumps(message)) + self.event(event)

    def answer(self, notice: Notice) -> bytes:
        return text_frame(orjson.dumps(notice_fields(notice)))

    notice = answer


def event_fields(event: Event) -> dict[str, Any]:
    """Return the event as the wire names it, without what is None."""
    frame: dict[str, Any] = {"type": event.body.type, "sessionId": event.sessionId}
    if event.agentId is not None:
        frame["agentId"] = event.agentId
    if event.runId is not None:
        frame["runId"] = event.runId
    frame |= attrs.asdict(event.body, filter=is_known)
    frame["epoch"], frame["seq"], frame["ts"] = event.epoch, event.seq, event.ts
    return frame


def notice_fields(notice: Notice) -> dict[str, Any]:
    """Return the notice as the wire names it, without what is None."""
    return {"type": notice.type, **attrs.asdict(notice, filter=is_known)}


def is_known(_: Any, value: Any) -> bool:
    """Keep what is not None, also in what a field holds."""
    return value is not None

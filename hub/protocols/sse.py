"""Server-sent events: the extended protocol as a stream over HTTP.

The bytes include the chunk framing of HTTP/1.1 (RFC 9112, 7.1), so all clients can share one encoding. The id of an
event is `EPOCH:SEQ`. A browser that reconnects sends the last id as `Last-Event-ID`.
"""

import asyncio
import functools
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import orjson

from hub.messages import BODIES, Body, Event, Interrupt, Notice
from hub.protocols.extended import ExtendedProtocol
from hub.protocols.splitting import split_body


def http_chunk(data: bytes) -> bytes:
    """Return *data* as one chunk of a body with chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


# JSON allows these characters in strings, but many clients end a line there, like str.splitlines() of Python.
LINE_SEPARATORS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))


def escape_separators(data: bytes) -> bytes:
    """Escape U+2028, U+2029 and U+0085 in JSON, so that it is one line for every client."""
    for separator, escape in LINE_SEPARATORS:
        if separator in data:
            data = data.replace(separator, escape)
    return data


def format_event(kind: str, data: bytes, event_id: str = "") -> bytes:
    """Return one server-sent event. An event without *event_id* does not change the client's cursor."""
    fields = f"id: {event_id}\nevent: {kind}\n" if event_id else f"event: {kind}\n"
    return http_chunk(b"%bdata: %b\n\n" % (fields.encode(), escape_separators(data)))


PING = http_chunk(b": ping\n\n")
# An EventSource would call its `onerror` for an event with the name `error`, as for a lost connection.
ERROR_EVENT = "hub_error"


class SseProtocol(ExtendedProtocol):
    name = "sse"

    def frame(self, fields: dict[str, Any], data: bytes) -> bytes:
        kind = fields["type"]
        # Notices have no id: they are not in the log, and the seq of some notices is the head of the log.
        event_id = f"{fields['epoch']}:{fields['seq']}" if "seq" in fields and kind in BODIES else ""
        return format_event(ERROR_EVENT if kind == "error" else kind, data, event_id)


class RunStream(SseProtocol):
    """One run for one client, translated to the protocol of a subclass. Events of other runs are skipped.

    The stream ends at the first question that is open when its event is translated. Then *end_seq* is the seq of that
    event, and *end_event* is set. If the event is translated again, the result is the same, even if the question is
    closed by then. The caller sets *is_question_open*, a function of the question's id.
    """

    notices = False
    is_shared = False

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.end_seq: int | None = None
        self.end_event = asyncio.Event()
        self.is_question_open: Callable[[str], bool] = lambda interrupt_id: False

    def note_question(self, event: Event) -> None:
        """End the stream at this event if it is the first open question of the run."""
        body = event.body
        if self.end_seq is not None or event.runId != self.run_id or not isinstance(body, Interrupt):
            return
        if self.is_question_open(body.id):
            self.end_seq = event.seq
            self.end_event.set()

    def carries(self, run_id: str) -> bool:
        return run_id == self.run_id

    def event(self, event: Event) -> bytes:
        if event.runId != self.run_id:
            return b""
        bodies = split_body(event.body, self.out_frame_bytes // 2)
        objects = [orjson.dumps(fields) for fields in self.translate_pieces(event, bodies)]
        id_line = f"id: {event.epoch}:{event.seq}\n".encode() if self.can_resume_after(event) else b""
        # Only the last object has the id: if the connection is lost before it, all objects are sent again.
        return b"".join(
            http_chunk(b"%bdata: %b\n\n" % (id_line if number == len(objects) else b"", escape_separators(data)))
            for number, data in enumerate(objects, 1)
        )

    def translate_pieces(self, event: Event, pieces: list[Body]) -> list[dict[str, Any]]:
        """Return *event* as JSON objects. *pieces* are the event's body, or the pieces of a long one."""
        return [fields for body in pieces for fields in self.translate(event, body)]

    def can_resume_after(self, event: Event) -> bool:
        """Return whether the translated event has an id, after which a client can resume."""
        return True

    @abstractmethod
    def translate(self, event: Event, body: Any) -> list[dict[str, Any]]:
        """Return *event* as JSON objects, or [] to skip it. *body* is the event's body or a piece of the body."""

    def answer(self, notice: Notice) -> bytes:
        return b""

    notice = answer


@functools.cache
def open_sse_protocol(out_frame_bytes: int) -> SseProtocol:
    """Return the protocol for frames of at most *out_frame_bytes*; all clients share this object."""
    protocol = SseProtocol()
    protocol.out_frame_bytes = out_frame_bytes
    return protocol

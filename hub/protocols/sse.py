"""Server-sent events: what the extended protocol says, as a stream over HTTP.

The bytes are chunks of HTTP/1.1 (RFC 9112, 7.1), so that they are the same for all clients. An event's id is
`EPOCH:SEQ`, which a browser hands back as `Last-Event-ID`.
"""

import functools
from abc import abstractmethod
from typing import Any

import orjson

from hub.messages import BODIES, Event, Notice
from hub.protocols.cutting import split_body
from hub.protocols.extended import ExtendedProtocol


def http_chunk(data: bytes) -> bytes:
    """Return *data* as one chunk of a body whose length is not known."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def format_event(kind: str, data: bytes, place: str = "") -> bytes:
    """Return one event; without *place* it moves no cursor."""
    head = f"id: {place}\nevent: {kind}\n" if place else f"event: {kind}\n"
    return http_chunk(b"%bdata: %b\n\n" % (head.encode(), data))


PING = http_chunk(b": ping\n\n")


class SseProtocol(ExtendedProtocol):
    name = "sse"

    def frame(self, fields: dict[str, Any], data: bytes) -> bytes:
        kind = fields["type"]
        # A notice has no place in the log; the seq of some notices is the head of the log.
        place = f"{fields['epoch']}:{fields['seq']}" if "seq" in fields and kind in BODIES else ""
        return format_event(kind, data, place)


class RunStream(SseProtocol):
    """One run for one client, in the words of another protocol; whatever else is said in its session is left out."""

    notices = False
    shared = False

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id

    def event(self, event: Event) -> bytes:
        if event.runId != self.run_id:
            return b""
        bodies = split_body(event.body, self.out_frame_bytes // 2)
        said = [orjson.dumps(fields) for body in bodies for fields in self.translate(event, body)]
        place = f"id: {event.epoch}:{event.seq}\n".encode()
        # Only the last carries the place: a cut between them loses nothing.
        return b"".join(
            http_chunk(b"%bdata: %b\n\n" % (place if at == len(said) else b"", data)) for at, data in enumerate(said, 1)
        )

    @abstractmethod
    def translate(self, event: Event, body: Any) -> list[dict[str, Any]]:
        """Return what an event of the run is, as JSON objects."""

    def answer(self, notice: Notice) -> bytes:
        return b""

    notice = answer


@functools.cache
def open_sse_protocol(out_frame_bytes: int) -> SseProtocol:
    """Return the protocol for frames of at most so many bytes; all its clients share one, and its encoded events."""
    stream = SseProtocol()
    stream.out_frame_bytes = out_frame_bytes
    return stream

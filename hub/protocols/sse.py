"""Server-sent events: what the extended protocol says, as a stream over HTTP.

The bytes are chunks of HTTP/1.1 (RFC 9112, 7.1), so that they are the same for all clients. An event's id is
`EPOCH:SEQ`, which a browser hands back as `Last-Event-ID`.
"""

from abc import abstractmethod
from typing import Any

import orjson
from msgspec.structs import replace

from hub.messages import Event, Notice, WholeMessage
from hub.protocols.extended import Extended, event_fields, notice_fields


def chunk(data: bytes) -> bytes:
    """Return *data* as one chunk of a body whose length is not known."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def server_sent(kind: str, data: bytes, place: str = "") -> bytes:
    """Return one event; without *place* it moves no cursor."""
    head = f"id: {place}\nevent: {kind}\n" if place else f"event: {kind}\n"
    return chunk(b"%bdata: %b\n\n" % (head.encode(), data))


PING = chunk(b": ping\n\n")


class ServerSent(Extended):
    name = "sse"

    def event(self, event: Event) -> bytes:
        place = f"{event.epoch}:{event.seq}"
        return server_sent(event.body.type, orjson.dumps(event_fields(event)), place)

    def whole(self, event: Event, message_id: str, content: str) -> bytes:
        message = event_fields(replace(event, body=WholeMessage(message_id, content)))
        del message["seq"]  # the event that follows carries it: a cut between the two loses nothing
        return server_sent(message["type"], orjson.dumps(message)) + self.event(event)

    def answer(self, notice: Notice) -> bytes:
        return server_sent(notice.type, orjson.dumps(notice_fields(notice)))

    notice = answer


class OneRun(ServerSent):
    """One run for one client, in the words of another protocol; whatever else is said in its session is left out."""

    notices = False
    shared = False

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id

    def event(self, event: Event) -> bytes:
        if event.runId != self.run_id:
            return b""
        said = [orjson.dumps(fields) for fields in self.said(event, event.body)]
        place = f"id: {event.epoch}:{event.seq}\n".encode()
        # Only the last carries the place: a cut between them loses nothing.
        return b"".join(
            chunk(b"%bdata: %b\n\n" % (place if at == len(said) else b"", data)) for at, data in enumerate(said, 1)
        )

    @abstractmethod
    def said(self, event: Event, body: Any) -> list[dict[str, Any]]:
        """Return what an event of the run is, as JSON objects."""

    def answer(self, notice: Notice) -> bytes:
        return b""

    notice = answer


SSE = ServerSent()

"""Decode server-sent events (WHATWG HTML, section 9.2) as they come in; pure: no loop, no socket."""

import re

import attrs

LINE_END = re.compile(rb"\r\n|\r|\n")


@attrs.frozen
class Incoming:
    """One event: its data, and its name where it has one. *is_body* marks a whole body that is no stream."""

    data: str
    name: str = ""
    is_body: bool = False


class Decoder:
    """Turn bytes, cut anywhere, into events. Ids and retry times are dropped: the endpoints of models use none."""

    def __init__(self, limit: int = 1024 * 1024) -> None:
        self._limit = limit
        self._size = 0
        self._line: list[bytes] = []  # of the line that has not ended
        self._data: list[bytes] = []  # the lines of the event that has not ended
        self._name = b""
        self._after_cr = False
        self._at_start = True

    def feed(self, data: bytes) -> list[Incoming]:
        """Return each event that *data* finishes; raises ValueError for one longer than the limit."""
        if self._after_cr and data:  # the second half of a \r\n is no line of its own
            self._after_cr = False
            data = data.removeprefix(b"\n")
        self._after_cr = self._after_cr or data.endswith(b"\r")
        *ended, rest = LINE_END.split(data)
        events: list[Incoming] = []
        for end in ended:
            self._keep(end)
            self._take(b"".join(self._line), events)
            self._line.clear()
        self._keep(rest)
        return events

    def end(self) -> list[Incoming]:
        """Return the event that the end of the stream left without its empty line.

        The standard drops it, but some endpoints write no empty line after their last event.
        """
        return self.feed(b"\n\n")

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limit:
            raise ValueError(f"an event is longer than {self._limit} bytes")
        self._line.append(part)

    def _take(self, line: bytes, events: list[Incoming]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line:
            self._field(line)
            return
        if self._data:
            data = b"\n".join(self._data).decode(errors="replace")
            events.append(Incoming(data, self._name.decode(errors="replace")))
        self._data.clear()
        self._name, self._size = b"", 0

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            return
        if name == b"event":
            self._name = value
        self._size -= len(line)  # a comment or another field is not kept, so it does not count

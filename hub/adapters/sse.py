"""Decode server-sent events (WHATWG HTML, section 9.2) from bytes; the decoder does no I/O."""

import re

import attrs

LINE_END = re.compile(rb"\r\n|\r|\n")


@attrs.frozen
class ServerSentEvent:
    """One event: its data, and its name if it has one.

    *is_body* is True if the data is a whole body, not an event of a stream.
    """

    data: str
    name: str = ""
    is_body: bool = False


class SSEDecoder:
    """Turn bytes, split at any position, into events.

    Ids and retry times are dropped, because model endpoints do not use them.
    """

    def __init__(self, limit: int = 1024 * 1024) -> None:
        self._limit = limit
        self._size = 0
        self._line: list[bytes] = []  # the parts of the current line
        self._data: list[bytes] = []  # the data lines of the current event
        self._name = b""
        self._is_after_cr = False
        self._is_first_line = True

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Return each event that *data* completes. Raises ValueError for an event or a line longer than the limit."""
        if self._is_after_cr and data:  # the \n of a \r\n does not end another line
            self._is_after_cr = False
            data = data.removeprefix(b"\n")
        if data.endswith(b"\r"):
            self._is_after_cr = True
        *parts, rest = LINE_END.split(data)
        events: list[ServerSentEvent] = []
        for part in parts:  # each is the rest of a line, and a line end follows it
            self._append(part)
            self._end_line(b"".join(self._line), events)
            self._line.clear()
        self._append(rest)
        return events

    def end(self) -> list[ServerSentEvent]:
        """End the stream. Return its last event if no empty line followed that event.

        The standard drops such an event, but some endpoints send no empty line after their last event.
        """
        return self.feed(b"\n\n")

    def _append(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limit:
            raise ValueError(f"an event is longer than {self._limit} bytes")
        self._line.append(part)

    def _end_line(self, line: bytes, events: list[ServerSentEvent]) -> None:
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line:
            self._read_field(line)
            return
        if self._data:
            data = b"\n".join(self._data).decode(errors="replace")
            events.append(ServerSentEvent(data, self._name.decode(errors="replace")))
        self._data.clear()
        self._name, self._size = b"", 0

    def _read_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            return
        if name == b"event":
            self._name = value
        self._size -= len(line)  # a comment or another field counts only until its line ends: the limit is for data

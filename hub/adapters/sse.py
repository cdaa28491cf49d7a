"""Decode server-sent events (WHATWG HTML, section 9.2) as they come in; pure: no loop, no socket."""

import re

LINE_END = re.compile(rb"\r\n|\r|\n")


class Decoder:
    """Turn bytes, cut anywhere, into the data of events.

    Names, ids and retry times of events are dropped: the endpoints of models use none. An event without its empty
    line at the end of the stream is no event.
    """

    def __init__(self, limit: int = 1024 * 1024) -> None:
        self._limit = limit
        self._size = 0
        self._line: list[bytes] = []  # of the line that has not ended
        self._data: list[bytes] = []  # the lines of the event that has not ended
        self._after_cr = False
        self._at_start = True

    def feed(self, data: bytes) -> list[str]:
        """Return the data of each event that *data* finishes; raises ValueError for one longer than the limit."""
        if self._after_cr and data:  # the second half of a \r\n is no line of its own
            self._after_cr = False
            data = data.removeprefix(b"\n")
        self._after_cr = self._after_cr or data.endswith(b"\r")
        *ended, rest = LINE_END.split(data)
        events: list[str] = []
        for end in ended:
            self._keep(end)
            self._take(b"".join(self._line), events)
            self._line.clear()
        self._keep(rest)
        return events

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limit:
            raise ValueError(f"an event is longer than {self._limit} bytes")
        self._line.append(part)

    def _take(self, line: bytes, events: list[str]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
            else:  # a comment or another field is not kept, so it does not count
                self._size -= len(line)
            return
        if self._data:
            events.append(b"\n".join(self._data).decode(errors="replace"))
        self._data.clear()
        self._size = 0

"""Measure the load of a thread."""

from time import perf_counter, thread_time

import attrs


@attrs.define
class ThreadLoad:
    """The share of one processor that a thread uses. Create the object and call measure() in that thread."""

    _start: tuple[float, float] = attrs.Factory(lambda: (perf_counter(), thread_time()))

    def measure(self) -> float:
        """Return the share, from 0 to 1, since the last call or the creation."""
        start, self._start = self._start, (perf_counter(), thread_time())
        return (self._start[1] - start[1]) / max(self._start[0] - start[0], 1e-6)

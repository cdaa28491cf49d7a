"""Measure the load of a thread."""

from time import perf_counter, thread_time

import attrs


@attrs.define
class ThreadLoad:
    """The share of one processor that a thread uses; the same thread creates this object and calls measure()."""

    _start: tuple[float, float] = attrs.Factory(lambda: (perf_counter(), thread_time()))

    def measure(self) -> float:
        """Return the share since the last call, from 0 to 1."""
        start, self._start = self._start, (perf_counter(), thread_time())
        return (self._start[1] - start[1]) / max(self._start[0] - start[0], 1e-6)

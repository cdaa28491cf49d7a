"""How busy a thread is."""

from time import perf_counter, thread_time

import attrs


@attrs.define
class ThreadLoad:
    """The share of one processor that the thread uses which makes this and looks."""

    _since: tuple[float, float] = attrs.Factory(lambda: (perf_counter(), thread_time()))

    def measure(self) -> float:
        """Return the share since the last look, from 0 to 1."""
        before, self._since = self._since, (perf_counter(), thread_time())
        return (self._since[1] - before[1]) / max(self._since[0] - before[0], 1e-6)

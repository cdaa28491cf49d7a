"""A histogram of durations, and the bounds of the hub's histograms."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

import attrs

# The upper bounds of the buckets, in seconds. A commit takes milliseconds, an answer up to an hour.
STEP_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
WAIT_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
ANSWER_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)


@attrs.define(eq=False)
class Histogram:
    """Counts durations in buckets. One thread adds, and every thread may read.

    *counts* has one number for each of *bounds*, and a last one for longer durations. *seconds* is the sum.
    """

    bounds: Sequence[float]
    seconds: float = 0.0
    counts: list[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    @property
    def total(self) -> int:
        """The number of durations."""
        return sum(self.counts)

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds

    def list_buckets(self) -> list[tuple[str, float]]:
        """Return the bounds as text, each with the number of durations up to it, as Prometheus counts them."""
        names = [*map(str, self.bounds), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))

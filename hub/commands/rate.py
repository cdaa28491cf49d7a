"""How often something may happen."""

import attrs


@attrs.define(eq=False, repr=False)
class Rate:
    """A leaky bucket as a meter: *burst* at once, and *per_second* more for each second that passes."""

    per_second: float
    burst: int
    _level: float = 0.0
    _last: float = 0.0

    def excess(self, now: float) -> float:
        """Count one more at *now*; return by how many the count is past the burst, 0 where it is not.

        What is past the burst is counted, too: the excess of one who goes on too fast grows.
        """
        level = self._level - (now - self._last) * self.per_second
        self._level = level = level + 1.0 if level > 0.0 else 1.0
        self._last = now
        return level - self.burst if level > self.burst else 0.0

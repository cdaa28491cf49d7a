"""Limit the rate of calls."""

import attrs


@attrs.define(eq=False, repr=False)
class Rate:
    """A leaky bucket: it allows *burst* calls at once, and *per_second* more calls after each second."""

    per_second: float
    burst: int
    _level: float = 0.0
    _last_time: float = 0.0

    def add(self, now: float) -> float:
        """Count one call at the time *now*, in seconds. Return the number of calls above the limit, or 0.

        Calls above the limit count too: the excess grows while a client does not slow down.
        """
        level = self._level - (now - self._last_time) * self.per_second
        self._level = level = level + 1.0 if level > 0.0 else 1.0
        self._last_time = now
        return level - self.burst if level > self.burst else 0.0

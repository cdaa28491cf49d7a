"""Log lines that strangers can cause, at a limited rate: they must not fill the disk."""

from typing import Any

import attrs
import structlog

log = structlog.get_logger()


@attrs.define(eq=False, repr=False)
class RareLog:
    """Writes at most one warning in *seconds*. The next line says how many lines were left out in between."""

    seconds: float
    _next_time: float = attrs.field(default=float("-inf"), init=False)
    _left_out: int = attrs.field(default=0, init=False)

    def warn(self, now: float, event: str, **fields: Any) -> None:
        """Write a line, or leave it out. *now* is the time of the event loop's clock."""
        if now < self._next_time:
            self._left_out += 1
            return
        if self._left_out:
            fields["left_out"] = self._left_out
        self._next_time, self._left_out = now + self.seconds, 0
        log.warning(event, **fields)

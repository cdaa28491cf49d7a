"""The time limits of an answer: in total, between two outputs, and after a cancel."""

import asyncio
from collections.abc import Callable

import attrs

from hub.messages import StopReason


@attrs.define(eq=False, repr=False, kw_only=True)
class Deadlines:
    """The timers of one answer.

    *stop* is called with `timeout` when the total time or the silence reaches its limit. While *is_excused* returns
    True, silence reaches no limit. *last_output* is the time of the agent's last output or of the last note_output(),
    by the clock of the loop: the silence is measured from this time.
    """

    stop: Callable[[StopReason], None]
    is_excused: Callable[[], bool]
    last_output: float = 0.0
    _timers: dict[str, asyncio.TimerHandle] = attrs.Factory(dict)  # by limit: time, silence or grace
    _loop: asyncio.AbstractEventLoop = attrs.Factory(asyncio.get_running_loop)

    def start(self, run_seconds: float, silence_seconds: float) -> None:
        """Start the timers of the total time and of the silence. Call this when the agent's code starts."""
        self.note_output()
        self._timers["time"] = self._loop.call_later(run_seconds, self.stop, "timeout")
        self._timers["silence"] = self._loop.call_later(silence_seconds, self._check_silence, silence_seconds)

    def start_grace(self, seconds: float, on_end: Callable[[], None]) -> None:
        """Call *on_end* after *seconds*, unless clear() is called first."""
        self._timers["grace"] = self._loop.call_later(seconds, on_end)

    def note_output(self) -> None:
        """Measure the silence from now on."""
        self.last_output = self._loop.time()

    def clear(self) -> None:
        """Cancel all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _check_silence(self, limit: float) -> None:
        silence = self._loop.time() - self.last_output
        if silence >= limit and not self.is_excused():
            self.stop("timeout")
        else:
            self._timers["silence"] = self._loop.call_later(
                max(limit - silence, limit / 10), self._check_silence, limit
            )

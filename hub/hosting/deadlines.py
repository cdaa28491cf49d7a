"""How long a run may take: in all, in silence, and after it was stopped."""

import asyncio
from collections.abc import Callable

import attrs

from hub.messages import StopReason


@attrs.define(eq=False, repr=False, kw_only=True)
class Deadlines:
    """The timers of one run.

    *stop* is called where it takes too long. *heard* is when its agent last gave anything, in the loop's time.
    *is_excused* tells whether a silence is not the agent's fault now.
    """

    stop: Callable[[StopReason], None]
    is_excused: Callable[[], bool]
    last_output: float = 0.0
    _timers: dict[str, asyncio.TimerHandle] = attrs.Factory(dict)  # by what each is for
    _loop: asyncio.AbstractEventLoop = attrs.Factory(asyncio.get_running_loop)

    def start(self, run_seconds: float, silence_seconds: float) -> None:
        """Let the time run: the agent's code is called."""
        self.note()
        self._timers["time"] = self._loop.call_later(run_seconds, self.stop, "timeout")
        self._timers["silence"] = self._loop.call_later(silence_seconds, self._look, silence_seconds)

    def start_grace(self, seconds: float, over: Callable[[], None]) -> None:
        """Call *over* after so long: the run was stopped, and its code may go on until then."""
        self._timers["grace"] = self._loop.call_later(seconds, over)

    def note(self) -> None:
        """Note that the agent is not silent now."""
        self.last_output = self._loop.time()

    def clear(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _look(self, limit: float) -> None:
        silence = self._loop.time() - self.last_output
        if silence >= limit and not self.is_excused():
            self.stop("timeout")
        else:
            self._timers["silence"] = self._loop.call_later(max(limit - silence, limit / 10), self._look, limit)

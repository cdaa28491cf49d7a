"""Measure the times of a run for the metrics."""

import asyncio

import attrs

from hub.observe.counters import AnswerCounters


def _read_clock() -> float:
    return asyncio.get_running_loop().time()


@attrs.define(eq=False)
class RunTimer:
    """Measures one run from its creation on. Call the methods in their order; each step may be left out.

    A run that ends before its agent was called is not counted.
    """

    agent_id: str
    counters: AnswerCounters
    _creation_time: float = attrs.field(factory=_read_clock, init=False)
    _call_time: float | None = attrs.field(default=None, init=False)

    def note_call(self) -> None:
        """The agent is called now."""
        self._call_time = _read_clock()
        self.counters.waits[self.agent_id].add(self._call_time - self._creation_time)

    def note_first_output(self) -> None:
        """The first output of the agent is delivered."""
        if self._call_time is not None:
            self.counters.first_outputs[self.agent_id].add(_read_clock() - self._call_time)

    def note_end(self) -> None:
        """The run has ended."""
        if self._call_time is not None:
            self.counters.durations[self.agent_id].add(_read_clock() - self._call_time)

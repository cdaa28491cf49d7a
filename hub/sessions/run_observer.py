"""Measure the times of a run for the metrics, and trace the run."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import attrs
from msgspec import UNSET

from hub.errors import AgentError
from hub.ids import id_of
from hub.messages import Body, StopReason
from hub.observe import gen_ai
from hub.observe.counters import AnswerCounters
from hub.sessions.answer_writer import AnswerWriter
from hub.storage.records import RunRecord

if TYPE_CHECKING:
    from hub.observe.otel import AnswerSpan, Tracing


def _read_clock() -> float:
    return asyncio.get_running_loop().time()


@attrs.define(eq=False)
class RunObserver:
    """Observes one run from its creation on. Call the methods in their order; each step may be left out.

    The durations leave out a run that ends before its agent is called. Its span starts when the run ends. The span ends
    when the log holds the end of the run: then the next start of the hub does not end the run once more. *tracing* is
    None while `otel` is off: then there is no span.
    """

    record: RunRecord
    counters: AnswerCounters
    tracing: "Tracing | None"
    _creation_time: float = attrs.field(factory=_read_clock, init=False)
    _call_time: float | None = attrs.field(default=None, init=False)
    _span: "AnswerSpan | None" = attrs.field(default=None, init=False)
    _end_span: Callable[[], None] | None = attrs.field(default=None, init=False)

    def note_call(self) -> "AnswerSpan | None":
        """Note that the agent is called now. Return the span of the run."""
        self._call_time = _read_clock()
        self.counters.waits[self.record.agentId].add(self._call_time - self._creation_time)
        if self.tracing is not None:
            self._span = self._start_span(self.tracing, self._call_time)
        return self._span

    def note_first_output(self) -> None:
        """Note that the first output of the agent was delivered."""
        if self._call_time is None:
            return
        seconds = _read_clock() - self._call_time
        self.counters.first_outputs[self.record.agentId].add(seconds)
        if self._span is not None:
            self._span.note_first_output(seconds)

    def note_event(self, event: Body) -> None:
        """Note an event of the agent that is not text."""
        if self._span is not None:
            self._span.note_event(event)

    def note_end(self, reason: StopReason, error: AgentError | None, writer: AnswerWriter) -> None:
        """Note that the run has ended. *writer* has all its messages."""
        now = _read_clock()
        if self._call_time is not None:
            self.counters.durations[self.record.agentId].add(now - self._call_time)
        if self.tracing is None:
            return
        span = self._span or self._start_span(self.tracing, now)
        for message in writer.messages:
            span.note_text(message.content)
        self._end_span = partial(span.end, reason, None if error is None else error.code, writer.finish.usage)

    def note_logged_end(self) -> None:
        """Note that the log and the clients have the end of the run."""
        if self._end_span is not None:
            self._end_span()

    def note_suspension(self) -> None:
        """Note that the run stops, and starts again at the next start of the hub."""
        if self._span is not None:
            self._span.end("suspended")

    def _start_span(self, tracing: "Tracing", now: float) -> "AnswerSpan":
        record = self.record
        ids = {"session": id_of(record.key), "run": record.runId, "agent": record.agentId}
        origin = None if record.trace is UNSET else record.trace
        facts: dict[str, str | float] = {
            gen_ai.RUN_ATTEMPT: record.attempt,
            gen_ai.QUEUE_SECONDS: now - self._creation_time,
        }
        if record.parentRunId is not None:
            facts[gen_ai.PARENT_RUN_ID] = record.parentRunId
        return tracing.start_run(ids, record.message, origin, **facts)

"""Run the code of an agent for one answer: in a task, in a slot of the agent, within the agent's limits."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import attrs
import structlog

from hub.errors import AgentError
from hub.hosting.call_reporter import CallReporter
from hub.hosting.deadlines import Deadlines
from hub.hosting.faults import log_and_convert
from hub.hosting.hosted import Agent
from hub.hosting.metering import AnswerMeters
from hub.hosting.slots import Slot
from hub.limits import Limits
from hub.messages import StopReason
from hub.observe.agents import run_ids
from hub.pools import running_agent

if TYPE_CHECKING:
    from hub.observe.otel import AnswerSpan

log = structlog.get_logger()


@attrs.define(eq=False, repr=False, kw_only=True)
class AgentTask:
    """One answer of an agent, whose code runs in an asyncio task. The end of the task releases *slot*.

    *ids* are the fields `session`, `run` and `agent` of log lines. *stop* is called when the code reaches a time limit,
    *on_end* when the code has ended, and *on_abandon* when cancelled code still runs after the grace time.
    *is_excused* returns whether the agent may be silent: it waits for the reader of its output, or for a reply to a
    question.
    *depth* is 0 for an answer to a client; a called answer has the depth of its caller plus 1. *calls* are the answers
    that this answer called, and that still run. They are cancelled when the code of this answer ends or is abandoned.
    *meters* measures the answers outside sessions: an answer shares it with the answers that it calls.
    *span* is None before start(), and while `otel` is off. *reporter* is None outside of a session.
    """

    slot: Slot
    ids: Mapping[str, str]
    limits: Limits
    stop: Callable[[StopReason], None]
    is_excused: Callable[[], bool]
    on_end: Callable[[asyncio.Task[None]], None]
    on_abandon: Callable[[], None]
    depth: int = 0
    task: asyncio.Task[None] | None = None
    deadlines: Deadlines = attrs.field(init=False)
    calls: set["AgentTask"] = attrs.Factory(set)
    meters: AnswerMeters = attrs.Factory(AnswerMeters)
    is_cancelled: bool = False
    span: "AnswerSpan | None" = None
    reporter: CallReporter | None = None

    def __attrs_post_init__(self) -> None:
        self.deadlines = Deadlines(stop=self.stop, is_excused=self.is_excused)

    @property
    def agent(self) -> Agent:
        return self.slot.agent

    def start(self, code: Coroutine[Any, Any, None], span: "AnswerSpan | None" = None) -> None:
        """Start the code, and the timers of its limits. *span* is the current span of the code; the caller ends it."""
        marks, limits = self.agent.marks, self.limits
        self.deadlines.start(marks.time_limit or limits.run_seconds, marks.silence_limit or limits.silence_seconds)
        context = copy_context()
        context.run(running_agent.set, self.agent.id)
        context.run(run_ids.set, self.ids)
        if span is not None:
            self.span = span
            context.run(span.enter)
        self.task = asyncio.create_task(code, name=f"run {self.ids['run']}", context=context)
        self.task.add_done_callback(self._on_done)

    def cancel(self) -> None:
        """Cancel the code; call abandon() after the grace time. Before start(), only release the slot.

        A second call does nothing."""
        if self.task is None:
            self.slot.release()
        elif not self.task.done() and not self.is_cancelled:
            self.is_cancelled = True
            self.task.cancel()
            self.deadlines.start_grace(self.limits.grace_seconds, self.abandon)

    def abandon(self) -> None:
        """Stop waiting for code that was cancelled but still runs: call *on_abandon*, and cancel its calls.

        Also vacate the slot, and cancel the code again, unless the code is a plain function.
        """
        if self.task is None or self.task.done() or not self.is_cancelled:
            return
        log.warning("agent ignores its cancel; its further output is dropped", **self.ids)
        self.deadlines.clear()
        self._cancel_calls()
        self.on_abandon()
        if self.agent.plain_function is None:
            # A plain function keeps its slot and its task until its thread ends, because a thread cannot be cancelled.
            self.slot.vacate()
            self.task.cancel()  # code that suppressed the first cancel may obey a second one

    def log_and_convert(self, error: BaseException, generator: Any = None) -> AgentError:
        """Log an exception of the code, and return the error that clients get; see hub.hosting.faults."""
        return log_and_convert(self.agent, error, self.ids, generator)

    def check_can_call(self) -> None:
        """Raise AgentError if the code may not call another agent now."""
        limit = self.limits.call_depth
        if self.depth >= limit:
            line = f"agent {self.agent.id} cannot call another agent: {limit} calls inside each other are the limit"
            raise AgentError(line, "call_depth")
        if self.task is None or asyncio.get_running_loop() is not self.task.get_loop():
            raise AgentError(f"agent {self.agent.id} can call another agent only in an `async def` function")
        if not self.slot.is_used:
            raise AgentError(f"agent {self.agent.id} cannot call another agent: its answer has ended")

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self.slot.release()
        self.deadlines.clear()
        self._cancel_calls()
        self.on_end(task)

    def _cancel_calls(self) -> None:
        for call in list(self.calls):
            call.cancel()

"""Run the code of an agent for one answer: in a task, in a slot of the agent, within the agent's limits."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextvars import copy_context
from typing import Any

import attrs
import structlog

from hub.errors import AgentError
from hub.hosting.deadlines import Deadlines
from hub.hosting.faults import explain
from hub.hosting.hosted import Agent
from hub.hosting.slots import Slot
from hub.limits import Limits
from hub.messages import StopReason
from hub.observe.agents import run_ids
from hub.pools import running_agent

log = structlog.get_logger()


@attrs.define(eq=False, repr=False, kw_only=True)
class AgentTask:
    """One answer of an agent while the agent's code runs, in an asyncio task. The end of the task releases *slot*.

    *ids* are the `session`, `run` and `agent` of log lines. The task calls *stop* when the code reaches a time limit,
    *on_end* when the code has ended, and *on_abandon* when the code still runs after a cancel and the grace time.
    *is_excused* returns whether the agent is silent because it waits for others. *depth* counts the answers that called
    each other up to this one. *calls* are the answers that this one called; they are cancelled with this one.
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
    is_cancelled: bool = False

    def __attrs_post_init__(self) -> None:
        self.deadlines = Deadlines(stop=self.stop, is_excused=self.is_excused)

    @property
    def agent(self) -> Agent:
        return self.slot.agent

    def start(self, code: Coroutine[Any, Any, None]) -> None:
        """Start the code and the timers."""
        marks, limits = self.agent.marks, self.limits
        self.deadlines.start(marks.time_limit or limits.run_seconds, marks.silence_limit or limits.silence_seconds)
        context = copy_context()
        context.run(running_agent.set, self.agent.id)
        context.run(run_ids.set, self.ids)
        self.task = asyncio.create_task(code, name=f"run {self.ids['run']}", context=context)
        self.task.add_done_callback(self._on_done)

    def cancel(self) -> None:
        """Cancel the code, and abandon it after the grace time. A second call does nothing."""
        if self.task is None:
            self.slot.release()
        elif not self.task.done() and not self.is_cancelled:
            self.is_cancelled = True
            self.task.cancel()
            self.deadlines.start_grace(self.limits.grace_seconds, self.abandon)

    def abandon(self) -> None:
        """Stop waiting for code that was cancelled but still runs; its output is dropped."""
        if self.task is None or self.task.done() or not self.is_cancelled:
            return
        log.warning("agent ignores its cancel; its further output is dropped", **self.ids)
        self.deadlines.clear()
        self._cancel_calls()
        self.on_abandon()
        if self.agent.work is None:
            # Not for a plain function: its thread cannot be cancelled, so its slot and its task stay until it ends.
            self.slot.vacate()
            self.task.cancel()  # code that suppressed the first cancel may obey a second one

    def explain(self, error: BaseException, generator: Any = None) -> AgentError:
        """Log an exception of the code, and return the error that clients get; see hub.hosting.faults.explain."""
        return explain(self.agent, error, self.ids, generator)

    def check_calls(self) -> None:
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

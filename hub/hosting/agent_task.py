"""Run an agent's code for one answer, whoever asked for it: in a slot of the agent, within the agent's limits."""

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
    """One answer of an agent while its code runs, in a task of its own. The end of the task releases *slot*.

    *ids* are the `session`, `run` and `agent`, for the hub's output. *stop* is called when the code takes longer than
    its limits, *ended* when the code has ended, and *abandoned* when it goes on after a cancel and its grace time.
    *is_excused* returns whether the agent is silent because it waits for others. *depth* counts the calls above this
    answer: 0 for an answer that no agent called. *calls* are the answers that this one called; they are cancelled with
    it.
    """

    slot: Slot
    ids: Mapping[str, str]
    limits: Limits
    stop: Callable[[StopReason], None]
    is_excused: Callable[[], bool]
    ended: Callable[[asyncio.Task[None]], None]
    abandoned: Callable[[], None]
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

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Start the code, and its timers."""
        marks, limits = self.agent.marks, self.limits
        self.deadlines.start(marks.time_limit or limits.run_seconds, marks.silence_limit or limits.silence_seconds)
        context = copy_context()
        context.run(running_agent.set, self.agent.id)
        context.run(run_ids.set, self.ids)
        self.task = asyncio.create_task(work, name=f"run {self.ids['run']}", context=context)
        self.task.add_done_callback(self._worked)

    def cancel(self) -> None:
        """Cancel the code; after the grace time, abandon it. A second call does nothing."""
        if self.task is None:
            self.slot.release()
        elif not self.task.done() and not self.is_cancelled:
            self.is_cancelled = True
            self.task.cancel()
            self.deadlines.start_grace(self.limits.grace_seconds, self.abandon)

    def abandon(self) -> None:
        """Stop waiting for code that was cancelled but goes on: its output is dropped."""
        if self.task is None or self.task.done() or not self.is_cancelled:
            return
        log.warning("agent ignores its cancel; its later output is dropped", **self.ids)
        self.deadlines.clear()
        self._cancel_calls()
        self.abandoned()
        if self.agent.work is None:
            # A thread goes on whatever its task does: it keeps its slot, and is waited for.
            self.slot.vacate()
            self.task.cancel()  # it may have suppressed the first cancel, and obey the second one

    def explain(self, error: BaseException, given: Any = None) -> AgentError:
        """Return the error that clients get for an exception of the code; see hub.hosting.faults.explain."""
        return explain(self.agent, error, self.ids, given)

    def check_calls(self) -> None:
        """Raise AgentError if the code may not call another agent now."""
        most = self.limits.call_depth
        if self.depth >= most:
            raise AgentError(f"agent {self.agent.id} cannot call another agent: it is {most} calls deep", "call_depth")
        if self.task is None or asyncio.get_running_loop() is not self.task.get_loop():
            raise AgentError(f"agent {self.agent.id} can call another agent only in an `async def` function")
        if not self.slot.is_used:
            raise AgentError(f"the answer of agent {self.agent.id} has ended: it can call no other agent")

    def _worked(self, task: asyncio.Task[None]) -> None:
        self.slot.release()
        self.deadlines.clear()
        self._cancel_calls()
        self.ended(task)

    def _cancel_calls(self) -> None:
        for call in list(self.calls):
            call.cancel()

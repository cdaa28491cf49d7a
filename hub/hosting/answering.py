"""One answer of an agent's code, whoever asked for it: at a place of the agent, and within the agent's limits."""

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
from hub.hosting.places import Place
from hub.limits import Limits
from hub.messages import StopReason
from hub.observe.agents import run_ids
from hub.pools import running_agent

log = structlog.get_logger()


@attrs.define(eq=False, repr=False, kw_only=True)
class Answering:
    """The code of an agent as it answers: in a task of its own, until *place* is released.

    *ids* are those of its `session`, `run` and `agent`, as the hub's output has them.
    *stop* is called where the code takes longer than it may, *ended* when it has ended, and *abandoned* where it goes
    on though it was cancelled. *is_excused* tells whether a silence is not the agent's fault now. *depth* is how many
    calls deep it is; *calls* are the answers that it called, and that are cancelled with it.
    """

    place: Place
    ids: Mapping[str, str]
    limits: Limits
    stop: Callable[[StopReason], None]
    is_excused: Callable[[], bool]
    ended: Callable[[asyncio.Task[None]], None]
    abandoned: Callable[[], None]
    depth: int = 0
    task: asyncio.Task[None] | None = None
    deadlines: Deadlines = attrs.field(init=False)
    calls: set["Answering"] = attrs.Factory(set)
    is_cancelled: bool = False

    def __attrs_post_init__(self) -> None:
        self.deadlines = Deadlines(stop=self.stop, is_excused=self.is_excused)

    @property
    def agent(self) -> Agent:
        return self.place.agent

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Let the code run, and its time."""
        marks, limits = self.agent.marks, self.limits
        self.deadlines.start(marks.time_limit or limits.run_seconds, marks.silence_limit or limits.silence_seconds)
        context = copy_context()
        context.run(running_agent.set, self.agent.id)
        context.run(run_ids.set, self.ids)
        self.task = asyncio.create_task(work, name=f"run {self.ids['run']}", context=context)
        self.task.add_done_callback(self._worked)

    def cancel(self) -> None:
        """Stop the code: it has the grace time to end, and is abandoned then. Twice is once."""
        if self.task is None:
            self.place.release()
        elif not self.task.done() and not self.is_cancelled:
            self.is_cancelled = True
            self.task.cancel()
            self.deadlines.start_grace(self.limits.grace_seconds, self.abandon)

    def abandon(self) -> None:
        """Wait no longer for code that was cancelled: it may go on, unheard."""
        if self.task is None or self.task.done() or not self.is_cancelled:
            return
        log.warning("agent ignores its cancel; its later output is dropped", **self.ids)
        self.deadlines.clear()
        self._cancel_calls()
        self.abandoned()
        if self.agent.work is None:
            # A thread goes on whatever its task does: it keeps its place, and is waited for.
            self.place.give_back()
            self.task.cancel()  # it may have swallowed one, and heed another

    def explain(self, error: BaseException, given: Any = None) -> AgentError:
        """Return what is told of a fault of the code; see hub.hosting.faults."""
        return explain(self.agent, error, self.ids, given)

    def check_calls(self) -> None:
        """Raise AgentError where the code may not call another agent."""
        if self.depth >= self.limits.call_depth:
            raise AgentError("agents called each other too deep", "call_depth")
        if self.task is None or asyncio.get_running_loop() is not self.task.get_loop():
            raise AgentError(f"agent {self.agent.id} may call another agent in async def functions only")
        if not self.place.is_held:
            raise AgentError("the answer has ended: it calls no other agent any more")

    def _worked(self, task: asyncio.Task[None]) -> None:
        self.place.release()
        self.deadlines.clear()
        self._cancel_calls()
        self.ended(task)

    def _cancel_calls(self) -> None:
        for call in list(self.calls):
            call.cancel()

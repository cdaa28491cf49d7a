"""The record of one agent of the agents folder."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import attrs

from hub.hosting.contract import Marks, Run

THREAD_RUNS = 32  # the default max_runs of an agent whose answers take a thread each


@attrs.define(eq=False, kw_only=True)
class Agent:
    """An agent of the folder, working or broken.

    *answer* is an async generator function over a run; *work* is a plain one, and runs in a thread. A working agent has
    one of the two; both yield unchecked output. *source* is the `NAME.py:LINE` of the agent's function. *needs_history*
    is False if the function cannot read `run.history`. *error* is the reason of a broken agent for the operator,
    *public_error* the same for clients. *running_answers* counts answers whose code has not ended; *used_slots* counts
    those that `max_runs` limits, without code that ignores its cancel.
    """

    id: str
    description: str = ""
    answer: Callable[[Run], AsyncIterator[Any]] | None = None
    work: Callable[[Run], Iterator[Any]] | None = None
    error: str | None = None
    public_error: str | None = None
    marks: Marks = Marks()
    source: str = ""
    needs_history: bool = True
    running_answers: int = 0
    used_slots: int = 0

    @property
    def is_full(self) -> bool:
        """Return whether all slots are in use."""
        limit = self.marks.max_runs or (THREAD_RUNS if self.work is not None else None)
        return limit is not None and self.used_slots >= limit

    def describe(self) -> dict[str, Any]:
        """Return the agent as JSON for clients."""
        fields = {"agentId": self.id, "description": self.description, "status": "broken" if self.error else "ok"}
        return fields | ({"error": self.public_error} if self.error else {})

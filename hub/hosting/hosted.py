"""One hosted agent, and what the wire says of it."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import attrs

from hub.hosting.contract import Marks, Run

THREAD_RUNS = 32  # at a time, for an agent that takes a thread for each


@attrs.define(eq=False, kw_only=True)
class Agent:
    """Something that answers.

    *answer* is an async generator over a run, for async agents; *work* a plain one, iterated in a thread, for the
    others. Both yield what the agent gives, unchecked. *source* is where its function stands, `NAME.py:LINE`.
    *remembers* says that it may look at what was said before, which must be read for it. *error* is for the operator,
    *told* the same for clients. *running_answers* counts the answers whose code has not ended, *used_slots* those that count
    against `max_runs`: one that ignores its cancel loses its slot when its run has ended.
    """

    id: str
    description: str = ""
    answer: Callable[[Run], AsyncIterator[Any]] | None = None
    work: Callable[[Run], Iterator[Any]] | None = None
    error: str | None = None
    told: str | None = None
    marks: Marks = Marks()
    source: str = ""
    remembers: bool = True
    running_answers: int = 0
    used_slots: int = 0

    @property
    def is_full(self) -> bool:
        """Tell whether it answers as often at a time as it may."""
        most = self.marks.max_runs or (THREAD_RUNS if self.work is not None else None)
        return most is not None and self.used_slots >= most

    def describe(self) -> dict[str, Any]:
        """Return the agent as the wire names it."""
        said = {"agentId": self.id, "description": self.description, "status": "broken" if self.error else "ok"}
        return said | ({"error": self.told} if self.error else {})

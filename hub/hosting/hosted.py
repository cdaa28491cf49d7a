"""The record of one agent of the agents folder."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import attrs

from hub.errors import ToolsUnsupported
from hub.hosting.contract import Marks, Run
from hub.messages import Request

THREAD_RUNS = 32  # the default max_runs of an agent whose answers take a thread each


@attrs.define(eq=False, kw_only=True)
class Agent:
    """An agent of the folder, working or broken.

    A working agent has one of two functions, which is called with a run. *async_function* returns an async iterator.
    *plain_function* returns an iterator, which runs in a thread. The output of both is unchecked. An agent whose
    adapter was only checked has neither function.

    *source* is the file and line of the function, as NAME.py:LINE, or the name of the TOML file. *needs_history* is
    False if the function cannot read `run.history`. *error* says to the operator why an agent is broken, *public_error*
    says it to clients. *running_answers* is the number of answers whose code has not ended. *used_slots* is the number
    of these answers that count for `max_runs`: async code that ignores its cancel does not count.
    """

    id: str
    description: str = ""
    async_function: Callable[[Run], AsyncIterator[Any]] | None = None
    plain_function: Callable[[Run], Iterator[Any]] | None = None
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
        limit = self.marks.max_runs or (THREAD_RUNS if self.plain_function is not None else None)
        return limit is not None and self.used_slots >= limit

    def check_request(self, request: Request | None) -> None:
        """Raise ToolsUnsupported if an answer must call a tool, and the agent takes no tools."""
        if request is not None and request.is_tool_required and not self.marks.tools:
            text = f"agent {self.id} takes no tools, and the request requires a tool call: leave out the tool choice"
            raise ToolsUnsupported(f"{text}, or use another agent", agentId=self.id)

    def describe(self) -> dict[str, Any]:
        """Return the agent as JSON for clients."""
        fields = {"agentId": self.id, "description": self.description, "status": "broken" if self.error else "ok"}
        if self.error:
            return fields | {"error": self.public_error}
        return fields | {"tools": True} if self.marks.tools else fields

"""Report the calls between agents in the run of a session, as events of the run."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import attrs

from hub.errors import AgentError
from hub.messages import Body, SubagentError, SubagentFinished, SubagentStarted


@attrs.define(eq=False, kw_only=True)
class CallReporter:
    """Reports the calls of one agent's code. *call_id* is the call that runs this code, or None for the run's own code.

    *write* logs an event; it drops the events of a run that has ended. All reporters of a run share *_numbers*.
    """

    run_id: str
    write: Callable[[Body], None]
    call_id: str | None = None
    _numbers: Iterator[int] = attrs.field(factory=lambda: count(1), alias="numbers")

    def start(self, agent_id: str) -> "CallReporter":
        """Report the start of a call. Return the reporter for the code of the called agent."""
        call_id = f"{self.run_id}-{next(self._numbers)}"
        self.write(SubagentStarted(call_id, agent_id, self.call_id))
        return CallReporter(run_id=self.run_id, write=self.write, call_id=call_id, numbers=self._numbers)


@contextmanager
def report_call(reporter: CallReporter | None, agent_id: str) -> Iterator[CallReporter | None]:
    """Report the start of a call, and its end when the context ends. Yield the reporter for the called agent's code.

    Outside of a session, there is no *reporter*, and nothing is reported.
    """
    if reporter is None:
        yield None
        return
    inner = reporter.start(agent_id)
    call_id, end = inner.call_id or "", None
    try:
        yield inner
    except AgentError as error:
        end = SubagentError(call_id, error.message, error.code)
        raise
    except asyncio.CancelledError:
        end = SubagentError(call_id, "the call was cancelled with its caller", "cancelled")
        raise
    finally:
        reporter.write(end or SubagentFinished(call_id))

"""Call the code of an agent, and check the events that it yields."""

from collections.abc import AsyncIterator
from typing import Any

import attrs
import msgspec
import orjson

from hub.errors import AgentError
from hub.hosting.contract import Run
from hub.hosting.hosted import Agent
from hub.hosting.threads import iterate_in_thread
from hub.limits import format_size
from hub.messages import CONTENT, Body

AGENT_EVENTS = frozenset(CONTENT.values())


def call_agent(agent: Agent, run: Run) -> AsyncIterator[Any]:
    """Return an iterator over the agent's unchecked output. A plain function runs in a thread."""
    if agent.async_function is not None:
        return agent.async_function(run)
    function = agent.plain_function
    assert function is not None, "a call of an agent that is broken, or whose adapter was only checked"
    return iterate_in_thread(lambda: function(run), f"agent {agent.id}")


def copy_event(agent_id: str, event: Body) -> tuple[Body, int]:
    """Return a copy of an agent's event that the log can encode, and its size. Raises AgentError."""
    try:
        # A copy, because the agent may change its object later. It is encoded here, because a value that the log
        # cannot encode would make the whole commit fail, with the events of other sessions.
        data = orjson.dumps(attrs.asdict(event))
        body = msgspec.convert(orjson.loads(data), type(event))
    except (TypeError, RecursionError, msgspec.ValidationError) as error:
        raise AgentError(f"agent {agent_id} gave a bad {event.type}: {error}", "agent_bad_output") from None
    return body, len(data)


def check_size(agent_id: str, size: int, noun: str, limit: int) -> None:
    """Raise AgentError if an output of an agent has more than *limit* bytes."""
    if size > limit:
        raise AgentError(f"agent {agent_id} gave a {noun} of more than {format_size(limit)}", "answer_too_long")

"""Call the code of an agent, and list the types of events that an agent may yield."""

from collections.abc import AsyncIterator
from typing import Any

from hub.hosting.contract import Run
from hub.hosting.hosted import Agent
from hub.hosting.threads import iterate_in_thread
from hub.messages import CONTENT

AGENT_EVENTS = frozenset(CONTENT.values())


def call_agent(agent: Agent, run: Run) -> AsyncIterator[Any]:
    """Return an iterator over the agent's unchecked output. A plain function runs in a thread."""
    if agent.async_function is not None:
        return agent.async_function(run)
    function = agent.plain_function
    assert function is not None, "a call of an agent that is broken, or whose adapter was only checked"
    return iterate_in_thread(lambda: function(run), f"agent {agent.id}")

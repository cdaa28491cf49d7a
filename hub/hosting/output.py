"""Call the code of an agent, and name the types of events that it may yield."""

from collections.abc import AsyncIterator
from typing import Any

from hub.hosting.contract import Run
from hub.hosting.hosted import Agent
from hub.hosting.threads import iterate_in_thread
from hub.messages import CONTENT

AGENT_EVENTS = frozenset(CONTENT.values())


def call_agent(agent: Agent, run: Run) -> AsyncIterator[Any]:
    """Return the agent's output, unchecked. A plain function runs in a thread."""
    if agent.answer is not None:
        return agent.answer(run)
    work = agent.work
    assert work is not None
    return iterate_in_thread(lambda: work(run), f"agent {agent.id}")

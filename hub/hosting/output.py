"""What an agent gives: its pieces, as they come, and the kinds that are no text."""

from collections.abc import AsyncIterator
from typing import Any

from hub.hosting.contract import Run
from hub.hosting.hosted import Agent
from hub.hosting.threads import in_thread
from hub.messages import CONTENT

AGENT_EVENTS = frozenset(CONTENT.values())


def call_agent(agent: Agent, run: Run) -> AsyncIterator[Any]:
    """Return the agent's pieces, unchecked. A plain function runs in a thread."""
    if agent.answer is not None:
        return agent.answer(run)
    work = agent.work
    assert work is not None
    return in_thread(lambda: work(run), f"agent {agent.id}")

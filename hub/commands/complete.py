"""Answer a conversation that is kept nowhere: its messages come with the request."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from hub.access.principal import Principal
from hub.commands.hub import Hub
from hub.errors import Busy
from hub.hosting.calls import TextOrFinish, open_answer
from hub.hosting.contract import Past
from hub.hosting.contract import Run as RunView
from hub.hosting.hosted import Agent
from hub.messages import Role

Pieces = AsyncIterator[TextOrFinish]


async def complete(
    hub: Hub, principal: Principal, agent_id: str, run_id: str, message: str, turns: Sequence[tuple[Role, str]]
) -> AbstractAsyncContextManager[Pieces]:
    """Let an agent answer; *turns* are the earlier messages. The context is an iterator of the text, piece by piece.

    Leaving the context stops the agent. Raises UnknownAgent, AgentBroken; entering the context raises Busy; iteration
    raises AgentError, with the code `timeout` if the agent takes longer than its limits.
    """
    agent = hub.node.agents.get(agent_id)
    history = [Past(role, content) for role, content in turns]
    run = RunView(
        id=run_id, agent=agent.id, session=run_id, message=message, principal=principal.author, history=history
    )
    return _answering(hub, agent, run)


@asynccontextmanager
async def _answering(hub: Hub, agent: Agent, run: RunView) -> AsyncIterator[Pieces]:
    if agent.is_full:
        raise Busy(f"agent {agent.id} is at its limit of simultaneous answers (max_runs): try again later")
    ended, completions = asyncio.Event(), hub.node.completions
    try:
        async with open_answer(hub.node.slots.take(agent), hub.limits, run) as reader:
            completions[ended] = reader
            yield reader
    finally:
        completions.pop(ended, None)
        ended.set()

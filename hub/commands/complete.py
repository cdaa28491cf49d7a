"""Answer a conversation that is kept nowhere: its messages come with the request."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, Literal, cast

from hub.access.principal import Principal
from hub.commands.hub import Hub
from hub.errors import Busy
from hub.hosting.calls import answer
from hub.hosting.contract import Finish, Past
from hub.hosting.hosted import Agent

Role = Literal["user", "assistant", "system"]
Pieces = AsyncIterator[str | Finish]


async def complete(
    hub: Hub, who: Principal, agent_id: str, run_id: str, message: str, turns: Sequence[tuple[Role, str]]
) -> AbstractAsyncContextManager[Pieces]:
    """Let an agent answer; *turns* are what was said before. What the context gives is the text, piece by piece.

    Leaving the context stops the agent. Raises UnknownAgent, AgentBroken; entering the context raises Busy; reading the
    pieces raises AgentError.
    """
    history = [Past(role, content) for role, content in turns]
    return _answering(hub, who, hub.node.agents.get(agent_id), run_id, message, history)


@asynccontextmanager
async def _answering(
    hub: Hub, who: Principal, agent: Agent, run_id: str, message: str, history: Sequence[Past]
) -> AsyncIterator[Pieces]:
    if agent.full:
        raise Busy(f"agent {agent.id} gives as many answers as it may: try again later")
    texts = answer(hub.node.agents, agent, run_id, message, history, who.author, hub.limits.call_depth)
    agent.working += 1
    try:
        async with aclosing(cast(Any, texts)) as pieces:
            yield pieces
    finally:
        agent.working -= 1
        hub.node.freed(agent)

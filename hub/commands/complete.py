"""Answer a conversation that is kept nowhere: its messages come with the request."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, Literal, cast

from hub.access.principal import Principal
from hub.commands.hub import Hub
from hub.errors import Busy
from hub.hosting.calls import answer
from hub.hosting.contract import Finish, Past, Piece
from hub.hosting.faults import said_too_much
from hub.hosting.hosted import Agent
from hub.limits import Limits
from hub.pools import running_agent

Role = Literal["user", "assistant", "system"]
Pieces = AsyncIterator[str | Finish]


async def complete(
    hub: Hub, who: Principal, agent_id: str, run_id: str, message: str, turns: Sequence[tuple[Role, str]]
) -> AbstractAsyncContextManager[Pieces]:
    """Let an agent answer; *turns* are what was said before. What the context gives is the text, piece by piece.

    Leaving the context stops the agent. Raises UnknownAgent, AgentBroken; entering the context raises Busy; reading the
    pieces raises AgentError, and TimeoutError where the agent is silent for too long.
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
    place = hub.node.places.take(agent)
    ended = asyncio.Event()
    hub.node.completions.add(ended)
    token = running_agent.set(agent.id)
    try:
        async with aclosing(cast(Any, texts)) as pieces, aclosing(_bounded(agent, pieces, hub.limits)) as bounded:
            yield bounded
    finally:
        running_agent.reset(token)
        hub.node.completions.remove(ended)
        ended.set()
        place.release()


async def _bounded(agent: Agent, pieces: AsyncIterator[Piece], limits: Limits) -> AsyncGenerator[str | Finish, None]:
    """Yield text and end, within the limits of a run's text and of its silence, which each event of the run ends."""
    silence, size = agent.marks.silence_limit or limits.silence_seconds, 0
    while True:
        async with asyncio.timeout(silence):
            piece = await anext(pieces, None)
        if piece is None:
            return
        if isinstance(piece, str):
            size += len(piece) if piece.isascii() else len(piece.encode(errors="replace"))
            if size > limits.run_bytes:
                raise said_too_much(agent.id, limits.run_bytes)
        if isinstance(piece, (str, Finish)):
            yield piece

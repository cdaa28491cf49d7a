"""Answers that no session keeps: their text comes to the one who asked alone."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any, cast

import attrs

from hub.errors import AgentError, HubError
from hub.hosting.contract import Call, Finish
from hub.hosting.contract import Message as Whole
from hub.hosting.contract import Past, Piece
from hub.hosting.contract import Run as RunView
from hub.hosting.faults import explain, refuse
from hub.hosting.folder import Agents
from hub.hosting.hosted import Agent
from hub.hosting.output import KINDS, pieces
from hub.messages import Author


def calling(agents: Agents, depth: int) -> Callable[[RunView, str, str], Call]:
    """Return what `run.call` does in a run, up to *depth* calls deep."""
    return lambda caller, agent_id, message: Call(_texts(agents, caller, agent_id, message, depth))


async def _texts(agents: Agents, caller: RunView, agent_id: str, message: str, depth: int) -> AsyncIterator[str]:
    if depth < 1:
        raise AgentError(f"agents called each other too deep; {agent_id} was not called", "call_depth")
    try:
        agent = agents.get(agent_id)
    except HubError as gone:
        raise AgentError(gone.message, gone.code) from None
    # It asks people, and has the files, where its caller does.
    run = attrs.evolve(caller, agent=agent_id, message=message, history=(), parts=(), metadata={})
    run = attrs.evolve(run, call=calling(agents, depth - 1))
    agent.working += 1  # its adapter stays open for it
    try:
        async with aclosing(cast(Any, _said(agent, run))) as given:
            async for piece in given:
                if isinstance(piece, str):
                    yield piece
    finally:
        agent.working -= 1
        agents.freed(agent)


async def answer(
    agents: Agents, agent: Agent, run_id: str, message: str, history: Sequence[Past], author: Author, depth: int
) -> AsyncIterator[Piece]:
    """Let *agent* answer a conversation that is kept nowhere; *run_id* stands for its session too.

    Raises AgentError. Closed early, it stops the agent.
    """
    run = RunView(
        id=run_id,
        agent=agent.id,
        session=run_id,
        message=message,
        principal=author,
        history=history,
        call=calling(agents, depth),
    )
    async with aclosing(cast(Any, _said(agent, run))) as given:
        async for piece in given:
            yield piece


async def _said(agent: Agent, run: RunView) -> AsyncIterator[Piece]:
    """Yield what the agent gives, whole texts as text; its events show who waits that it is not silent."""
    try:
        async with aclosing(cast(Any, pieces(agent, run))) as given:
            async for piece in given:
                if isinstance(piece, (str, Finish)) or type(piece) in KINDS:
                    yield piece
                elif isinstance(piece, Whole):
                    yield piece.content
                elif piece is not None:
                    raise refuse(agent.id, piece)
    except AgentError:
        raise
    except Exception as error:
        raise explain(agent, error) from error

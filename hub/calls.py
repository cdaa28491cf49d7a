"""Agents that call agents: the called one's text comes to its caller alone."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, cast

from hub.agent import Call, Finish
from hub.agent import Message as Whole
from hub.agent import Run as RunView
from hub.errors import AgentError, HubError
from hub.faults import explain, refuse
from hub.loading import Agents
from hub.logs import RunRecord
from hub.run import pieces


def ask(agents: Agents, record: RunRecord, depth: int) -> Callable[[str, str], Call]:
    """Return what `run.call` does in the run of *record*, up to *depth* calls deep."""
    return lambda agent_id, message: Call(_texts(agents, record, agent_id, message, depth))


async def _texts(agents: Agents, record: RunRecord, agent_id: str, message: str, depth: int) -> AsyncIterator[str]:
    if depth < 1:
        raise AgentError(f"agents called each other too deep; {agent_id} was not called", "call_depth")
    try:
        agent = agents.get(agent_id)
    except HubError as gone:
        raise AgentError(gone.message, gone.code) from None
    deeper = ask(agents, record, depth - 1)
    run = RunView(record.runId, agent_id, record.sessionId, message, record.author, (), call=deeper)
    try:
        async with aclosing(cast(Any, pieces(agent, run))) as given:
            async for piece in given:
                if isinstance(piece, (str, Whole)):
                    yield piece if isinstance(piece, str) else piece.content
                elif not isinstance(piece, Finish):
                    raise refuse(agent_id, piece)
    except AgentError:
        raise
    except Exception as error:
        raise explain(agent, error) from error

"""Use case: answer a conversation that is not stored, with all messages in the request."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs

from hub.access.principal import Principal
from hub.commands.hub import Hub
from hub.days import to_day
from hub.errors import Busy
from hub.hosting.calls import AnswerOutput, OutputReader, open_answer
from hub.hosting.contract import Run as RunView
from hub.hosting.hosted import Agent
from hub.hosting.metering import AnswerMeters
from hub.messages import Past, Request
from hub.messages.past import drop_tools
from hub.messages.requests import EMPTY_REQUEST
from hub.observe.tracing import trace_origin
from hub.protocols.reading import check_request
from hub.sessions.usage import count_agent_tokens, make_usage

AnswerChunks = AsyncIterator[AnswerOutput]


@attrs.frozen(kw_only=True)
class Conversation:
    """A conversation to answer. *parts* are those of *message*, as in a Run. *history* has the earlier messages."""

    run_id: str
    message: str
    history: Sequence[Past] = ()
    parts: Sequence[Mapping[str, Any]] = ()
    request: Request = EMPTY_REQUEST


async def complete(
    hub: Hub,
    principal: Principal,
    agent_id: str,
    conversation: Conversation,
) -> AbstractAsyncContextManager[AnswerChunks]:
    """Let an agent answer a conversation. The context yields an iterator over its texts and events; a Finish is last.

    Leaving the context stops the agent. Raises UnknownAgent, AgentBroken, ToolsUnsupported and BadFrame. Entering the
    context raises Busy and PrincipalQuotaExceeded. Iteration raises AgentError: with the code `timeout` if the agent
    reaches a time limit, `aborted` if the hub stops.
    """
    agent = hub.node.agents.get_working(agent_id)
    check_request(conversation.request, hub.limits)
    agent.check_request(conversation.request)
    run = RunView(
        id=conversation.run_id,
        agent=agent.id,
        session=conversation.run_id,
        message=conversation.message,
        principal=principal.author,
        history=conversation.history if agent.marks.tools else drop_tools(conversation.history),
        parts=conversation.parts,
        request=conversation.request,
    )
    return _open_counted_chunks(hub, principal, agent, run)


@asynccontextmanager
async def _open_counted_chunks(
    hub: Hub, principal: Principal, agent: Agent, run: RunView
) -> AsyncIterator[AnswerChunks]:
    """Count the tokens of the answer, and unless sign-in is off, the quotas and the usage of the principal."""
    place = await hub.quotas.reserve(principal.tenant, principal.id) if hub.is_sign_in_on else None
    meters = AnswerMeters()
    try:
        async with _open_chunks(hub, agent, run) as reader:
            meters = reader.agent_task.meters
            hub.clients.readers[reader] = principal
            try:
                yield reader
            finally:
                del hub.clients.readers[reader]
    finally:
        counts = meters.count()
        count_agent_tokens(hub.counters.answers, counts)
        if place is not None:
            day = to_day(hub.node.seams.now())
            hub.quotas.save(place, make_usage(day, principal.tenant, principal.id, agent.id, counts))


@asynccontextmanager
async def _open_chunks(hub: Hub, agent: Agent, run: RunView) -> AsyncIterator[OutputReader]:
    if (problem := hub.node.slots.find_reached_limit(agent)) is not None:
        raise Busy(problem, retryAfterMs=1000)
    end_event, completions, span = asyncio.Event(), hub.node.completions, None
    slot = hub.node.slots.take(agent)
    if hub.node.tracing is not None:
        span = hub.node.tracing.start_run({"run": run.id, "agent": agent.id}, run.message, trace_origin.get())
    try:
        async with open_answer(slot, hub.limits, run, span=span, with_events=True) as reader:
            completions[end_event] = reader
            yield reader
    finally:
        completions.pop(end_event, None)
        end_event.set()

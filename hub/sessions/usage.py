"""Count the tokens of an answer to a client, and make the records that it adds to the usage of its principal."""

from collections.abc import Iterable, Mapping

from hub.access.records import UsageRecord
from hub.hosting.metering import TokenCount, count_bytes, count_call_bytes, count_input_bytes, count_tokens
from hub.messages import Usage
from hub.messages.parts import ToolCallPart
from hub.observe.counters import AnswerCounters
from hub.storage.records import RunRecord


def count_run_tokens(
    run: RunRecord,
    texts: Iterable[str],
    tool_calls: Iterable[ToolCallPart],
    usage: Usage | None,
    calls: Mapping[str, TokenCount],
) -> Mapping[str, TokenCount]:
    """Return the tokens of a run that ends, by agent.

    *texts* are its answer, with the *tool_calls* of the client's tools, and *usage* is what its agent reported. *calls*
    are the tokens of the answers that it called, by agent. A run whose agent was never called has used no token.
    """
    count = TokenCount()
    if run.state == "started":
        output_bytes = sum(map(count_bytes, texts)) + count_call_bytes(tool_calls)
        count = count_tokens(usage, count_input_bytes(run.message, run.parts or ()), output_bytes)
    counts = {run.agentId: count}
    for agent_id, call_count in calls.items():
        counts[agent_id] = counts.get(agent_id, TokenCount()) + call_count
    return counts


def count_agent_tokens(counters: AnswerCounters, counts: Mapping[str, TokenCount]) -> None:
    """Add tokens to the counters of the node."""
    for agent_id, count in counts.items():
        counters.tokens[agent_id, "input"] += count.input_tokens
        counters.tokens[agent_id, "output"] += count.output_tokens
        counters.tokens[agent_id, "estimated"] += count.estimated


def make_usage(
    day: str, tenant: str, principal_id: str, agent_id: str, counts: Mapping[str, TokenCount]
) -> tuple[UsageRecord, ...]:
    """Return the usage of one message to an agent. *counts* are the tokens of all agents that worked for it."""
    return tuple(
        UsageRecord(
            day=day,
            tenant=tenant,
            principal=principal_id,
            agent=name,
            messages=int(name == agent_id),
            input_tokens=count.input_tokens,
            output_tokens=count.output_tokens,
            estimated=count.estimated,
        )
        for name, count in counts.items()
    )

"""Make the usage records of an answer to a client: what the commit of its end adds to the usage of its principal."""

from collections.abc import Iterable, Mapping

from hub.access.records import UsageRecord
from hub.hosting.metering import TokenCount, count_bytes, count_tokens
from hub.ids import tenant_of
from hub.messages import Usage
from hub.storage.records import RunRecord


def make_run_usage(
    run: RunRecord, day: str, texts: Iterable[str], usage: Usage | None, calls: Mapping[str, TokenCount]
) -> tuple[UsageRecord, ...]:
    """Return the usage of a run that ends on *day*.

    *texts* are its answer, and *usage* is what its agent reported. *calls* are the tokens of the answers that it
    called, by agent. A run whose agent was never called has used no token.
    """
    count = TokenCount()
    if run.state == "started":
        count = count_tokens(usage, count_bytes(run.message), sum(map(count_bytes, texts)))
    counts = {run.agentId: count}
    for agent_id, call_count in calls.items():
        counts[agent_id] = counts.get(agent_id, TokenCount()) + call_count
    return make_usage(day, tenant_of(run.key), run.author.id, run.agentId, counts)


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

"""Use case: read the metrics of a node. No metric contains the name of a session or a user."""

from collections import Counter
from collections.abc import Iterable, Mapping

import attrs

from hub.access.principal import Principal
from hub.commands.hub import Hub
from hub.observe.counters import Counters
from hub.sessions.run import ActiveRun
from hub.storage.records import CommitTotals


@attrs.frozen(kw_only=True)
class NodeFigures:
    """The metrics of a node: its current gauges, and its counters since the start.

    *subscriptions* has the number for each protocol. *written_bytes* and *catch_ups* include open connections.
    *active_runs* and *queued_runs* have the number for each agent.
    """

    connections: int
    subscriptions: Mapping[str, int]
    lagging_subscriptions: int
    written_bytes: int
    catch_ups: int
    sessions: int
    active_runs: Mapping[str, int]
    queued_runs: Mapping[str, int]
    commits: CommitTotals
    counters: Counters


async def read_metrics(hub: Hub, principal: Principal) -> NodeFigures:
    """Return the current gauges of the node, and its counters since the start. The counters go on counting."""
    registry, counters = hub.node.registry, hub.counters
    connections, sessions = list(registry.connections), list(hub.node.sessions.values())
    subscriptions: Counter[str] = Counter()
    for connection in connections:
        subscriptions[connection.protocol.name] += len(connection.subscriptions)
    return NodeFigures(
        connections=len(connections),
        subscriptions=subscriptions,
        lagging_subscriptions=sum(len(connection.catchup.lagging_subscriptions) for connection in connections),
        written_bytes=counters.sent_bytes + sum(connection.transport.written_bytes for connection in connections),
        catch_ups=counters.catch_ups + sum(connection.catchup.task_count for connection in connections),
        sessions=len(sessions),
        active_runs=_count_by_agent(hub, (run for session in sessions for run in session.active_runs.values())),
        queued_runs=_count_by_agent(hub, (run for session in sessions for run in session.queued_runs)),
        commits=hub.node.log.commit_totals,
        counters=counters,
    )


def _count_by_agent(hub: Hub, runs: Iterable[ActiveRun]) -> Mapping[str, int]:
    """Return the number of runs for each agent of the hub, and for removed agents that still have runs."""
    return dict.fromkeys((agent.id for agent in hub.node.agents.all()), 0) | Counter(run.record.agentId for run in runs)

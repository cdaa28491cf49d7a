"""Use case: read the metrics of a node. No metric contains the name of a session or a user."""

from collections import Counter
from collections.abc import Mapping

import attrs

from hub.access.principal import Principal
from hub.commands.hub import Hub


@attrs.frozen(kw_only=True)
class NodeFigures:
    """The metrics of a node, read in one step.

    *subscriptions* has the number for each protocol, *run_starts* for each agent, *run_ends* for each agent and stop
    reason. Times are in seconds.
    """

    connections: int
    subscriptions: Mapping[str, int]
    written_bytes: int
    catch_ups: int
    aborted_clients: int
    sessions: int
    active_runs: int
    queued_runs: int
    chats: int
    run_starts: Mapping[str, int]
    run_ends: Mapping[tuple[str, str], int]
    events: int
    commits: int
    commit_seconds: float
    loop_lag: float
    worst_loop_lag: float


async def read_metrics(hub: Hub, principal: Principal) -> NodeFigures:
    """Return the current gauges of the node, and its counters since the start."""
    registry, totals = hub.node.registry, hub.node.log.commit_totals
    connections, counters = list(registry.connections), registry.counters
    sessions = list(hub.node.sessions.values())
    subscriptions: Counter[str] = Counter()
    for connection in connections:
        subscriptions[connection.protocol.name] += len(connection.subscriptions)
    return NodeFigures(
        connections=len(connections),
        subscriptions=subscriptions,
        written_bytes=counters.sent_bytes + sum(connection.transport.written_bytes for connection in connections),
        catch_ups=counters.catch_ups + sum(connection.catchup.task_count for connection in connections),
        aborted_clients=counters.aborted_connections,
        sessions=len(sessions),
        active_runs=sum(len(session.active_runs) for session in sessions),
        queued_runs=sum(len(session.queued_runs) for session in sessions),
        chats=counters.chats,
        run_starts=counters.run_starts,
        run_ends=counters.run_ends,
        events=counters.events,
        commits=totals.commits,
        commit_seconds=totals.seconds,
        loop_lag=counters.loop_lag,
        worst_loop_lag=counters.worst_loop_lag,
    )

"""Use case: read the metrics of a node. No metric contains the name of a session or a user."""

from collections import Counter
from collections.abc import Mapping

import attrs

from hub.access.principal import Principal
from hub.commands.hub import Hub
from hub.observe.counters import Counters
from hub.storage.records import CommitTotals


@attrs.frozen(kw_only=True)
class NodeFigures:
    """The metrics of a node: its current gauges, and its counters since the start.

    *subscriptions* has the number for each protocol. *written_bytes* and *catch_ups* include open connections.
    """

    connections: int
    subscriptions: Mapping[str, int]
    lagging_subscriptions: int
    written_bytes: int
    catch_ups: int
    sessions: int
    active_runs: int
    queued_runs: int
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
        active_runs=sum(len(session.active_runs) for session in sessions),
        queued_runs=sum(len(session.queued_runs) for session in sessions),
        commits=hub.node.log.commit_totals,
        counters=counters,
    )

"""Counters of this node since its start, for its metrics."""

from collections import Counter

import attrs


@attrs.define(eq=False, kw_only=True)
class Counters:
    """Totals of the node since its start.

    *run_starts* counts runs by agent, *run_ends* by agent and stop reason. *sent_bytes* and *catch_ups* have the totals
    of closed connections; `/metrics` adds those of open connections. But bytes that are written directly to sockets are
    in *sent_bytes* at once.
    *loop_lag* is the event loop's delay at the last measurement, in seconds; *worst_loop_lag* is the longest so far.
    """

    run_starts: Counter[str] = attrs.Factory(Counter)
    run_ends: Counter[tuple[str, str]] = attrs.Factory(Counter)
    chats: int = 0
    events: int = 0
    sent_bytes: int = 0
    catch_ups: int = 0
    aborted_connections: int = 0
    loop_lag: float = 0.0
    worst_loop_lag: float = 0.0

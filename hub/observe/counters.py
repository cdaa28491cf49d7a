"""What has happened on this node since its start, for its metrics."""

from collections import Counter

import attrs


@attrs.define(eq=False, kw_only=True)
class Counts:
    """Grows where things happen, never for each client: what each client has is read from it when somebody asks.

    *started* is by agent, *ended* by agent and stop reason. *written* and *catch_ups* are those of connections that
    have left. *lag* is how late the loop was at the last look, *worst_lag* the most so far, in seconds.
    """

    started: Counter[str] = attrs.Factory(Counter)
    ended: Counter[tuple[str, str]] = attrs.Factory(Counter)
    chats: int = 0
    events: int = 0
    written: int = 0
    catch_ups: int = 0
    aborted: int = 0
    lag: float = 0.0
    worst_lag: float = 0.0

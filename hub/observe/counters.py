"""Counters and histograms of this node since its start, for its metrics. No name of a session or a user is in them."""

from collections import Counter, defaultdict

import attrs

from hub.observe.histogram import ANSWER_BOUNDS, STEP_BOUNDS, WAIT_BOUNDS, Histogram


def _make_waits() -> defaultdict[str, Histogram]:
    return defaultdict(lambda: Histogram(WAIT_BOUNDS))


@attrs.define(eq=False)
class AnswerCounters:
    """The times and the tokens of answers, by agent.

    *waits* are the times from a message to the call of its agent, *first_outputs* from the call to the first output
    that was written to the clients, and *durations* from the call to the end. *tokens* counts by agent and kind:
    `input`, `output`, and `estimated` for those of the two that are an estimate.
    """

    waits: defaultdict[str, Histogram] = attrs.Factory(_make_waits)
    first_outputs: defaultdict[str, Histogram] = attrs.Factory(_make_waits)
    durations: defaultdict[str, Histogram] = attrs.Factory(lambda: defaultdict(lambda: Histogram(ANSWER_BOUNDS)))
    tokens: Counter[tuple[str, str]] = attrs.Factory(Counter)


@attrs.define(eq=False, kw_only=True)
class DoorCounters:
    """What came to the hub over HTTP and WebSockets.

    *responses* counts by method and status, *refusals* by error code, *sign_ins* by their kind. *socket_closes* counts
    by close code; 1006 is a socket without a close frame. *untrusted_proxies* counts requests with a header of a proxy
    from a peer that is not in `trusted_proxies`.
    """

    responses: Counter[tuple[str, str]] = attrs.Factory(Counter)
    refusals: Counter[str] = attrs.Factory(Counter)
    sign_ins: Counter[str] = attrs.Factory(Counter)
    socket_opens: int = 0
    socket_closes: Counter[str] = attrs.Factory(Counter)
    untrusted_proxies: int = 0


@attrs.define(eq=False, kw_only=True)
class Counters:
    """Totals of the node since its start.

    *run_starts* counts runs by agent, *run_ends* by agent and stop reason. *sent_bytes* and *catch_ups* have the totals
    of closed connections; `/metrics` adds those of open connections. But bytes that are written directly to sockets are
    in *sent_bytes* at once. *chunk_ages* are the times from a token's arrival to the end of its delivery.
    *loop_lags* are the event loop's delays, measured five times a second; *worst_loop_lag* is the longest so far.
    """

    run_starts: Counter[str] = attrs.Factory(Counter)
    run_ends: Counter[tuple[str, str]] = attrs.Factory(Counter)
    chats: int = 0
    events: int = 0
    sent_bytes: int = 0
    catch_ups: int = 0
    aborted_connections: int = 0
    chunk_ages: Histogram = attrs.Factory(lambda: Histogram(STEP_BOUNDS))
    loop_lags: Histogram = attrs.Factory(lambda: Histogram(STEP_BOUNDS))
    worst_loop_lag: float = 0.0
    answers: AnswerCounters = attrs.Factory(AnswerCounters)
    door: DoorCounters = attrs.Factory(DoorCounters)

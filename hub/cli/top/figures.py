"""Make the figures of a hub from its metrics: its state, and the rates and durations of a span of time."""

import time
from collections.abc import Mapping, Sequence
from math import inf

import attrs

from hub.cli.scrape import Metrics, find_label, find_value


@attrs.frozen
class Reading:
    """The metrics of a hub. *time* is that of a monotonic clock, in seconds."""

    time: float
    metrics: Metrics

    @property
    def start(self) -> float:
        """The Unix time of the start of the hub, or 0 where the system does not tell it."""
        return find_value(self.metrics, "process_start_time_seconds")


@attrs.frozen
class Durations:
    """The number of durations, and estimates of two quantiles in seconds: None if there are no durations.

    A quantile past the last bound of the histogram is that bound.
    """

    count: int
    p50: float | None
    p95: float | None


@attrs.frozen(kw_only=True)
class ClientFigures:
    connections: int
    subscriptions: int
    lagging_subscriptions: int
    sessions: int
    events_per_second: float | None
    written_bytes_per_second: float | None
    token_age: Durations


@attrs.frozen(kw_only=True)
class AnswerFigures:
    """The answers of the hub or of one agent. *end_count* is the number of those that ended in the span.

    *tokens_per_second* are output tokens; the hub counts them at the end of an answer.
    """

    running: int
    queued: int
    end_count: int
    tokens_per_second: float | None
    first_token: Durations
    queue_wait: Durations


@attrs.frozen(kw_only=True)
class ProcessFigures:
    """The process of the hub. What may be None is known only on Linux. *worst_loop_lag* is that since the start."""

    memory_bytes: int | None
    open_files: int | None
    max_files: int | None
    cpu_share: float | None
    commit: Durations
    loop_lag: Durations
    worst_loop_lag: float


@attrs.frozen(kw_only=True)
class Picture:
    """The figures of a hub. Rates, durations, *refusals* and ended answers are those of the last *span_seconds*."""

    version: str
    uptime_seconds: float | None
    span_seconds: float | None
    clients: ClientFigures
    answers: AnswerFigures
    process: ProcessFigures
    refusals: Mapping[str, int]
    agents: Mapping[str, AnswerFigures]


def make_picture(now: Reading, before: Reading | None = None) -> Picture:
    """Return the figures of the time between two readings, or of the time since the start of the hub."""
    uptime = max(0.0, time.time() - now.start) if now.start else None
    counts = _subtract(now.metrics, before.metrics if before is not None else {})
    span = _Span(now.metrics, counts, uptime if before is None else now.time - before.time)
    names = {labels["agent"] for labels, _ in now.metrics.get("hubbub_runs_going", ())}
    return Picture(
        version=find_label(now.metrics, "hubbub_build_info", "version"),
        uptime_seconds=uptime,
        span_seconds=span.seconds,
        clients=_make_client_figures(span),
        answers=_make_answer_figures(span),
        process=_make_process_figures(span),
        refusals={labels["code"]: int(count) for labels, count in counts.get("hubbub_refusals_total", ()) if count},
        agents={name: _make_answer_figures(span, agent=name) for name in sorted(names)},
    )


@attrs.frozen
class _Span:
    """A span of time. *gauges* are the metrics at its end, and *counts* is what the counters counted meanwhile."""

    gauges: Metrics
    counts: Metrics
    seconds: float | None

    def rate(self, name: str, **labels: str) -> float | None:
        """Return the increase of a counter in one second."""
        return _sum_samples(self.counts, name, labels) / self.seconds if self.seconds else None

    def measure(self, name: str, **labels: str) -> Durations:
        """Return the durations of a histogram, or of several together if *labels* fits several."""
        buckets: dict[float, float] = {}
        for sample_labels, count in self.counts.get(f"{name}_bucket", ()):
            if labels.items() <= sample_labels.items():
                bound = float(sample_labels["le"])
                buckets[bound] = buckets.get(bound, 0.0) + count
        steps = sorted(buckets.items())
        return Durations(
            int(steps[-1][1]) if steps else 0, estimate_quantile(steps, 0.5), estimate_quantile(steps, 0.95)
        )


def estimate_quantile(buckets: Sequence[tuple[float, float]], share: float) -> float | None:
    """Return a quantile of a histogram as Prometheus estimates it: linear within the bucket, or its last bound.

    *buckets* are the bounds with the numbers of durations up to them. Return None if there are no durations.
    """
    total = buckets[-1][1] if buckets else 0
    if total <= 0:
        return None
    rank, lower_bound, lower_count = share * total, 0.0, 0.0
    for bound, count in buckets:
        if count >= rank and count > lower_count:
            if bound == inf:
                return lower_bound
            return lower_bound + (bound - lower_bound) * (rank - lower_count) / (count - lower_count)
        lower_bound, lower_count = bound, count
    return lower_bound


def _make_client_figures(span: _Span) -> ClientFigures:
    return ClientFigures(
        connections=int(find_value(span.gauges, "hubbub_connections")),
        subscriptions=int(find_value(span.gauges, "hubbub_subscriptions")),
        lagging_subscriptions=int(find_value(span.gauges, "hubbub_lagging_subscriptions")),
        sessions=int(find_value(span.gauges, "hubbub_sessions")),
        events_per_second=span.rate("hubbub_events_total"),
        written_bytes_per_second=span.rate("hubbub_written_bytes_total"),
        token_age=span.measure("hubbub_token_age_seconds"),
    )


def _make_answer_figures(span: _Span, **labels: str) -> AnswerFigures:
    return AnswerFigures(
        running=int(_sum_samples(span.gauges, "hubbub_runs_going", labels)),
        queued=int(_sum_samples(span.gauges, "hubbub_runs_waiting", labels)),
        end_count=int(_sum_samples(span.counts, "hubbub_runs_ended_total", labels)),
        tokens_per_second=span.rate("hubbub_tokens_total", kind="output", **labels),
        first_token=span.measure("hubbub_first_token_seconds", **labels),
        queue_wait=span.measure("hubbub_run_wait_seconds", **labels),
    )


def _make_process_figures(span: _Span) -> ProcessFigures:
    def find(name: str) -> int | None:
        return int(find_value(span.gauges, name)) if name in span.gauges else None

    lag = span.measure("hubbub_loop_lag_seconds")
    worst_lag = find_value(span.gauges, "hubbub_loop_lag_worst_seconds")
    return ProcessFigures(
        memory_bytes=find("process_resident_memory_bytes"),
        open_files=find("process_open_fds"),
        max_files=find("process_max_fds"),
        cpu_share=span.rate("process_cpu_seconds_total") if "process_cpu_seconds_total" in span.gauges else None,
        commit=span.measure("hubbub_log_commit_seconds"),
        loop_lag=Durations(lag.count, *(None if p is None else min(p, worst_lag) for p in (lag.p50, lag.p95))),
        worst_loop_lag=worst_lag,
    )


def _sum_samples(metrics: Metrics, name: str, labels: Mapping[str, str]) -> float:
    return sum(value for sample_labels, value in metrics.get(name, ()) if labels.items() <= sample_labels.items())


def _subtract(now: Metrics, before: Metrics) -> Metrics:
    """Return the increase of each sample; 0 for one that decreased, as gauges do."""
    old_values = {
        (name, *sorted(labels.items())): value for name, samples in before.items() for labels, value in samples
    }
    return {
        name: [
            (labels, max(0.0, value - old_values.get((name, *sorted(labels.items())), 0.0)))
            for labels, value in samples
        ]
        for name, samples in now.items()
    }

"""The metrics of a node in the format of Prometheus. No metric names a session or a user."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from hub import __version__
from hub.commands import table as commands
from hub.commands.metrics import NodeFigures
from hub.errors import list_error_codes
from hub.observe.histogram import Histogram
from hub.web.doorkeeper import principal_of
from hub.web.routes import HUB_KEY

# The process as Prometheus' clients describe it: processor time, memory, descriptors. It has values on Linux only.
PROCESS_REGISTRY = CollectorRegistry()
ProcessCollector(registry=PROCESS_REGISTRY)


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for label_value, number in values.items():
        family.add_metric([label_value], number)
    return family


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value)


def _counters(name: str, text: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    """Return a counter with labels. *values* has the values of the labels, and the number of each."""
    family = CounterMetricFamily(name, text, labels=labels)
    for label_values, number in values.items():
        family.add_metric([label_values] if isinstance(label_values, str) else label_values, number)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(name, text, buckets=histogram.list_buckets(), sum_value=histogram.seconds)


def _histograms_of_agents(name: str, text: str, histograms: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=["agent"])
    for agent_id, histogram in histograms.items():
        family.add_metric([agent_id], histogram.list_buckets(), histogram.seconds)
    return family


class NodeCollector(Collector):
    """Exports the figures of a node as metrics."""

    def __init__(self, figures: NodeFigures) -> None:
        self.figures, self.counters = figures, figures.counters

    def collect(self) -> Iterator[Metric]:
        yield from self._client_metrics()
        yield from self._door_metrics()
        yield from self._session_metrics()
        yield from self._answer_metrics()
        yield from self._node_metrics()

    def _client_metrics(self) -> Iterator[Metric]:
        figures = self.figures
        yield GaugeMetricFamily("hubbub_connections", "Connected clients.", figures.connections)
        text = "Subscriptions of clients to sessions."
        yield _gauges("hubbub_subscriptions", text, "protocol", figures.subscriptions)
        yield GaugeMetricFamily(
            "hubbub_lagging_subscriptions", "Subscriptions that are served from the log.", figures.lagging_subscriptions
        )
        yield _counter("hubbub_written_bytes", "Bytes written to sockets of clients.", figures.written_bytes)
        text = "Catch-ups: a client was behind and was served from the log."
        yield _counter("hubbub_catch_ups", text, figures.catch_ups)
        text = "Clients disconnected because they did not read."
        yield _counter("hubbub_aborted_clients", text, self.counters.aborted_connections)

    def _door_metrics(self) -> Iterator[Metric]:
        door = self.counters.door
        yield _counters("hubbub_http_responses", "Responses over HTTP.", ["method", "status"], door.responses)
        yield _counter("hubbub_websockets_opened", "Opened WebSockets.", door.socket_opens)
        text = "Ended WebSockets, by the code of the first close frame; 1006 without one."
        yield _counters("hubbub_websockets_closed", text, ["code"], door.socket_closes)
        # Each code begins at 0: the functions of Prometheus do not see an increase from nothing to 1.
        refusals = dict.fromkeys(list_error_codes(), 0) | door.refusals
        yield _counters("hubbub_refusals", "Errors that clients got.", ["code"], refusals)
        text = "Requests through a proxy that is not in trusted_proxies."
        yield _counter("hubbub_untrusted_proxy_requests", text, door.untrusted_proxies)
        yield _counters("hubbub_sign_ins", "Sign-ins of browsers and sockets.", ["kind"], door.sign_ins)

    def _session_metrics(self) -> Iterator[Metric]:
        figures, counters = self.figures, self.counters
        yield GaugeMetricFamily("hubbub_sessions", "Sessions in memory.", figures.sessions)
        yield _gauges("hubbub_runs_going", "Running runs.", "agent", figures.active_runs)
        yield _gauges("hubbub_runs_waiting", "Queued runs.", "agent", figures.queued_runs)
        yield _counter("hubbub_chats", "Accepted chat messages.", counters.chats)
        yield _counters("hubbub_runs_started", "Started runs.", ["agent"], counters.run_starts)
        yield _counters("hubbub_runs_ended", "Ended runs.", ["agent", "stop_reason"], counters.run_ends)
        yield _counter("hubbub_events", "Events delivered to subscribers.", counters.events)

    def _answer_metrics(self) -> Iterator[Metric]:
        answers = self.counters.answers
        text = "Time from a message to the call of its agent."
        yield _histograms_of_agents("hubbub_run_wait_seconds", text, answers.waits)
        text = "Time from the call of an agent to its first delivered output."
        yield _histograms_of_agents("hubbub_first_token_seconds", text, answers.first_outputs)
        yield _histograms_of_agents("hubbub_run_seconds", "Duration of runs.", answers.durations)
        tokens = {labels: count for labels, count in answers.tokens.items() if labels[1] != "estimated"}
        yield _counters("hubbub_tokens", "Tokens of answers.", ["agent", "kind"], tokens)
        estimates = {agent: count for (agent, kind), count in answers.tokens.items() if kind == "estimated"}
        yield _counters("hubbub_estimated_tokens", "Those that are an estimate.", ["agent"], estimates)
        text = "Age of a token when it was written to all clients that read."
        yield _histogram("hubbub_token_age_seconds", text, self.counters.chunk_ages)

    def _node_metrics(self) -> Iterator[Metric]:
        commits, counters = self.figures.commits, self.counters
        buckets = list(commits.buckets) or [("+Inf", commits.commits)]  # a log of another package may have no buckets
        text = "Duration of the log's commits, each with its fsync."
        yield HistogramMetricFamily("hubbub_log_commit_seconds", text, buckets=buckets, sum_value=commits.seconds)
        text = "Delays of the event loop, measured five times a second."
        yield _histogram("hubbub_loop_lag_seconds", text, counters.loop_lags)
        text = "Largest delay of the event loop since the start."
        yield GaugeMetricFamily("hubbub_loop_lag_worst_seconds", text, counters.worst_loop_lag)
        yield _gauges("hubbub_build_info", "The version of the hub; always 1.", "version", {__version__: 1})


async def get_metrics(request: web.Request) -> web.Response:
    """Return the metrics of this node in the format of Prometheus."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(await commands.read_metrics(request.app[HUB_KEY], principal_of(request))))
    process = await asyncio.to_thread(generate_latest, PROCESS_REGISTRY)  # it reads files
    return web.Response(body=generate_latest(registry) + process, headers={"Content-Type": CONTENT_TYPE_LATEST})

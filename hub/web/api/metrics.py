"""The metrics of a node in the format of Prometheus. No metric names a session or a user."""

from collections.abc import Iterator

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from hub.commands import table as commands
from hub.commands.metrics import NodeFigures
from hub.web.doorkeeper import principal_of
from hub.web.routes import HUB_KEY


class NodeCollector(Collector):
    """Exports the figures of a node as metrics."""

    def __init__(self, figures: NodeFigures) -> None:
        self.figures = figures

    def collect(self) -> Iterator[Metric]:
        yield from self._client_metrics()
        yield from self._session_metrics()
        yield from self._log_metrics()

    def _client_metrics(self) -> Iterator[Metric]:
        figures = self.figures
        yield GaugeMetricFamily("hubbub_connections", "Connected clients.", figures.connections)
        subscriptions = GaugeMetricFamily(
            "hubbub_subscriptions", "Subscriptions of clients to sessions.", labels=["protocol"]
        )
        for protocol, count in figures.subscriptions.items():
            subscriptions.add_metric([protocol], count)
        yield subscriptions
        yield CounterMetricFamily("hubbub_written_bytes", "Bytes written to sockets of clients.", figures.written_bytes)
        description = "Catch-ups: a client was behind and was served from the log."
        yield CounterMetricFamily("hubbub_catch_ups", description, figures.catch_ups)
        yield CounterMetricFamily(
            "hubbub_aborted_clients", "Clients disconnected because they did not read.", figures.aborted_clients
        )

    def _session_metrics(self) -> Iterator[Metric]:
        figures = self.figures
        yield GaugeMetricFamily("hubbub_sessions", "Sessions in memory.", figures.sessions)
        yield GaugeMetricFamily("hubbub_runs_going", "Running runs.", figures.active_runs)
        yield GaugeMetricFamily("hubbub_runs_waiting", "Queued runs.", figures.queued_runs)
        yield CounterMetricFamily("hubbub_chats", "Accepted chat messages.", figures.chats)
        started_runs = CounterMetricFamily("hubbub_runs_started", "Started runs.", labels=["agent"])
        for agent, count in figures.run_starts.items():
            started_runs.add_metric([agent], count)
        ended_runs = CounterMetricFamily("hubbub_runs_ended", "Ended runs.", labels=["agent", "stop_reason"])
        for labels, count in figures.run_ends.items():
            ended_runs.add_metric(labels, count)
        yield from (started_runs, ended_runs)
        yield CounterMetricFamily("hubbub_events", "Events delivered to subscribers.", figures.events)

    def _log_metrics(self) -> Iterator[Metric]:
        figures = self.figures
        yield SummaryMetricFamily(
            "hubbub_log_commit_seconds",
            "Duration of the log's commits, each with its fsync.",
            figures.commits,
            figures.commit_seconds,
        )
        yield GaugeMetricFamily(
            "hubbub_loop_lag_seconds", "Delay of the event loop at the last measurement.", figures.loop_lag
        )
        yield GaugeMetricFamily(
            "hubbub_loop_lag_worst_seconds", "Largest delay of the event loop since the start.", figures.worst_loop_lag
        )


async def get_metrics(request: web.Request) -> web.Response:
    """Return the metrics of this node in the format of Prometheus."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(await commands.read_metrics(request.app[HUB_KEY], principal_of(request))))
    return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

"""What a node does, in numbers, as Prometheus reads them. No session and no user is named in them."""

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
    """Says a node's figures by the names of the metrics."""

    def __init__(self, figures: NodeFigures) -> None:
        self.figures = figures

    def collect(self) -> Iterator[Metric]:
        yield from self._clients()
        yield from self._sessions()
        yield from self._log()

    def _clients(self) -> Iterator[Metric]:
        it = self.figures
        yield GaugeMetricFamily("hubbub_connections", "Clients that are connected.", it.connections)
        heard = GaugeMetricFamily("hubbub_subscriptions", "Sessions that clients hear.", labels=["protocol"])
        for protocol, count in it.subscriptions.items():
            heard.add_metric([protocol], count)
        yield heard
        yield CounterMetricFamily("hubbub_written_bytes", "Bytes handed to clients' sockets.", it.written)
        about = "Times that a client had to be read to from the log."
        yield CounterMetricFamily("hubbub_catch_ups", about, it.catch_ups)
        yield CounterMetricFamily("hubbub_aborted_clients", "Clients cut off for reading nothing.", it.aborted)

    def _sessions(self) -> Iterator[Metric]:
        it = self.figures
        yield GaugeMetricFamily("hubbub_sessions", "Sessions in memory.", it.sessions)
        yield GaugeMetricFamily("hubbub_runs_going", "Answers that are going on.", it.running)
        yield GaugeMetricFamily("hubbub_runs_waiting", "Answers that wait for their turn.", it.queued)
        yield CounterMetricFamily("hubbub_chats", "Messages that were accepted.", it.chats)
        started = CounterMetricFamily("hubbub_runs_started", "Answers that began.", labels=["agent"])
        for agent, count in it.started.items():
            started.add_metric([agent], count)
        ended = CounterMetricFamily("hubbub_runs_ended", "Answers that ended.", labels=["agent", "stop_reason"])
        for names, count in it.ended.items():
            ended.add_metric(names, count)
        yield from (started, ended)
        yield CounterMetricFamily("hubbub_events", "Events that were delivered to those who hear them.", it.events)

    def _log(self) -> Iterator[Metric]:
        it = self.figures
        yield SummaryMetricFamily(
            "hubbub_log_commit_seconds", "Commits of the log, each with its fsync.", it.commits, it.commit_seconds
        )
        yield GaugeMetricFamily("hubbub_loop_lag_seconds", "How late the event loop was, a second ago.", it.lag)
        yield GaugeMetricFamily("hubbub_loop_lag_worst_seconds", "The latest it ever was.", it.worst_lag)


async def get_metrics(request: web.Request) -> web.Response:
    """Tell Prometheus what the hub does, in numbers."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(await commands.read_metrics(request.app[HUB_KEY], principal_of(request))))
    return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

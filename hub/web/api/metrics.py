"""What a node does, in numbers, as Prometheus reads them. No session and no user is named in them."""

from collections import Counter
from collections.abc import Iterator

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from hub.node.node import Node
from hub.web.clients import NODE


class Figures(Collector):
    """Reads a node when it is asked: nothing is counted for each client while answers are delivered."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def collect(self) -> Iterator[Metric]:
        yield from self._clients()
        yield from self._sessions()
        yield from self._log()

    def _clients(self) -> Iterator[Metric]:
        registry = self.node.registry
        there, counts = list(registry.connections), registry.counts
        yield GaugeMetricFamily("hubbub_connections", "Clients that are connected.", len(there))
        by_protocol: Counter[str] = Counter()
        for connection in there:
            by_protocol[connection.protocol.name] += len(connection.subscriptions)
        heard = GaugeMetricFamily("hubbub_subscriptions", "Sessions that clients hear.", labels=["protocol"])
        for protocol, count in by_protocol.items():
            heard.add_metric([protocol], count)
        yield heard
        written = counts.written + sum(connection.written for connection in there)
        yield CounterMetricFamily("hubbub_written_bytes", "Bytes handed to clients' sockets.", written)
        catch_ups = counts.catch_ups + sum(connection.catch_ups for connection in there)
        yield CounterMetricFamily("hubbub_catch_ups", "Times that a client had to be read to from the log.", catch_ups)
        yield CounterMetricFamily("hubbub_aborted_clients", "Clients cut off for reading nothing.", counts.aborted)

    def _sessions(self) -> Iterator[Metric]:
        sessions, counts = list(self.node.sessions.values()), self.node.registry.counts
        yield GaugeMetricFamily("hubbub_sessions", "Sessions in memory.", len(sessions))
        running, queued = (sum(len(getattr(one, kind)) for one in sessions) for kind in ("runs", "queue"))
        yield GaugeMetricFamily("hubbub_runs_going", "Answers that are going on.", running)
        yield GaugeMetricFamily("hubbub_runs_waiting", "Answers that wait for their turn.", queued)
        yield CounterMetricFamily("hubbub_chats", "Messages that were accepted.", counts.chats)
        started = CounterMetricFamily("hubbub_runs_started", "Answers that began.", labels=["agent"])
        for agent, count in counts.started.items():
            started.add_metric([agent], count)
        ended = CounterMetricFamily("hubbub_runs_ended", "Answers that ended.", labels=["agent", "stop_reason"])
        for names, count in counts.ended.items():
            ended.add_metric(names, count)
        yield from (started, ended)
        yield CounterMetricFamily("hubbub_events", "Events that were delivered to those who hear them.", counts.events)

    def _log(self) -> Iterator[Metric]:
        done, counts = self.node.log.figures(), self.node.registry.counts
        yield SummaryMetricFamily(
            "hubbub_log_commit_seconds", "Commits of the log, each with its fsync.", done.commits, done.seconds
        )
        yield GaugeMetricFamily("hubbub_loop_lag_seconds", "How late the event loop was, a second ago.", counts.lag)
        yield GaugeMetricFamily("hubbub_loop_lag_worst_seconds", "The latest it ever was.", counts.worst_lag)


async def metrics(request: web.Request) -> web.Response:
    """Tell Prometheus what the hub does, in numbers."""
    registry = CollectorRegistry()
    registry.register(Figures(request.app[NODE]))
    return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

"""Read the metrics of a hub: over its control socket, or from an address."""

from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from hub.cli.control import read_from_control
from hub.settings import Settings

Metrics = dict[str, list[tuple[dict[str, str], float]]]  # the labels and the value of each sample, by its name


def parse_metrics(text: str) -> Metrics:
    """Return the samples of a text in the format of Prometheus."""
    families: Iterable[Metric] = text_string_to_metric_families(text)
    metrics: Metrics = {}
    for family in families:
        for sample in family.samples:
            metrics.setdefault(sample.name, []).append((sample.labels, sample.value))
    return metrics


def read_control_metrics(settings: Settings) -> Metrics | None:
    """Return the metrics of the hub that runs on the data folder, or None if no hub runs. Raises CommandFailed."""
    text = read_from_control(settings, "/metrics")
    return parse_metrics(text) if text is not None else None


def find_value(metrics: Metrics, name: str, default: float = 0.0) -> float:
    """Return the sum of the samples with this name."""
    samples = metrics.get(name)
    return sum(value for _, value in samples) if samples else default


def find_label(metrics: Metrics, name: str, label: str) -> str:
    """Return the value of a label of the first sample with this name."""
    samples = metrics.get(name)
    return samples[0][0].get(label, "") if samples else ""

"""The metrics of a run for Prometheus."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fauno_flwr.results.bounded_http import BoundedServer
from fauno_flwr.results.state import STATES, state_of
from fauno_flwr.results.status import (
    failures,
    newest_version,
    node_statistics,
    privacy,
    read_events,
)

PATH = "/metrics"
# Name (a counter gets _total appended), help, and the key of a node's statistics.
COUNTERS = (
    ("fauno_node_dispatches", "Messages sent to a node.", "dispatches"),
    ("fauno_node_replies", "Updates of a node that were accepted.", "replies"),
    ("fauno_node_merged", "Updates of a node that were merged into a version.", "merged"),
    ("fauno_node_steps", "Training steps behind the accepted updates.", "steps"),
)
GAUGES = (
    ("fauno_node_staleness_mean", "Mean staleness in versions.", "staleness_mean"),
    ("fauno_node_staleness_max", "Largest staleness in versions.", "staleness_max"),
    ("fauno_node_latency_seconds_mean", "Mean time from message to reply.", "latency_mean"),
)


class RunCollector(Collector):
    """Metrics of a run, computed from its events at each collection.

    Parameters
    ----------
    path : Path
        Folder of the results.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; raise ``ConfigError`` if the folder holds no run."""
        events = read_events(self.path)
        return metrics_of(events, state_of(self.path, events).name)


def metrics_of(events: list[dict[str, Any]], state: str) -> Iterator[Metric]:
    """Yield the metrics of a run.

    Parameters
    ----------
    events : list of dict
        The lines of ``events.jsonl``.
    state : str
        One of :data:`fauno_flwr.results.state.STATES`.
    """
    states = GaugeMetricFamily("fauno_run_state", "1 for the state of the run.", labels=["state"])
    for name in STATES:
        states.add_metric([name], float(name == state))
    yield states
    statistics, version = node_statistics(events), newest_version(events)
    yield GaugeMetricFamily("fauno_version", "Newest version of the shared parameters.", version)
    if spent := privacy(events):
        text = "Epsilon of the node that has spent most; the labels say what it protects."
        epsilon = GaugeMetricFamily("fauno_privacy_epsilon", text, labels=["delta", "protects"])
        epsilon.add_metric([f"{spent['delta']:g}", spent["protects"]], spent["epsilon"])
        yield epsilon
    nodes = len(statistics)
    yield GaugeMetricFamily("fauno_nodes", "Nodes that have been sent a message.", nodes)
    for kind, named in ((CounterMetricFamily, COUNTERS), (GaugeMetricFamily, GAUGES)):
        for name, text, key in named:
            metric = kind(name, text, labels=["node"])
            for node in sorted(statistics):
                metric.add_metric([node], statistics[node][key])
            yield metric
    text = "Messages of a node without an accepted update, by reason."
    failed = CounterMetricFamily("fauno_node_failures", text, labels=["node", "reason"])
    for node, reasons in sorted(failures(events).items()):
        for reason, count in sorted(reasons.items()):
            failed.add_metric([node, reason], count)
    yield failed


def make_registry(path: Path) -> CollectorRegistry:
    """Make a registry with the metrics of the run with these results, and no others."""
    registry = CollectorRegistry()
    registry.register(RunCollector(path))
    return registry


def make_metrics_server(path: Path, host: str, port: int) -> BoundedServer:
    """Make a server of ``/metrics``; the caller runs and closes it.

    Parameters
    ----------
    path : Path
        Folder of the results.
    host : str
    port : int
        0: any that is free.
    """
    metrics_app = make_wsgi_app(make_registry(path))

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        # The library's application would answer with the metrics on every path.
        if environ["PATH_INFO"] == PATH:
            return metrics_app(environ, start_response)
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [f"not found: the metrics are at {PATH}\n".encode()]

    server = BoundedServer((host, port))
    server.set_app(application)
    return server

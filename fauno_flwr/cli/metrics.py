"""The command ``fauno metrics``: what ``fauno status`` tells, for Prometheus."""

from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import typer

from fauno_flwr.config.settings import ConfigError
from fauno_flwr.results.status import failures, node_statistics, read_events

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Name, type, what it is, and the key of a node's statistics.
OF_NODES = (
    ("fauno_node_dispatches_total", "counter", "Messages sent to a node.", "dispatches"),
    ("fauno_node_replies_total", "counter", "Updates of a node that were accepted.", "replies"),
    ("fauno_node_merged_total", "counter", "Updates of a node in a version.", "merged"),
    ("fauno_node_steps_total", "counter", "Training steps behind them.", "steps"),
    ("fauno_node_staleness_mean", "gauge", "Versions made meanwhile, mean.", "staleness_mean"),
    ("fauno_node_staleness_max", "gauge", "Versions made meanwhile, most.", "staleness_max"),
    ("fauno_node_latency_seconds_mean", "gauge", "From message to reply.", "latency_mean"),
)


def escape(value: str) -> str:
    """A label's value, as the text format wants it."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def sample(name: str, labels: Mapping[str, str], value: float) -> str:
    """One line of the text format."""
    inside = ",".join(f'{key}="{escape(text)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value!r}" if inside else f"{name} {value!r}"


def format_metrics(events: list[dict[str, Any]]) -> str:
    """Events as Prometheus' text format 0.0.4.

    Parameters
    ----------
    events : list of dict
        The lines of ``events.jsonl``.
    """
    statistics = node_statistics(events)
    made = [event["version"] for event in events if event["event"] in ("flush", "resume")]
    lines = [
        "# HELP fauno_version The newest version of the shared parameters.",
        "# TYPE fauno_version gauge",
        sample("fauno_version", {}, made[-1] if made else 0),
        "# HELP fauno_nodes Nodes that have been sent a message.",
        "# TYPE fauno_nodes gauge",
        sample("fauno_nodes", {}, len(statistics)),
    ]
    for metric, kind, text, key in OF_NODES:
        lines += [f"# HELP {metric} {text}", f"# TYPE {metric} {kind}"]
        lines += [sample(metric, {"node": n}, statistics[n][key]) for n in sorted(statistics)]
    metric = "fauno_node_failures_total"
    lines += [
        f"# HELP {metric} Messages of a node that came to nothing.",
        f"# TYPE {metric} counter",
    ]
    for name, reasons in sorted(failures(events).items()):
        lines += [
            sample(metric, {"node": name, "reason": reason}, count)
            for reason, count in sorted(reasons.items())
        ]
    return "\n".join(lines) + "\n"


def serve(path: Path, host: str, port: int) -> ThreadingHTTPServer:
    """A server of ``/metrics``; the caller runs and closes it.

    Parameters
    ----------
    path : Path
        Folder of the results.
    host : str
    port : int
        0: any that is free.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/metrics":
                self.send_error(404)
                return
            body = format_metrics(read_events(path)).encode()
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: a scrape every few seconds is no news."""

    return ThreadingHTTPServer((host, port), Handler)


def metrics(
    out: Annotated[Path, typer.Argument(help="Folder of the results of a run.")],
    port: Annotated[
        int | None,
        typer.Option(help="Serve /metrics there; default: print them once.", min=0, max=65535),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
) -> None:
    """Tell Prometheus about a run: versions, staleness, failures of each node by reason."""
    path = out.expanduser()
    events = read_events(path)
    if port is None:
        typer.echo(format_metrics(events), nl=False)
        return
    try:
        server = serve(path, host, port)
    except OSError as error:
        raise ConfigError(f"host is {host!r}, port {port}: {error.strerror}") from error
    with server:
        typer.echo(f"http://{host}:{server.server_port}/metrics", err=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return

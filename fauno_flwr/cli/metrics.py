"""The command ``fauno metrics``."""

from pathlib import Path
from typing import Annotated

import typer

from fauno_flwr.config.errors import ConfigError


def metrics(
    out: Annotated[Path, typer.Argument(help="Folder of the results of a run.")],
    port: Annotated[
        int | None,
        typer.Option(help="Serve /metrics there; default: print them once.", min=0, max=65535),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
) -> None:
    """Export a run to Prometheus: versions, staleness, failures of each node by reason."""
    from prometheus_client import generate_latest

    from fauno_flwr.results.prometheus import PATH, make_metrics_server, make_registry

    folder = out.expanduser()
    text = generate_latest(make_registry(folder)).decode()
    if port is None:
        typer.echo(text, nl=False)
        return
    try:
        server = make_metrics_server(folder, host, port)
    except OSError as error:
        raise ConfigError(f"host is {host!r}, port {port}: {error.strerror}") from error
    with server:
        typer.echo(f"http://{host}:{server.server_port}{PATH}", err=True)
        server.serve_forever()

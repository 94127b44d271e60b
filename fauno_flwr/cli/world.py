"""The commands below ``fauno world``: ``serve``, ``token``, ``status``."""

import json
import signal
import socket
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import SHARED, WorldConfig, require_address

STATUS_PATIENCE = 5.0
SecretFile = Annotated[
    Path | None, typer.Option(help="File with the secret from which all tokens are derived.")
]


def serve(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change, as in the run."),
    ] = None,
    conf: Annotated[str, typer.Option(help="Preset of conf/, or path of a YAML file.")] = "ether2",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0: a free one.", min=0, max=65535)
    ] = 0,
    secret_file: SecretFile = None,
    certificates: Annotated[
        Path | None,
        typer.Option(help="Folder with server.pem and server.key, of fauno deploy certificates."),
    ] = None,
    pace: Annotated[
        float, typer.Option(help="Ticks per second; 0: as many as possible.", min=0)
    ] = 0.0,
    out: Annotated[
        Path | None, typer.Option(help="File for the joint table (JSON), written at the end.")
    ] = None,
) -> None:
    """Host one world that the nodes of a federation share, until SIGTERM or SIGINT.

    Exit codes: 0 stopped by SIGTERM, 130 by SIGINT, 1 the world has failed, 2 bad input.
    """
    table = None if out is None else require_file("out", out)
    config = load_config(conf, [f"world.kind={SHARED}", *(overrides or [])])
    scenario = replace(config, world=WorldConfig()).build_scenario()
    import torch

    from fauno_flwr.results.directory import write_atomically
    from fauno_flwr.shared_world.host import WorldHost
    from fauno_flwr.shared_world.server import Credentials, WorldService
    from fauno_flwr.shared_world.table import format_status

    torch.set_num_threads(1)
    credentials = Credentials.read(secret_file, certificates)
    _require_host(host)
    world = WorldHost(config, scenario, pace)
    stop, interrupted = threading.Event(), threading.Event()

    def request_stop(number: int, frame: FrameType | None) -> None:
        stop.set()
        if number == signal.SIGINT:
            interrupted.set()

    before = [(each, signal.signal(each, request_stop)) for each in (signal.SIGTERM, signal.SIGINT)]
    try:
        with WorldService(world, f"{host}:{port}", credentials) as service:
            secured = ("TLS" if certificates else "no TLS") + (", tokens" if secret_file else "")
            typer.echo(
                f"world of {scenario.topology.num_nodes} nodes, {len(scenario.agents)} of which "
                f"decide, on {service.address} ({secured})"
            )
            while not stop.wait(0.2) and not world.wait(0):
                pass
            status = world.call(world.status)
    finally:
        for each, handler in before:
            signal.signal(each, handler)
    typer.echo(format_status(status))
    if table is not None:
        write_atomically(table, json.dumps(status, indent=2) + "\n")
    if interrupted.is_set():
        typer.echo("fauno: stopped by SIGINT", err=True)
        raise typer.Exit(128 + signal.SIGINT)


def require_file(name: str, path: Path) -> Path:
    """Return the absolute path of a file that can be written; else raise ``ConfigError``."""
    file = path.expanduser().absolute()
    try:
        if file.is_dir():
            raise ConfigError(f"{name} is {str(path)!r}: is a folder, must be a file")
        tempfile.TemporaryFile(dir=file.parent).close()
    except OSError as error:
        raise ConfigError(
            f"{name} is {str(path)!r}: cannot be written ({error.strerror}), must be a file in a "
            f"folder that exists"
        ) from error
    return file


def _require_host(host: str) -> None:
    """Raise :class:`ConfigError` unless a name or address can be looked up."""
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"host is {host!r}: must be a name or an address of this machine"
        ) from error


def token(
    agent: Annotated[int, typer.Argument(help="Number of the agent: partition-id of its node.")],
    secret_file: Annotated[Path, typer.Option(help="File with the secret of the service.")],
) -> None:
    """Print the token with which a node may act as one agent of a shared world, and as no other."""
    from fauno_flwr.shared_world.tokens import LONGEST_NUMBER, read_secret, token_of

    if not 0 <= agent < 10**LONGEST_NUMBER:
        raise ConfigError(f"agent is {agent}: must be from 0 to {10**LONGEST_NUMBER - 1}")
    typer.echo(token_of(read_secret(secret_file.expanduser()), str(agent)))


def status(
    address: Annotated[str, typer.Argument(help="HOST:PORT of the service.")],
    secret_file: SecretFile = None,
    ca: Annotated[Path | None, typer.Option(help="ca.crt of a service with certificates.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All of it, as JSON.")] = False,
) -> None:
    """Show how the tasks of a shared world ended, who served them, and each node's record."""
    from fauno_flwr.shared_world.client import Access, WorldClient
    from fauno_flwr.shared_world.table import format_status
    from fauno_flwr.shared_world.tokens import OPERATOR, read_secret, token_of
    from fauno_flwr.shared_world.wire import STATUS

    authority = None if ca is None else str(ca.expanduser().absolute())
    try:
        require_address("address", address)
        access = Access.read(address, authority=authority)
        if secret_file is not None:
            secret = read_secret(secret_file.expanduser())
            access = replace(access, token=token_of(secret, OPERATOR))
        with WorldClient(access, STATUS_PATIENCE) as client:
            answer, _ = client.call(STATUS, {})
    except (ValueError, ConnectionError) as error:
        raise ConfigError(str(error)) from error
    typer.echo(json.dumps(answer, indent=2) if as_json else format_status(answer))

"""The command ``fauno export``."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fauno_flwr.cli.options import Best
from fauno_flwr.config.errors import ConfigError

if TYPE_CHECKING:
    from fauno_flwr.tasks.export import Exported

ACTORS = "safetensors"
LIVE = ("tensorboard", "wandb")
FORMATS = (ACTORS, "csv", "parquet", *LIVE)


def export(
    run: Annotated[
        Path | None, typer.Argument(help="Folder of a run whose actors were collected.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="New folder for the files, or the file (.csv, .parquet) to write."),
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="safetensors (the actors), or the metrics of the run as csv, parquet, tensorboard "
            "or wandb (offline).",
        ),
    ] = ACTORS,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="With tensorboard or wandb: until the run has ended."),
    ] = False,
    node: Annotated[
        list[str] | None, typer.Option(help="Only this node (repeatable); default: all.")
    ] = None,
    state_dir: Annotated[
        Path | None,
        typer.Option(help="Instead of a run: the state-dir of a SuperNode, on its machine."),
    ] = None,
    observation: Annotated[
        str, typer.Option(help="With --state-dir: the observation of the training, if not built in")
    ] = "",
    best: Best = False,
) -> None:
    """Export actors as safetensors with a loader that needs only numpy, or metrics for tools."""
    if out is None:
        raise ConfigError("out is missing: must be a new folder (--out DIR)")
    if form not in FORMATS:
        raise ConfigError(f"format is {form!r}: must be one of {', '.join(FORMATS)}")
    if follow and form not in LIVE:
        raise ConfigError(f"--follow has no effect with format {form}, must be left out")
    if form != ACTORS:
        others = {"--node": node, "--state-dir": state_dir, "--best": best}
        for option, value in (others | {"--observation": observation}).items():
            if value:
                raise ConfigError(f"{option} has no effect with format {form}, must be left out")
        if run is None:
            raise ConfigError("export needs the folder of a run")
        _metrics(run.expanduser(), out.expanduser().absolute(), form, follow)
        return
    if (run is None) == (state_dir is None):
        raise ConfigError("export needs the folder of a run, or --state-dir of a node")
    given = {"--observation": observation} if run else {"--node": node, "--best": best}
    for option, value in given.items():
        if value:
            source = "the folder of a run" if run else "--state-dir"
            raise ConfigError(f"{option} has no effect with {source}, must be left out")
    from fauno_flwr.tasks.export import write_export

    if run is not None:
        exported = _of_run(run.expanduser(), best, node or [])
    else:
        assert state_dir is not None
        exported = _of_node(state_dir.expanduser().absolute(), observation)
    for path in write_export(exported, out.expanduser().absolute()):
        typer.echo(path)


def _metrics(run: Path, out: Path, form: str, follow: bool) -> None:
    """Export the metrics of a run; what exists is not overwritten."""
    from fauno_flwr.results import exporters

    if out.exists():
        raise ConfigError(f"out is {str(out)!r}: exists, choose a new one")
    if not out.parent.is_dir():
        raise ConfigError(f"out is {str(out)!r}: must be in a folder that exists")
    rows = exporters.read_rows(run, follow=follow)
    try:
        if form == "csv":
            exporters.write_csv(list(rows), out)
        elif form == "parquet":
            exporters.write_parquet(list(rows), out)
        elif form == "tensorboard":
            exporters.write_tensorboard(rows, out)
        else:
            from fauno_flwr.tasks.trained import read_settings

            exporters.write_wandb(rows, out, run.name, asdict(read_settings(run)))
    except OSError as error:
        raise ConfigError(f"out is {str(out)!r}: cannot be written ({error.strerror})") from error
    typer.echo(out)


def _of_run(folder: Path, best: bool, nodes: list[str]) -> "Exported":
    from fauno_flwr.tasks.export import of_run
    from fauno_flwr.tasks.trained import read_actors, read_settings

    config, actors = read_settings(folder), read_actors(folder, best=best)
    for name in nodes:
        if name not in actors:
            raise ConfigError(f"node is {name!r}: must be one of {', '.join(actors)}")
    return of_run(config, {name: actors[name] for name in nodes or actors})


def _of_node(folder: Path, observation: str) -> "Exported":
    """Read the agent that a SuperNode has saved; there is usually one."""
    from fauno_flwr.federation.logs import quiet_flower
    from fauno_flwr.federation.node_state import NodeState
    from fauno_flwr.federation.protocol import read
    from fauno_flwr.tasks.export import of_states

    parameters = {}
    for agent, training in _saved_agents(folder):
        with quiet_flower():  # it would log that the agent resumes
            record = NodeState(str(folder), agent, training).load()
        if record is None:
            raise ConfigError(f"state-dir is {str(folder)!r}: agent {agent} cannot be read")
        parameters[f"agent-{agent}"] = read(record, "parameters", bytes)
    if not parameters:
        raise ConfigError(f"state-dir is {str(folder)!r}: holds no agent-<number>.state")
    return of_states(parameters, observation)


def _saved_agents(folder: Path) -> Iterator[tuple[int, str]]:
    """Yield number and training of each agent in a folder, from the heads of the files."""
    for path in sorted(folder.glob("agent-*.state")):
        try:
            with path.open("rb") as file:
                head = json.loads(file.readline())
            yield int(head["agent"]), str(head["training"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{str(path)!r} cannot be read: {error}") from error

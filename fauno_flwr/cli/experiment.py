"""The command ``fauno experiment``."""

from pathlib import Path
from typing import Annotated

import typer

from fauno_flwr.cli.options import FAILED
from fauno_flwr.config.settings import ConfigError
from sim_env.errors import require_choice


def experiment(
    name: Annotated[
        str, typer.Argument(help="baseline, buffer, transfer, straggler or federation.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; goes on with what is there.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer conditions, shorter training.")
    ] = False,
    seeds: Annotated[
        int | None, typer.Option(help="Trainings per method and condition.", min=1)
    ] = None,
    methods: Annotated[
        str,
        typer.Option(help="Only these, with commas: fauno,independent; default: all of them."),
    ] = "",
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster; default: RAY_ADDRESS, or else this machine's cores."),
    ] = None,
) -> None:
    """Answer one of the paper's questions; stopped, the same command goes on."""
    from fauno_flwr.experiments import EXPERIMENTS
    from fauno_flwr.experiments.design import cells

    try:
        require_choice("experiment", name, EXPERIMENTS)
        asked = EXPERIMENTS[name]
        wanted = cells(asked, quick, seeds or asked.seeds, methods.split(",") if methods else ())
    except ValueError as error:
        raise ConfigError(str(error)) from error
    from fauno_flwr.experiments.report import write
    from fauno_flwr.experiments.runner import CellsFailedError, Results, compute, through_ray

    results = Results(out.expanduser().absolute())
    try:
        found = compute(wanted, results, through_ray(address), _say)
    except CellsFailedError as error:
        typer.echo(f"fauno: {error}", err=True)
        raise typer.Exit(FAILED) from None
    typer.echo(write(asked, quick, found, results.path))
    typer.echo(f"results in {results.path}")


def _say(text: str) -> None:
    typer.echo(text, err=True)

"""The command ``fauno experiment``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fauno_flwr.cli.options import FAILED, split_names
from fauno_flwr.cli.report import WithReport, report_at_end
from fauno_flwr.cli.signals import Stopped, unwinding
from fauno_flwr.config.errors import ConfigError

if TYPE_CHECKING:
    from fauno_flwr.experiments.design import Experiment


def experiment(
    name: Annotated[
        str,
        typer.Argument(
            help="baseline, buffer, transfer, straggler, federation, gossip, privacy, scale or "
            "tuning, or package.module:attribute of your own."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the results; one with results is continued.")
    ],
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer conditions, shorter training.")
    ] = False,
    seeds: Annotated[
        int | None, typer.Option(help="Trainings per method and condition.", min=1)
    ] = None,
    methods: Annotated[
        str,
        typer.Option(help="Only these, separated by commas: fauno,independent; default: all."),
    ] = "",
    heuristics: Annotated[
        str,
        typer.Option(
            help="Further heuristics, separated by commas: lqrand, or package.module:attribute of "
            "your own."
        ),
    ] = "",
    tables_only: Annotated[
        bool,
        typer.Option("--tables-only", help="Write the tables of the cells there; compute none."),
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster; default: RAY_ADDRESS, or else this machine's cores."),
    ] = None,
    with_report: WithReport = True,
) -> None:
    """Answer a question of the paper, or one of your own; the same command resumes if stopped."""
    from fauno_flwr.experiments.design import cells, require_names
    from fauno_flwr.results.directory import RunDirectory

    if tables_only and (methods or seeds):
        given = "methods" if methods else "seeds"
        raise ConfigError(
            f"{given} is {methods or seeds}: must not be set with tables-only, which takes the "
            f"methods and seeds of the cells there"
        )
    chosen = find_experiment(name)
    if heuristics:
        chosen = chosen.with_heuristics(split_names(heuristics))
    only = split_names(methods) if methods else ()
    folder = out.expanduser().absolute()
    try:
        require_names(chosen, only)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    known = (folder / "cells").is_dir()
    if not known and not tables_only:
        RunDirectory.check(folder)
    if known or not tables_only:
        # What follows takes seconds: importing torch, settings of all cells, starting Ray.
        _print_progress(f"preparing the cells of {chosen.name}")
    from fauno_flwr.experiments.report import write
    from fauno_flwr.experiments.runner import (
        CellsFailedError,
        RayPool,
        Results,
        compute,
        stored,
    )

    made = []
    try:
        if tables_only:
            found = stored(folder, chosen, quick)
        else:
            made = cells(chosen, quick, seeds or chosen.seeds, only)
            pool = RayPool(address, _print_progress)
            with unwinding():
                found = compute(made, Results(folder), pool, _print_progress, lambda: pool.workers)
    except Stopped:
        kept = len(list((folder / "cells").glob("*.json")))
        _print_progress(
            f"fauno: {kept} of {len(made)} cells are kept in {folder}; the same command resumes"
        )
        raise
    except CellsFailedError as error:
        typer.echo(f"fauno: {error}", err=True)
        raise typer.Exit(FAILED) from None
    except ValueError as error:
        raise ConfigError(str(error)) from error
    typer.echo(write(chosen, quick, found, folder))
    report_at_end(folder, with_report)
    typer.echo(f"results in {folder}")


def find_experiment(name: str) -> "Experiment":
    """Return the experiment of that name or import path; raise ``ConfigError`` if none."""
    from fauno_flwr.experiments import EXPERIMENTS
    from fauno_flwr.experiments.design import Experiment
    from sim_env.plugins import find

    try:
        found = find("experiment", name, EXPERIMENTS, "fauno.experiments")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(found, Experiment):
        raise ConfigError(
            f"experiment is {name!r}: must be an Experiment, not of type {type(found).__name__}"
        )
    return found


def _print_progress(line: str) -> None:
    typer.echo(line, err=True)

"""The command ``fauno peersimgym``: run settings of the original simulator."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from fauno_flwr.config.errors import ConfigError

POLICY_HELP = "lq, lqrand, random, local, threshold or sed."


def peersimgym(
    config: Annotated[
        Path | None, typer.Argument(help="Configuration dictionary of PeersimGym, JSON.")
    ] = None,
    policy: Annotated[str, typer.Option(help=POLICY_HELP)] = "",
    seed: Annotated[int, typer.Option(help="Of the arrivals and of the order of events.")] = 0,
    ticks: Annotated[
        int | None, typer.Option(help="Ticks to simulate; default: cycles times scale.")
    ] = None,
    topology: Annotated[Path | None, typer.Option(help="Ether topology file, JSON.")] = None,
    jobs: Annotated[
        Path | None, typer.Option(help="CSV with instructions,size_mb, or batch_task.csv.")
    ] = None,
    arrival_rate: Annotated[
        float | None, typer.Option(help="Tasks per second and stream; default: 1.")
    ] = None,
    scale: Annotated[int | None, typer.Option(help="Ticks per second; default: 10.")] = None,
    cycles: Annotated[int | None, typer.Option(help="Seconds to simulate; default: 1000.")] = None,
    queue_order: Annotated[
        str, typer.Option(help="lifo, as in its code, or fifo, as in its documentation.")
    ] = "lifo",
    undivided_frequencies: Annotated[
        bool,
        typer.Option(
            "--undivided-frequencies/--divided-frequencies",
            help="Whether the speeds of nodes are per tick, as in its code, or per second, as in "
            "its documentation.",
        ),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run the physics of the original simulator, to compare with it.

    Either a configuration dictionary, or --topology and --jobs.
    """
    from sim_env.peersimgym import results as original
    from sim_env.policies.heuristics import get_policy

    files = {"--topology": topology, "--jobs": jobs}
    others = {"--arrival-rate": arrival_rate, "--scale": scale, "--cycles": cycles}
    _require_one_form(config, files, others)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            decide = get_policy(policy)
            quirks = replace(original.PHYSICS.quirks, queue_order=queue_order)
            physics = replace(original.PHYSICS, quirks=quirks)
            if config:
                scenario, default_ticks = original.read_config(
                    config, physics, undivided_frequencies=undivided_frequencies
                )
            else:
                per_second = 10 if scale is None else scale
                scenario = original.load(
                    str(topology),
                    str(jobs),
                    1.0 if arrival_rate is None else arrival_rate,
                    per_second,
                    physics=physics,
                    undivided_frequencies=undivided_frequencies,
                )
                default_ticks = per_second * (1000 if cycles is None else cycles)
        for warning in caught:
            typer.echo(f"fauno: {warning.message}", err=True)
        ticks = default_ticks if ticks is None else ticks
        found = original.measure(scenario, decide, seed, ticks)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    typer.echo(json.dumps(found) if as_json else _readable(found))


def _require_one_form(
    config: Path | None, files: dict[str, Path | None], others: dict[str, float | None]
) -> None:
    given = [name for name, value in {**files, **others}.items() if value is not None]
    if config and given:
        raise ConfigError(
            f"both a configuration and {', '.join(given)} are given: must be a configuration "
            f"alone, or --topology and --jobs"
        )
    missing = [name for name, value in files.items() if value is None]
    if not config and missing:
        raise ConfigError(
            f"{' and '.join(missing)} missing: must be a configuration, or --topology and --jobs"
        )


def _readable(found: dict[str, Any]) -> str:
    return (
        f"{found['finished']} of {found['total']} tasks finished "
        f"({100 * found['finished_ratio']:.2f} %), mean response {found['response_ticks']:.1f} "
        f"ticks, in {found['seconds']:.1f} s"
    )

"""The command ``fauno simulate``."""

import os
from pathlib import Path
from typing import Annotated

import typer

from fauno_flwr.cli.options import FAILED, Conf, Out, Overrides, results_folder
from fauno_flwr.cli.report import WithReport, report_at_end
from fauno_flwr.config.loading import load_config


def simulate(
    overrides: Overrides = None,
    conf: Conf = "ether2",
    out: Out = None,
    workers: Annotated[
        int | None, typer.Option(help="Nodes that train at once; default: one per core.", min=1)
    ] = None,
    with_report: WithReport = True,
) -> None:
    """Train a federation through Flower's simulation engine and print the comparison."""
    # All nodes of a simulation are the user's own: their actors may be collected.
    settings = ["federation.collect_actors=true", *(overrides or [])]
    config = load_config(conf, settings, "simulate")
    path, scenario = results_folder(out, Path(conf).stem), config.build_network()
    # After the settings are checked: importing torch takes seconds.
    from fauno_flwr.cli.flower_run import (
        print_results,
        run_config,
        stop_on_signals,
        wait_for_run,
    )
    from fauno_flwr.deployment.engine import Engine, EngineError, stage_app
    from fauno_flwr.federation.checkpoints import require_own_checkpoints
    from fauno_flwr.learning.kernels import compile_kernels
    from fauno_flwr.tasks.heuristics import find_heuristics
    from fauno_flwr.tasks.memory import require_training
    from fauno_flwr.tasks.registry import task_in
    from fauno_flwr.tasks.start import first_version

    find_heuristics("evaluation.policies", config.evaluation.policies)
    task = task_in(config, scenario)
    require_training(config, scenario, 1)
    require_own_checkpoints(config)
    config.federation.privacy.build(None)  # fails here, not on the server, if it cannot be counted
    first_version(config, task.make_population(1))
    agents, cores = len(task.names), len(os.sched_getaffinity(0))
    typer.echo(f"{agents} nodes learn, {task.describe()}; results in {path}")
    if scenario is not None:
        compile_kernels(config, scenario)
    try:
        with stop_on_signals(path), Engine() as engine:
            app, submitted = stage_app(engine.home / "app"), run_config(conf, settings, path)
            run_id = engine.submit(app, submitted, agents, min(agents, workers or cores))
            wait_for_run(engine, run_id, path, agents, config)
    except EngineError as error:
        typer.echo(f"fauno: {error}", err=True)
        raise typer.Exit(FAILED) from None
    report_at_end(path, with_report)
    print_results(path, config)

"""Flower's server end: the run with the settings of ``context.run_config``."""

import shlex
from pathlib import Path

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fauno_flwr.config.loading import load_config
from fauno_flwr.federation.logs import set_up_logging
from fauno_flwr.federation.run import Run
from fauno_flwr.results.directory import RunDirectory, require_folder
from fauno_flwr.tasks.heuristics import find_heuristics
from fauno_flwr.tasks.registry import make_task
from strategies.background import BackgroundGrid
from strategies.flower_internals import HttpGrid

LARGEST_REPLY = 2**26  # bytes; a model has about a hundredth of that
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run with the settings ``conf``, ``overrides``, ``env-id`` and ``out``."""
    torch.set_num_threads(1)
    set_up_logging()
    settings = context.run_config
    overrides = shlex.split(str(settings["overrides"]))
    if settings["env-id"]:
        overrides = ["world=gym", f"world.env_id={settings['env-id']}", *overrides]
    config = load_config(str(settings["conf"]), overrides, relative_to=None)
    # Heuristics of one's own are imported now, not after the training.
    find_heuristics("evaluation.policies", config.evaluation.policies)
    require_folder("federation.checkpoints", config.federation.checkpoints)
    if isinstance(grid, HttpGrid):
        grid = BackgroundGrid(grid, LARGEST_REPLY)
    default_out = Path.home() / "fauno-flwr-results" / f"run-{context.run_id}"
    out = RunDirectory(str(settings["out"]) or default_out)
    Run(grid, config, make_task(config), out).execute()

"""A run with all files, once for all tests of its report."""

from pathlib import Path

import pytest

from fauno_flwr import client_app
from fauno_flwr.config.loading import load_config
from fauno_flwr.federation.run import Run
from fauno_flwr.results.directory import RunDirectory
from fauno_flwr.tasks.edge import EdgeTask
from strategies.grids import InMemoryGrid
from tests.fauno_flwr.tiny import AGENTS, TINY


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = load_config("ether2", [*TINY, "workload.rate=8", "evaluation.window=200"])
    grid = InMemoryGrid(client_app.app, AGENTS, duration=lambda i, k: 1.0 + 0.37 * i)
    out = RunDirectory(tmp_path_factory.mktemp("report") / "run")
    Run(grid, config, EdgeTask(config, config.build_scenario()), out).execute()
    return out.path

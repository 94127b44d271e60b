"""A small run: its settings, and its nodes on an in-memory grid."""

import pytest

from fauno_flwr import client_app
from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import RunConfig
from strategies.grids import InMemoryGrid
from tests.fauno_flwr.tiny import AGENTS, TINY


@pytest.fixture
def config() -> RunConfig:
    return load_config("ether2", TINY)


@pytest.fixture
def grid() -> InMemoryGrid:
    return InMemoryGrid(client_app.app, AGENTS, duration=lambda i, k: 1.0 + 0.37 * i)

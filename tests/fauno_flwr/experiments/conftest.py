"""The small experiment, computed once."""

from pathlib import Path

import pytest

from fauno_flwr.experiments.design import cells
from fauno_flwr.experiments.runner import Results, compute, in_process
from tests.fauno_flwr.experiments.tiny import TINY


@pytest.fixture(scope="package")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    """Return the folder of the small experiment with two seeds, and its cells."""
    out = tmp_path_factory.mktemp("tiny")
    return out, compute(cells(TINY, True, 2), Results(out), in_process, lambda text: None)

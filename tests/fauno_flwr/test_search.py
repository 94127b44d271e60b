"""The hyper-parameter search of examples/search, with two tiny trials."""

import re
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from tests.fauno_flwr.cosim.test_grid import SMALL
from tests.paths import ROOT

SCRIPT = ROOT / "examples" / "search" / "search.py"


def test_the_example_stays_short() -> None:
    assert len(SCRIPT.read_text().splitlines()) <= 60


@pytest.mark.slow
def test_two_trials_are_trained_and_the_study_goes_on(tmp_path: Path) -> None:
    settings = [*SMALL, "evaluation.every=2"]

    def search(trials: int) -> str:
        command = [sys.executable, SCRIPT, tmp_path / "out", str(trials), *settings]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert re.fullmatch(r"trial [01]: [01]\.\d+ with \{'learning_rate': .*\}\n", search(2))
    study = optuna.load_study(
        study_name="fauno", storage=f"sqlite:///{tmp_path / 'out' / 'study.db'}"
    )
    for trial in study.trials:
        assert trial.state == optuna.trial.TrialState.COMPLETE
        assert 0 < trial.value <= 1
        config = (tmp_path / "out" / f"trial-{trial.number}" / "config.yaml").read_text()
        assert f"gamma: {trial.params['gamma']}" in config
    search(1)
    assert len(study.trials) == 3

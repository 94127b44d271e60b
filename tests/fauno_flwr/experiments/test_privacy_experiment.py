"""The experiment on privacy: its noise, its floors, and what its report says of epsilon."""

from pathlib import Path

import pytest

from fauno_flwr.config.privacy import LOCAL
from fauno_flwr.experiments import privacy
from fauno_flwr.experiments.design import Arm, Condition, Design, Experiment, cells
from fauno_flwr.experiments.privacy import DELTA, EXPERIMENT, NOISE, RELEASES
from fauno_flwr.experiments.privacy_report import rows
from fauno_flwr.experiments.report import write
from fauno_flwr.experiments.runner import Results, compute, in_process
from fauno_flwr.experiments.summary import summarise
from strategies import noise_multiplier_for
from strategies.ledger import epsilon_of
from tests.fauno_flwr.experiments.tiny import SHORT, SMALL

pytest.importorskip("dp_accounting")


def test_the_noise_is_the_least_for_each_epsilon() -> None:
    assert {e: noise_multiplier_for(e, RELEASES, DELTA) for e in NOISE} == NOISE


def test_every_private_training_keeps_to_its_epsilon() -> None:
    private = 0
    for cell in cells(EXPERIMENT, False, 5):
        if cell.training is None or "-" not in cell.method or "clipped" in cell.method:
            continue
        settings = cell.training.federation.privacy
        epsilon = int(cell.method.rpartition("-")[2])
        assert settings.kind in cell.method
        assert settings.max_epsilon == epsilon
        noise = settings.noise_multiplier / (2 if settings.kind == LOCAL else 1)
        assert epsilon_of(((noise, RELEASES),), settings.delta) <= epsilon
        private += 1
    assert private == 20 * 5 + 14 * 3 + 4 * 3 + 2 * 3


def test_a_condition_may_have_fewer_seeds() -> None:
    made = [cell for cell in cells(EXPERIMENT, False, 5) if cell.training]
    of = {
        name: {c.seed for c in made if c.key.startswith(f"{name}.")}
        for name in ("scratch", "nodes298")
    }
    assert of == {"scratch": {1, 2, 3, 4, 5}, "nodes298": {1, 2, 3}}
    assert len(cells(EXPERIMENT, False, 2, ["fauno"])) == 4 + 4 * 2


def test_the_report_says_what_was_spent_and_by_how_much_the_federation_is_ahead(
    tmp_path: Path,
) -> None:
    methods = {name: privacy.METHODS[name] for name in ("fauno", "alone", "central-3", "local-30")}

    def design(quick: bool) -> Design:
        condition = Condition("small", "1 cluster", SMALL, SHORT)
        return Design([condition], [Arm(name, "small") for name in methods], messages=2)

    tiny = Experiment("tiny", "Is it?", design, methods, further=EXPERIMENT.further)
    found = compute(cells(tiny, False, 2), Results(tmp_path), in_process, lambda line: None)
    by_method = {row["method"]: row for row in rows(summarise(tiny, {"small": "1 cluster"}, found))}
    assert set(by_method) == {"fauno", "central-3", "local-30"}
    assert by_method["fauno"]["epsilon"] is None
    assert 0 < by_method["central-3"]["epsilon"] < 3
    assert 0 < by_method["local-30"]["epsilon"] < 30
    assert by_method["central-3"]["versions"] == [4, 4]
    for row in by_method.values():
        assert row["floor"] == "alone"
        assert all(n is None or 0 <= n <= 4 for n in row["to_target"])
    text = write(tiny, False, found, tmp_path)
    assert "protects all updates of a node, in the versions" in " ".join(text.split())
    assert (tmp_path / "figures" / "privacy.png").is_file()

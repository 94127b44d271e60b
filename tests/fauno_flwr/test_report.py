"""The table and the figures, also of too little."""

from pathlib import Path

import pytest

from fauno_flwr import report
from fauno_flwr.results import _plain
from sim_env.evaluation import run_policies
from sim_env.policies import POLICIES
from sim_env.scenario import load_scenario


@pytest.mark.parametrize("worlds", [1, 3])
def test_the_table_reads_the_same_from_json(worlds: int, tmp_path: Path) -> None:
    """Of one world the interval is unbounded, which is null in JSON."""
    policies = {"fauno": POLICIES["sed"], "lq": POLICIES["lq"]}
    rows = run_policies(load_scenario("ether2"), policies, range(worlds), warmup=0, window=100)
    text = report.format_table(_plain({"rows": rows})["rows"], 0.41, worlds)
    lines = text.splitlines()
    assert lines[2].startswith("FAuNO  ")
    assert lines[3].startswith("LeastQueue  ")
    assert f"{100 * rows[0]['finished_ratio']['mean']:.2f} ±" in lines[2]
    assert ("FAuNO - LeastQueue" in text) == (worlds > 1)
    report.plot_comparison(rows, 0.41, tmp_path / "comparison.png")
    assert (tmp_path / "comparison.png").stat().st_size > 10_000


def test_nothing_finished_is_a_dash() -> None:
    assert report.plus_minus({"mean": None, "low": None, "high": None}) == "-"
    assert report.plus_minus({"mean": float("nan"), "low": 0.0, "high": 0.0}) == "-"
    assert report.plus_minus({"mean": 0.5, "low": 0.4, "high": 0.6}, 100) == "50.00 ± 10.00"

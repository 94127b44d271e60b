"""The table and the figures, also of too little."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from fauno_flwr.results import report
from fauno_flwr.results.directory import _plain
from sim_env.evaluation import run_policies, run_policy, summarise
from sim_env.policies.heuristics import POLICIES
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


def test_a_figure_of_one_world_or_of_nothing_finished_is_drawn(tmp_path: Path) -> None:
    """Unbounded intervals and what is not defined stay inside the axes."""
    policies = {"sed": POLICIES["sed"], "local": POLICIES["local"]}
    rows = run_policies(load_scenario("ether2"), policies, [0], warmup=0, window=100)
    nan = dict.fromkeys(("mean", "low", "high"), float("nan"))
    rows[1] |= {"finished_ratio": nan, "response_mean": nan, "response_p95": float("nan")}
    figure, axis = plt.subplots()
    assert not report._plot_intervals(axis, rows, "response_mean", 1, "s")
    assert np.isfinite(axis.get_xlim()).all()
    assert [text.get_text() for text in axis.texts] == [f"{rows[0]['response_mean']['mean']:.1f}"]
    plt.close(figure)
    report.plot_comparison(rows, 0.41, tmp_path / "comparison.png")


def test_failures_have_a_column_where_there_are_some() -> None:
    policies = {"sed": POLICIES["sed"], "local": POLICIES["local"]}
    rows = run_policies(load_scenario("ether2"), policies, [0], warmup=0, window=50)
    assert "failure" not in report.format_table(rows, 0.41, 1)
    rows[1]["lost"]["failure"] = 0.25
    head, _, *body = report.format_table(rows, 0.41, 1).splitlines()
    assert head.split()[-1] == "failure"
    assert [line.split()[-1] for line in body[:2]] == ["0.00", "25.00"]


def test_tables_are_flat_and_leave_out_what_is_not_finite() -> None:
    span = {"mean": 1.0, "low": float("-inf"), "high": float("nan")}
    rows = [
        {"policy": "lq", "ratio": span, "served_by": [1, 2], "minus": {"sed": {"ratio": span}}},
        {"policy": "sed", "ratio": span, "served_by": [3], "minus": {"lq": {"ratio": span}}},
    ]
    policies, differences = report.tables(rows)
    assert report.to_csv(policies) == (
        "policy,ratio.mean,ratio.low,ratio.high\nlq,1.0,,\nsed,1.0,,\n"
    )
    assert report.to_csv(differences) == (
        "policy,other,measure,policy_minus_other,low,high\nsed,lq,ratio,1.0,,\n"
    )


@pytest.mark.parametrize("names", [["lq", "sed", "local"], ["sed", "fauno", "lq"]])
def test_the_differences_of_the_file_have_the_sign_of_the_printed_ones(names: list[str]) -> None:
    results = {
        name: run_policy(
            load_scenario("ether2"), POLICIES.get(name, POLICIES["threshold"]), [0, 1], window=300
        )
        for name in names
    }
    rows = summarise(results, baselines=names)
    _, differences = report.tables(rows)
    pairs = [frozenset((d["policy"], d["other"])) for d in differences[::2]]
    assert len(pairs) == len(set(pairs)) == 3
    mean = {row["policy"]: row["finished_ratio"]["mean"] for row in rows}
    printed = report.format_table(rows, 0.41, 2)
    head = "differences, the first policy - the second"
    assert printed.count(" - ") == 1 + printed.partition(head)[2].count("points") == 3
    for each in differences[::2]:
        assert each["measure"] == "finished_ratio"
        difference = each["policy_minus_other"]
        assert difference == pytest.approx(mean[each["policy"]] - mean[each["other"]])
        other_way = f"{report.title(each['other'])} - {report.title(each['policy'])}: finished"
        assert other_way not in printed
        line = f"{report.title(each['policy'])} - {report.title(each['other'])}: finished "
        if line in printed:
            assert printed.partition(line)[2].startswith(f"{100 * difference:+.2f} ")


def test_nothing_finished_is_a_dash() -> None:
    assert report.plus_minus({"mean": None, "low": None, "high": None}) == "-"
    assert report.plus_minus({"mean": float("nan"), "low": 0.0, "high": 0.0}) == "-"
    assert report.plus_minus({"mean": 0.5, "low": 0.4, "high": 0.6}, 100) == "50.00 ± 10.00"

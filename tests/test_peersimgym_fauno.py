"""The comparison with the paper's numbers: cells, and the table with the published block."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import peersimgym_fauno

from fauno_flwr.experiments.design import Condition, Design, Experiment, all_methods, cells
from fauno_flwr.experiments.methods import METHODS
from fauno_flwr.experiments.paper_text import to_latex, to_markdown

SHORT = ("training.worlds=2", "training.ticks=40", "training.rollouts=1", "training.warmup=10")
NETWORKS = ("Ether, 1 cluster", "random, 10 nodes")


def small() -> Experiment:
    """Return the comparison on networks of this project, with short trainings."""
    conditions = [
        Condition(
            f"{name}-rate{rate}",
            f"{title}, λ = {rate}/s",
            (f"topology={name}", f"workload.rate={rate}", "evaluation.worlds=2"),
            SHORT,
        )
        for name, title in zip(("ether1", "random10"), NETWORKS, strict=True)
        for rate in (1, 2)
    ]
    methods = {name: METHODS[name] for name in ("fauno", "paper")}
    design = Design(conditions, all_methods(conditions, tuple(methods)), 1, "peersimgym", 1_000_000)
    return Experiment("peersimgym", "?", lambda quick: design, methods)


@pytest.fixture(scope="module")
def found() -> list[dict]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peersimgym_fauno, "TICKS", 300)
        made = [peersimgym_fauno.run_cell(cell) for cell in cells(small(), False, 1)]
    return json.loads(json.dumps(made))


def test_published_numbers_are_beside_ours_and_marked(found: list[dict]) -> None:
    for table in peersimgym_fauno.tables(small(), found):
        assert table.columns == NETWORKS
        *loads, last = table.blocks
        assert loads == ["λ = 1/s", "λ = 2/s"]
        ((policy, numbers),) = table.blocks[last].items()
        assert "published" in policy
        assert not any(number.best or number.half for number in numbers)
        expected = ["97.4", "88.2"] if table.caption.startswith("Fin") else ["165.2", "307.2"]
        assert [number.value for number in numbers] == expected
    assert table.caption == "Response, ticks"


def test_all_policies_meet_the_same_worlds_and_methods_act_as_they_are_compared(found) -> None:
    by_key = {cell["key"]: cell["worlds"] for cell in found}
    at = "random10-rate2"
    worlds = [by_key[f"{at}.{name}.1"][at] for name in ("fauno", "paper")]
    assert [list(world["policies"]) for world in worlds] == [["greedy"], ["sampled"]]
    heuristics = by_key[f"{at}.heuristics"][at]["policies"]
    for world in worlds:
        (policy,) = world["policies"].values()
        # Not to the task: the original's arrivals depend a little on the decisions.
        assert policy["created"] == pytest.approx(heuristics["lq"]["created"], rel=0.03)
        assert world["seeds"] == [1_000_000, 1_000_001]
    assert all(30 < ticks < 300 for ticks in heuristics["lq"]["response_mean"])  # not seconds


def test_the_tables_are_ascii_in_latex_and_say_what_is_unknown(found) -> None:
    made = peersimgym_fauno.tables(small(), found)
    notes = [peersimgym_fauno.SETTINGS, peersimgym_fauno.KNOWN]
    assert r"\multicolumn{3}{l}{load unknown}" in to_latex(made, notes)
    assert to_latex(made, notes).isascii()
    assert "Unknown: λ and the number of nodes" in to_markdown(made, "x", notes)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--seeds", "0"], "seeds is 0: must be at least 1"),
        (["--workers", "-1"], "workers is -1: must be at least 1"),
        ([], "network_2_clusters_heterogeneous_type.json"),  # no data there
        (["--tables-only"], "holds no cells"),
    ],
)
def test_bad_arguments_are_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit, match="2"):
        peersimgym_fauno.main([str(tmp_path), "--out", str(tmp_path / "new"), *words])
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "new").exists()

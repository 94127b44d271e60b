"""The benchmark of other trainers measures all of them in the same way, and goes on where it was.

Trainings are of a few seconds: that they run, not what they learn.
"""

import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from sim_env.evaluation import run_policy
from sim_env.policies.heuristics import get_policy
from sim_env.world import World

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import other_trainers
from rivals import common

STEPS, SEEDS = 3000, [1, 2]
# The federation has a test of its own; RLlib takes a minute to start and is left to the benchmark.
QUICK = [name for name in other_trainers.METHODS if name not in ("ours-all", "rllib")]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the benchmark with budgets that any method spends at once."""
    for kind, budget in other_trainers.BUDGETS.items():

        def measure(policy, seeds, measure=budget.measure):
            return measure(policy, seeds, window=50)

        tiny = replace(budget, steps=STEPS, seconds=0.0, worlds=1, measure=measure)
        monkeypatch.setitem(other_trainers.BUDGETS, kind, tiny)
    return other_trainers


def test_a_node_that_follows_its_peers_is_measured_as_any_world_is() -> None:
    """Mutation: tasks of other nodes, or of other ticks, are counted, too."""
    window, node = 300, common.NODE
    found = common.measure_node(get_policy(common.PEERS), SEEDS, window)
    peers = run_policy(
        common.scenario(),
        get_policy(common.PEERS),
        SEEDS,
        warmup=common.EVALUATION_WARMUP,
        window=window,
    )
    born, finished = (column[:, node].sum() for column in (peers.born_at, peers.finished_at))
    assert born > 100
    assert found["finished"] == pytest.approx(100 * finished / born)


def test_the_responses_of_all_nodes_add_up_to_those_of_the_world() -> None:
    world = World(common.scenario(), [3], trace=True)
    world.measure(100, 300)
    world.run(get_policy("lq"), 700, np.random.default_rng(0))
    events, nodes = world.events(), range(world.num_nodes)
    own = [common.outcomes(events, node, 100, 300) for node in nodes]
    metrics = world.metrics()
    assert [sum(each) for each in zip(*own, strict=True)] == [
        metrics.created[0],
        metrics.finished[0],
        metrics.response_sum[0],
    ]


def test_a_row_of_the_environment_says_what_an_observation_of_the_world_says() -> None:
    world = World(common.scenario(), [1])
    world.run(get_policy("lq"), 200, np.random.default_rng(0))
    seen = world.observe()
    slots, rows = 3, []
    policy = common.FlatPolicy(lambda *both: rows.append(both) or np.zeros(len(seen)), slots)
    policy(seen, np.random.default_rng(0))
    (flat, mask), (local, destination) = rows[0], seen.features()
    np.testing.assert_array_equal(flat[:, : local.shape[1]], local)
    np.testing.assert_array_equal(
        flat[:, local.shape[1] : -slots], destination[:, :slots].reshape(len(flat), -1)
    )
    np.testing.assert_array_equal(flat[:, -slots:] > 0, mask)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", QUICK)
def test_a_method_trains_until_both_budgets_are_spent(small: ModuleType, name: str) -> None:
    for module in small.METHODS[name].needs:
        if find_spec(module.partition(".")[0]) is None:
            pytest.skip(f"{module} is not installed")
    budget = small.BUDGETS[small.METHODS[name].kind]
    found = small.train(name, 1, budget)
    assert found["seconds"]["agent_steps"] == 0  # of a budget of no time, before the first step
    assert found["steps"]["agent_steps"] >= STEPS
    assert 0 < found["steps"]["decisions"] <= found["steps"]["agent_steps"]
    assert found["steps"]["cpu_seconds"] > 0
    assert 0 <= found["steps"]["finished"] <= 100


def test_a_federation_of_all_nodes_is_measured_on_its_way_and_at_its_end(
    small: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rivals import ours

    short = ("federation.versions=2", "training.worlds=2", "training.ticks=32")
    monkeypatch.setattr(ours, "settings", lambda *more: common.settings(*more, *short))
    budget = replace(small.BUDGETS[small.ALL], seconds=1e9)  # never spent: measured at the end
    found = small.train("ours-all", 1, budget)
    assert STEPS <= found["steps"]["agent_steps"] < found["seconds"]["agent_steps"]
    assert found["steps"]["decisions"] < found["seconds"]["decisions"]
    assert 0 < found["seconds"]["finished"] <= 100


def test_cells_are_kept_and_not_computed_again(
    small: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    done: list[str] = []
    one = {"agent_steps": 10, "decisions": 5, "cpu_seconds": 1.0, "finished": 90.0}
    cell = {budget: {**one, "response": 3.0, "reward": 0.1} for budget in small.SPENT}
    names = [f"{name}-{seed}" for name in small.METHODS for seed in (1, 2)]
    cells = {name: lambda name=name: done.append(name) or cell for name in names}
    monkeypatch.setattr(small, "cells", lambda: cells)
    monkeypatch.setattr(small, "missing_module", lambda cell: "ray" if "rllib" in cell else "")
    out = ["--out", str(tmp_path)]
    small.main([*out, "--part", "0", "2"])
    assert done == [name for name in names[::2] if "rllib" not in name]
    small.main(out)
    small.main(out)
    assert sorted(done) == sorted(name for name in names if "rllib" not in name)
    capsys.readouterr()
    small.main([*out, "--table"])
    text = capsys.readouterr().out
    assert "| ours | 10 | 5 | 1 | 90.0 ± 0.0 | 3.00 ± 0.00 | 0.100 ± 0.000 | 10 |" in text
    assert set(json.loads((tmp_path / "table.json").read_text())) == set(done)
    widths = [line.count("|") for line in text.splitlines() if line]
    assert set(widths) == {10, 12}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--part", "4", "4"], "part is 4 4: must be I N with 0 <= I < N"),
        (["--part", "0", "0"], "part is 0 0: must be"),
        (["--table"], "holds no cells"),
    ],
)
def test_bad_arguments_are_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit, match="2"):
        other_trainers.main(["--out", str(tmp_path / "new"), *words])
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "new").exists()

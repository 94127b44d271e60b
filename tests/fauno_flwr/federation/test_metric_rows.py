"""``metrics.jsonl`` and the evaluations during training."""

import json
from pathlib import Path

import numpy as np
import pandas
import pytest
from safetensors.numpy import load_file

from fauno_flwr import client_app
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.cosim.grid import CosimGrid
from fauno_flwr.federation.periodic import score
from fauno_flwr.federation.run import Run
from fauno_flwr.learning.metrics import STEPS
from fauno_flwr.results.directory import RunDirectory, read_lines
from fauno_flwr.results.status import node_statistics
from fauno_flwr.tasks.edge import EdgeTask
from fauno_flwr.tasks.transfer import make_trained
from sim_env.evaluation import run_policy
from strategies.grids import InMemoryGrid
from tests.fauno_flwr.cosim.test_grid import Trained, settings
from tests.fauno_flwr.tiny import AGENTS, TINY

SHORT = ["training.worlds=1", "training.rollouts=1"]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Return a co-simulation that was evaluated at versions 2 and 4."""
    return Trained(tmp_path_factory.mktemp("run") / "evaluated", "evaluation.every=2")


def test_a_row_has_the_names_of_the_field_and_is_read_by_pandas(evaluated: Trained) -> None:
    rows = pandas.read_json(evaluated.path / "metrics.jsonl", lines=True)
    assert rows["version"].tolist() == [1, 2, 3, 4]
    flushes = evaluated.of("flush")
    assert rows["time/virtual"].tolist() == [flush["t"] for flush in flushes]
    assert rows["time/wall"].is_monotonic_increasing
    steps = np.cumsum([sum(flush["steps"]) for flush in flushes])
    assert rows["time/total_timesteps"].tolist() == steps.tolist()
    merged = [np.mean(flush["staleness"]) for flush in flushes]
    np.testing.assert_allclose(rows["federation/staleness"], merged)
    learning = ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")
    for name in (*learning, "explained_variance", "reward", "finished_of_ended", "response"):
        assert np.isfinite(rows[f"train/{name}"]).all()
    assert rows["eval/finished_ratio"].notna().tolist() == [False, True, False, True]
    assert rows["eval/response"].notna().tolist() == [False, True, False, True]


def test_a_row_is_the_weighted_mean_of_the_merged_replies(evaluated: Trained) -> None:
    first, replies = evaluated.of("flush")[0], evaluated.of("reply")
    merged = [r for r in replies if r["t"] <= first["t"] and r["node"] in first["nodes"]]
    assert len(merged) == len(first["nodes"])
    weights = [reply["metrics"][STEPS] for reply in merged]
    row = read_lines(evaluated.path / "metrics.jsonl")[0]
    for name, key in (("train/approx_kl", "approx-kl"), ("train/reward", "reward")):
        expected = np.average([reply["metrics"][key] for reply in merged], weights=weights)
        assert row[name] == pytest.approx(expected)


def test_only_wall_time_differs_between_two_runs_and_evaluations_change_nothing(
    evaluated: Trained, tmp_path: Path
) -> None:
    again = Trained(tmp_path / "again", "evaluation.every=2")
    without = Trained(tmp_path / "without")

    def text(trained: Trained, dropped: tuple[str, ...]) -> str:
        rows = read_lines(trained.path / "metrics.jsonl")
        return json.dumps(
            [{k: v for k, v in row.items() if not k.startswith(dropped)} for row in rows]
        )

    assert text(evaluated, ("time/wall",)) == text(again, ("time/wall",))
    skipped = ("time/wall", "eval/")
    assert text(evaluated, skipped) == text(without, skipped)
    assert evaluated.text == again.text == without.text  # the events
    for name in ("critic", "actors"):
        file = f"checkpoints/{name}.safetensors"
        written = {(t.path / file).read_bytes() for t in (evaluated, again, without)}
        assert len(written) == 1
    assert evaluated.rows == without.rows
    assert not (without.path / "checkpoints" / "best").exists()
    assert "best" not in json.loads((without.path / "summary.json").read_text())


def test_rows_are_written_while_the_run_trains(tmp_path: Path) -> None:
    config, seen = settings("federation.versions=2"), []
    scenario, out = config.build_scenario(), RunDirectory(tmp_path / "run")

    def watch(event: dict) -> None:
        if event["event"] == "flush":
            seen.append(len(read_lines(out.path / "metrics.jsonl")))

    grid = CosimGrid(config, scenario)
    Run(grid, config, EdgeTask(config, scenario), out, watch).execute()
    assert seen == [0, 1]


def test_the_best_version_is_kept_and_was_evaluated_on_worlds_of_its_own(
    evaluated: Trained,
) -> None:
    """Its actors give the numbers of its row again, on seeds that the final table does not use."""
    config, scenario = evaluated.config, evaluated.grid.scenario
    during, folder = config.evaluation.validation_seeds, evaluated.path / "checkpoints" / "best"
    assert not set(during) & set(config.evaluation.seeds)
    best = json.loads((folder / "best.json").read_text())
    rows = [row for row in read_lines(evaluated.path / "metrics.jsonl") if "eval/response" in row]
    top = max(rows, key=score)
    assert best == {
        "version": top["version"],
        "measure": "eval/finished_ratio",
        "eval/finished_ratio": top["eval/finished_ratio"],
        "eval/response": top["eval/response"],
    }
    summary = json.loads((evaluated.path / "summary.json").read_text())
    assert summary["best"] == {**best, "seeds": list(during)}
    assert summary["seconds"]["clock"] == "virtual"
    kept = load_file(folder / "actors.safetensors")
    names = [scenario.topology.names[node] for node in scenario.agents]
    actors = [
        {key.split(".", 1)[1]: array for key, array in kept.items() if key.startswith(f"{name}.")}
        for name in names
    ]
    policy = make_trained(actors, config, scenario).policy(scenario.agent_of_node, greedy=True)
    metrics = run_policy(scenario, policy, during, warmup=10, window=50)
    assert float(metrics.finished_ratio.mean()) == top["eval/finished_ratio"]
    assert float(metrics.mean_response.mean()) == top["eval/response"]
    assert load_file(folder / "critic.safetensors").keys() == evaluated.arrays["critic"].keys()


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"eval/finished_ratio": 0.9, "eval/response": 9.0}, {"eval/finished_ratio": 0.8}),
        (
            {"eval/finished_ratio": 1.0, "eval/response": 2.0},
            {"eval/finished_ratio": 1.0, "eval/response": 3.0},
        ),
        ({"eval/return": 20.0}, {"eval/return": 10.0}),
        ({"eval/finished_ratio": 0.1}, {"eval/finished_ratio": float("nan")}),
    ],
)
def test_what_is_better(better: dict[str, float], worse: dict[str, float]) -> None:
    assert score(better) > score(worse)


def test_through_flower_nodes_are_queried_between_two_messages(tmp_path: Path) -> None:
    """No node has a query and a train message at once: the older state would replace the newer."""
    config = load_config("ether2", [*TINY, *SHORT, "evaluation.every=2"])
    grid = InMemoryGrid(client_app.app, AGENTS, duration=lambda i, k: 1.0 + 0.37 * i)
    out = RunDirectory(tmp_path / "run")
    Run(grid, config, EdgeTask(config, config.build_scenario()), out).execute()
    events, busy = read_lines(out.path / "events.jsonl"), set()
    for event in events:
        if event["event"] == "dispatch":
            assert event["node"] not in busy
            busy.add(event["node"])
        elif event["event"] in ("reply", "evaluation"):
            busy.discard(event["node"])
    done = [event["version"] for event in events if event["event"] == "evaluated"]
    assert done
    rows = read_lines(out.path / "metrics.jsonl")
    assert [row["version"] for row in rows] == [1, 2, 3, 4]
    assert [row["version"] for row in rows if "eval/finished_ratio" in row] == done
    assert 4 in done
    assert all(node["rejections"] == 0 for node in node_statistics(events).values())


def test_an_evaluation_that_is_open_when_training_ends_is_completed(tmp_path: Path) -> None:
    """Version 3 of 4: most nodes are still training when the last version is made."""
    config = load_config("ether2", [*TINY, *SHORT, "evaluation.every=3"])
    grid = InMemoryGrid(client_app.app, AGENTS, duration=lambda i, k: 1.0 + 0.37 * i)
    out = RunDirectory(tmp_path / "run")
    Run(grid, config, EdgeTask(config, config.build_scenario()), out).execute()
    rows = read_lines(out.path / "metrics.jsonl")
    assert [row["version"] for row in rows if "eval/finished_ratio" in row] == [3]
    assert json.loads((out.path / "summary.json").read_text())["best"]["version"] == 3


def test_a_resumed_run_has_all_rows_and_the_best_actors(tmp_path: Path) -> None:
    common = [*TINY, *SHORT, f"federation.checkpoints={tmp_path / 'state'}", "evaluation.every=4"]

    def once(name: str, *more: str) -> Path:
        config = load_config("ether2", [*common, *more])
        out = RunDirectory(tmp_path / name)
        grid = InMemoryGrid(client_app.app, AGENTS)
        Run(grid, config, EdgeTask(config, config.build_scenario()), out).execute()
        return out.path

    first, second = once("first"), once("second", "federation.versions=6")
    old, new = (read_lines(path / "metrics.jsonl") for path in (first, second))
    assert [row["version"] for row in new] == [1, 2, 3, 4, 5, 6]
    assert new[:4] == old
    assert "eval/finished_ratio" in old[3]
    for name in ("actors.safetensors", "critic.safetensors", "best.json"):
        mine, theirs = (path / "checkpoints" / "best" / name for path in (first, second))
        assert mine.read_bytes() == theirs.read_bytes()
    assert new[4]["time/total_timesteps"] > new[3]["time/total_timesteps"]
    assert new[4]["time/wall"] >= new[3]["time/wall"]


@pytest.mark.parametrize("overrides", [["federation.collect_actors=false"], []])
def test_without_the_actors_there_is_no_evaluation_during_training(overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"evaluation.every is 5: must be 0 without federation"):
        load_config("ether2", ["evaluation.every=5", *overrides])

"""Runs of an experiment: resuming, failed cells, the command; and their tables and verdicts."""

import gc
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fauno_flwr.cli.main import app
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.experiments import bound, tuning
from fauno_flwr.experiments.cells import run_cell
from fauno_flwr.experiments.design import BASELINES, Arm, Cell, Condition, Design, Experiment, cells
from fauno_flwr.experiments.methods import Method
from fauno_flwr.experiments.report import write
from fauno_flwr.experiments.runner import (
    CellsFailedError,
    Outcome,
    RayPool,
    Results,
    compute,
    in_process,
    stored,
)
from fauno_flwr.experiments.summary import SIGN, deciding, differences, summarise
from tests.fauno_flwr.experiments.tiny import SHORT, SMALL, TINY


def test_a_gossip_is_a_method_and_its_links_are_measured(tmp_path: Path) -> None:
    def gossiping(quick: bool) -> Design:
        condition = Condition("small", "1 cluster", SMALL, SHORT)
        return Design([condition], [Arm("gossip", "small"), Arm("manager", "small")], messages=2)

    methods = {
        "gossip": Method("gossip", ("federation.merging=gossip",)),
        "manager": Method("manager"),
    }
    experiment = Experiment("g", "Is it?", gossiping, methods, rivals=("manager",), traffic=True)
    found = compute(cells(experiment, True, 1), Results(tmp_path), in_process, lambda text: None)
    text = write(experiment, True, found, tmp_path)
    assert "## Load of the links, and agreement" in text
    (gossip, manager) = json.loads((tmp_path / "summary.json").read_text())["traffic"]
    assert 0 < gossip["busiest"] < gossip["total"]
    assert manager["busiest"] == manager["server"]
    assert len(gossip["distance"]) == 3
    assert gossip["distance"][-1] > 0
    training = next(cell["training"] for cell in found if cell["method"] == "gossip")
    assert training["versions"] == 2


def test_a_killed_experiment_resumes(done, tmp_path: Path) -> None:
    made = cells(TINY, True, 2)
    # On a fast machine these cells would leave no time to estimate.
    slow = [{**found, "seconds": {"wall": 30.0, "cpu": 30.0}} for found in done[1]]
    kept = {cell.key: found for cell, found in zip(made, slow, strict=True)}
    computed: list[str] = []

    def dies(some: Sequence[Cell]) -> Iterator[Outcome]:
        for cell in some[:3]:
            yield cell, kept[cell.key]
        raise KeyboardInterrupt

    def lives(some: Sequence[Cell]) -> Iterator[Outcome]:
        computed.extend(cell.key for cell in some)
        yield from ((cell, kept[cell.key]) for cell in some)

    with pytest.raises(KeyboardInterrupt):
        compute(made, Results(tmp_path), dies, lambda text: None)
    # A file that was being written does not count.
    (tmp_path / "cells" / f"{made[3].key}.json.part").write_text("{")
    lines: list[str] = []
    found = compute(made, Results(tmp_path), lives, lines.append)
    assert computed == [cell.key for cell in made[3:]]
    assert found == slow
    assert re.fullmatch(r"5 cells: 3 kept, 2 to compute, [\d:]+( to [\d:]+)? left", lines[0])
    assert re.match(r"4/5 cells, [\d:]+( to [\d:]+)? left; done: ", lines[1])
    assert lines[2].startswith("5/5 cells; done: ")


def test_more_seeds_compute_only_the_missing_cells(done) -> None:
    computed: list[str] = []

    def pool(some: Sequence[Cell]) -> Iterator[Outcome]:
        computed.extend(cell.key for cell in some)
        yield from ()

    compute(cells(TINY, True, 3), Results(done[0]), pool, lambda text: None)
    assert computed == ["small.fauno.3", "small.sync.3"]


def test_failed_cells_are_reported_after_the_others_and_retried(done, tmp_path: Path) -> None:
    made = cells(TINY, True, 1)
    kept = {found["key"]: found for found in done[1]}

    def pool(some: Sequence[Cell]) -> Iterator[Outcome]:
        for cell in some:
            yield cell, ValueError("no luck\nat all") if cell.method == "fauno" else kept[cell.key]

    with pytest.raises(CellsFailedError, match=r"1 of 3 cells failed.*small.fauno.1: no luck\)"):
        compute(made, Results(tmp_path), pool, lambda text: None)
    assert [Results(tmp_path).read(cell) is None for cell in made] == [False, True, False]


def test_tables_can_be_made_again_of_the_cells_alone(done, tmp_path: Path) -> None:
    """Whatever the settings of the cells were, and in whatever order they are read."""
    out, found = done
    shutil.copytree(out / "cells", tmp_path / "cells")
    for path in (tmp_path / "cells").glob("*.json"):
        path.write_text(path.read_text().replace('"settings": "', '"settings": "other-'))
    again = stored(tmp_path, TINY, True)
    assert [cell["key"] for cell in again] == [cell["key"] for cell in found]
    assert write(TINY, True, again, tmp_path) == write(TINY, True, found, out)
    for name in ("summary.json", "table.csv"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()
    (tmp_path / "cells" / "small.fauno.1.json").unlink()
    with pytest.raises(ConfigError, match=r"1 of 5 cells are missing, such as small.fauno.1"):
        stored(tmp_path, TINY, True)
    with pytest.raises(ConfigError, match="holds no cells"):
        stored(tmp_path / "figures", TINY, True)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"key": "small.fauno.1"}'])
def test_a_damaged_cell_is_named(done, tmp_path: Path, text: str) -> None:
    shutil.copytree(done[0] / "cells", tmp_path / "cells")
    (tmp_path / "cells" / "small.fauno.1.json").write_text(text)
    (cell,) = (cell for cell in cells(TINY, True, 2) if cell.key == "small.fauno.1")
    with pytest.raises(ConfigError, match=r"small.fauno.1.json': holds no result; remove it"):
        stored(tmp_path, TINY, True)
    with pytest.raises(ConfigError, match=r"small.fauno.1.json': holds no result; remove it"):
        Results(tmp_path).read(cell)


def test_cells_from_before_a_heuristic_was_added_make_tables_without_it(
    done, tmp_path: Path
) -> None:
    shutil.copytree(done[0] / "cells", tmp_path / "cells")
    more = replace(TINY, heuristics=("clairvoyant",), further=bound.report)
    old = stored(tmp_path, more, True)
    assert len(old) == len(done[1])
    text = write(more, True, old, tmp_path)
    assert "Clairvoyant" not in text
    assert not (tmp_path / "figures" / "bound.png").exists()


def test_every_policy_has_its_distance_to_the_clairvoyant(done, tmp_path: Path) -> None:
    more = replace(TINY, heuristics=("clairvoyant",), further=bound.report)
    (cell,) = (each for each in cells(more, True, 2) if each.policies == ("clairvoyant",))
    made = [*done[1], run_cell(cell)]
    text = write(more, True, made, tmp_path)
    assert (tmp_path / "figures" / "bound.png").exists()
    _, _, section = text.partition("## Distance to the clairvoyant")
    lines = [line for line in section.splitlines() if line.startswith("| 1 cluster")]
    assert [line.split(" | ")[1] for line in lines][:3] == [
        "Clairvoyant",
        "FAuNO",
        "ShortestExpectedDelay",
    ]
    assert "best heuristic: " in lines[3]
    summary = summarise(more, {"small": "1 cluster"}, made)
    best = bound.best_heuristic(summary, "small")
    samples, measure = summary.samples["small"], deciding(summary, "small")
    values = {name: SIGN[measure] * samples[name].measure(measure).mean() for name in BASELINES}
    assert values[best] == max(values.values())
    # Of the first method, the distance is that of the table of differences with its sign.
    first = next(row for row in bound.distances(summary) if row["policy"] == "fauno")
    (same,) = (
        row
        for row in differences(summary)
        if row["rival"] == "clairvoyant" and row["measure"] == "finished_ratio"
    )
    assert first["finished_ratio"].value == same["value"]


def test_a_further_heuristic_may_be_the_best_but_not_the_clairvoyant_itself(done) -> None:
    summary = summarise(TINY, {"small": "1 cluster"}, done[1])
    samples = summary.samples["small"]
    perfect = replace(
        samples["sed"],
        finished_ratio=np.ones_like(samples["sed"].finished_ratio),
        response_mean=np.full_like(samples["sed"].response_mean, 1e-3),
    )
    more = replace(
        summary,
        experiment=replace(TINY, heuristics=("clairvoyant", "lqrand")),
        samples={"small": {**samples, "clairvoyant": perfect, "lqrand": perfect}},
    )
    assert bound.best_heuristic(more, "small") == "lqrand"


def test_cells_of_other_settings_are_not_mixed_in(done) -> None:
    cell = cells(TINY, True, 1)[1]
    assert cell.training is not None
    other = replace(cell, training=replace(cell.training, observation="paper"))
    with pytest.raises(ConfigError, match="other settings, choose a new folder"):
        Results(done[0]).read(other)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(ConfigError, match="is not empty"):
        Results(tmp_path)


def test_the_report_has_a_row_for_every_policy_and_lists_what_is_not_beaten(done) -> None:
    out, found = done
    text = write(TINY, True, found, out)
    facts = json.loads((out / "summary.json").read_text())
    assert [row["policy"] for row in facts["table"]][:2] == ["sed", "threshold"]
    assert len(facts["table"]) == 5 + 2 * 2
    assert (out / "table.csv").read_text().count("\n") == 10
    assert {path.name for path in (out / "figures").iterdir()} == {
        "curves.png",
        "differences.png",
        "map.png",
        "targets.png",
    }
    assert "Where FAuNO does not beat ShortestExpectedDelay" in text


@pytest.mark.parametrize(("shift", "verdict"), [(0.1, "better"), (0.0, "tie"), (-0.1, "worse")])
def test_verdicts_follow_from_the_numbers(done, shift: float, verdict: str) -> None:
    cells_found = json.loads(json.dumps(done[1]))
    rng = np.random.default_rng(0)
    for cell in cells_found:
        for name, metrics in cell["worlds"]["small"]["policies"].items():
            base = 0.5 + (shift if cell["method"] == "fauno" and name == "greedy" else 0.0)
            metrics["finished_ratio"] = (base + 0.001 * rng.normal(size=3)).tolist()
    rows = differences(summarise(TINY, {"small": "1 cluster"}, cells_found))
    deciding = {row["rival"]: row["verdict"] for row in rows if row["decides"]}
    assert set(deciding.values()) == {verdict}


def test_a_condition_whose_name_has_a_dot_has_its_curves(done) -> None:
    cells_found = [
        {
            **cell,
            "key": cell["key"].replace("small.", "rate0.5."),
            "worlds": {"rate0.5": cell["worlds"]["small"]},
        }
        for cell in done[1]
    ]
    summary = summarise(TINY, {"rate0.5": "half a task"}, cells_found)
    curves = summarise(TINY, {"small": "1 cluster"}, done[1]).curves["small"]
    assert summary.curves == {"rate0.5": curves}


def test_a_sampled_method_is_compared_by_its_samples(done) -> None:
    """The same cells: only which of the two evaluations bears the method's name is another."""
    sampled = {
        name: replace(method, greedy=name != "sync") for name, method in TINY.methods.items()
    }
    titles = {"small": "1 cluster"}
    as_greedy = summarise(TINY, titles, done[1])
    as_sampled = summarise(replace(TINY, methods=sampled), titles, done[1])
    before, after = as_greedy.samples["small"], as_sampled.samples["small"]
    pairs = {"sync": "sync-sampled", "sync-greedy": "sync", "fauno": "fauno"}
    for name, same in pairs.items():
        np.testing.assert_array_equal(after[name].response_mean, before[same].response_mean)
    assert as_sampled.title("sync-greedy") == "synchronous critic, greedy"


def test_bad_input_is_one_sentence(tmp_path: Path) -> None:
    def said(*words: str) -> str:
        result = CliRunner().invoke(app, ["experiment", *words])
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1
        return result.stderr

    assert "must be one of baseline, buffer" in said("bufer", "--out", str(tmp_path / "a"))
    (tmp_path / "file").write_text("")
    assert "is not empty" in said("buffer", "--out", str(tmp_path))
    new = str(tmp_path / "new")
    assert "did you mean fauno" in said("baseline", "--methods", "funo", "--out", new)
    assert "holds no cells" in said("buffer", "--tables-only", "--out", new)
    words = ("buffer", "--tables-only", "--out", new)
    assert "methods is fauno: must not be set with tables-only" in said(
        *words, "--methods", "fauno"
    )
    assert "seeds is 2: must not be set with tables-only" in said(*words, "--seeds", "2")
    assert not Path(new).exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Ray leaves its processes to the system
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_cells_go_through_ray(done) -> None:
    made = cells(TINY, True, 1)
    found = list(RayPool(None)(made[:2]))
    assert {cell.key for cell, _ in found} == {cell.key for cell in made[:2]}
    for cell, outcome in found:
        first = next(each for each in done[1] if each["key"] == cell.key)
        assert isinstance(outcome, dict)
        assert outcome["settings"] == first["settings"]
    gc.collect()  # warnings of unclosed resources come up here


def test_an_address_without_a_cluster_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="must be that of a Ray cluster"):
        list(RayPool("127.0.0.1:1")(cells(TINY, True, 1)))


def test_the_ranking_of_a_tuning_follows_the_rule_of_the_protocol() -> None:
    """The highest finished ratio; of those that are as good as it, the lowest response."""

    def row(policy: str, finished: float, response: float) -> dict:
        measures = {"finished_ratio": finished, "response_mean": response}
        return {"policy": policy} | {m: {"mean": {"value": v}} for m, v in measures.items()}

    one, two, three = list(tuning.EXPERIMENT.methods)[:3]
    table = [row(one, 0.9996, 4.0), row(one, 0.9998, 4.2), row(two, 0.9995, 3.0)]
    table += [row(two, 0.9991, 3.0), row(three, 0.99, 1.0), row(three, 0.99, 1.0)]
    table += [row("lq", 1.0, 1.0), row("scof-0.001-40", 0.8, 9.0)]
    found = tuning.ranking(table)
    assert [place.method for place in found["state-shared"]] == [two, one, three]
    assert found["state-shared"][0][1:] == pytest.approx((0.9993, 3.0))
    assert [place.method for place in found["scof"]] == ["scof-0.001-40"]

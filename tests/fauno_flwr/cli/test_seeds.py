"""``fauno train --seeds``: several trainings, one table."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from fauno_flwr.cli.main import app
from fauno_flwr.cli.options import read_seeds
from fauno_flwr.cli.seeds import interval_of, with_seed
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.results.statistics import crossed
from tests.fauno_flwr.cosim.test_grid import SMALL

SETTINGS = [*SMALL, "evaluation.worlds=2", "federation.versions=1"]
ARRAYS = "checkpoints/actors.safetensors"


def train(out: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["train", "--out", str(out), *SETTINGS, *arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("seeds") / "out"
    return out, train(out, "--seeds", "2")


def test_every_seed_has_the_folder_that_its_own_command_writes(
    trained: tuple[Path, Result], tmp_path: Path
) -> None:
    out, done = trained
    assert done.exit_code == 0, done.output
    assert train(tmp_path / "alone", "seed=2").exit_code == 0
    assert (out / "seed-2" / ARRAYS).read_bytes() == (tmp_path / "alone" / ARRAYS).read_bytes()
    assert (out / "seed-1" / ARRAYS).read_bytes() != (out / "seed-2" / ARRAYS).read_bytes()


def test_the_table_is_over_seeds_and_worlds(trained: tuple[Path, Result]) -> None:
    out, done = trained
    summary = json.loads((out / "summary.json").read_text())
    assert summary["seeds"] == [1, 2]
    fauno, lq = summary["table"]
    alone = [json.loads((out / f"seed-{n}" / "summary.json").read_text()) for n in (1, 2)]
    for measure in ("finished_ratio", "response_mean"):
        means = [run["table"][0][measure]["mean"] for run in alone]
        assert [each[measure] for each in fauno["by_seed"]] == pytest.approx(means)
        assert fauno[measure]["mean"] == pytest.approx(np.mean(means))
        assert lq[measure] == alone[0]["table"][2][measure]
        minus = fauno["minus"]["lq"][measure]["mean"]
        assert minus == pytest.approx(fauno[measure]["mean"] - lq[measure]["mean"])
    assert "training seeds of FAuNO: 1, 2; its intervals are over seeds and worlds" in done.output
    assert (out / "figures" / "comparison.png").stat().st_size > 10_000
    assert (out / "table.csv").read_text().count("\n") == 3


def test_every_seed_and_all_of_them_have_a_report(
    trained: tuple[Path, Result], tmp_path: Path
) -> None:
    out, _ = trained
    assert (out / "seed-2" / "report.html").stat().st_size > 1_000_000
    assert "seed-2/report.html" in (out / "report.html").read_text()
    assert train(tmp_path / "alone", "--no-report").exit_code == 0
    assert not (tmp_path / "alone" / "report.html").exists()


def test_finished_trainings_are_kept_and_others_repeated(
    trained: tuple[Path, Result], tmp_path: Path
) -> None:
    """The interrupted folder is not lost."""
    out = tmp_path / "out"
    shutil.copytree(trained[0], out)
    before = (out / "seed-1" / "events.jsonl").stat().st_mtime_ns
    (out / "seed-2" / "summary.json").unlink()
    (out / "seed-2" / "mine.txt").write_text("mine")
    again = train(out, "--seeds", "1,2")
    assert again.exit_code == 0, again.output
    assert (out / "seed-1" / "events.jsonl").stat().st_mtime_ns == before
    assert (out / "seed-2.unfinished-1" / "mine.txt").read_text() == "mine"
    assert json.loads((out / "summary.json").read_text()) == json.loads(
        (trained[0] / "summary.json").read_text()
    )


def test_each_seed_has_checkpoints_of_its_own() -> None:
    config = load_config("ether2", ["federation.checkpoints=/state"])
    assert with_seed(config, 7).federation.checkpoints == "/state/seed-7"
    assert with_seed(load_config("ether2"), 7) == load_config("ether2", ["seed=7"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--seeds", "0"], "seeds is '0': must be a number from 1 to 1000"),
        (["--seeds", "two"], "seeds is 'two': must be a number of seeds (5), or seeds (1,2,3)"),
        (["--seeds", "1,1"], "seeds is '1,1': must be different"),
        (["--seeds", "2", f"seed={2**62}"], "must be different seeds of at most"),
        (["--seeds", "-1"], "seeds is '-1'"),
        (["--seeds", "2", "federation.versions=5"], "holds trainings with other settings"),
        (["--seeds", "2", "federation.collect_actors=false"], "must be true with --seeds"),
    ],
)
def test_impossible_seeds_are_one_sentence(
    arguments: list[str], sentence: str, trained: tuple[Path, Result]
) -> None:
    done = train(trained[0], *arguments)
    assert done.exit_code == 2
    assert sentence in done.output
    assert done.output.count("\n") == 1


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = train(tmp_path, "--seeds", "2")
    assert (done.exit_code, [path.name for path in tmp_path.iterdir()]) == (2, ["mine.txt"])
    assert "is not empty" in done.output


def test_seeds_are_counted_or_listed() -> None:
    assert read_seeds("3", 5) == [5, 6, 7]
    assert read_seeds("7, 3", 1) == [7, 3]
    with pytest.raises(ConfigError):
        read_seeds("", 1)


def test_the_interval_is_wider_with_seeds_that_differ() -> None:
    """Of equal trainings it is that of the worlds; seeds that differ widen it."""
    worlds = np.array([0.9, 0.8, 0.95, 0.85])
    equal, apart = np.tile(worlds, (3, 1)), worlds + np.array([[-0.05], [0.0], [0.05]])
    one, two = interval_of(equal), interval_of(apart)
    assert one["mean"] == pytest.approx(two["mean"])
    assert two["high"] - two["low"] > one["high"] - one["low"]
    assert one["high"] == pytest.approx(crossed(worlds[None]).high)

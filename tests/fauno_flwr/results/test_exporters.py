"""The metrics of a run, as other tools read them."""

import csv
import json
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fauno_flwr.cli.main import app
from fauno_flwr.results import exporters
from fauno_flwr.results.state import FINISHED, State, append_end, write_process

ROWS = [
    {"version": 1, "time/wall": 2.0, "train/reward": 0.25, "train/entropy": 1.5},
    {"version": 2, "time/wall": 4.0, "train/reward": None, "eval/return": 9.5},
    {"version": 3, "time/wall": 6.5, "train/reward": 0.5, "train/entropy": 1.0},
]


def append(run: Path, row: dict) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the folder of a run of this process that has finished."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("seed: 7\n")
    write_process(folder)
    (folder / "events.jsonl").touch()
    for row in ROWS:
        append(folder, row)
    append_end(folder, State(FINISHED))
    return folder


def export(run: Path, form: str, out: Path, *more: str) -> str:
    arguments = ["export", str(run), "--format", form, "--out", str(out), *more]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done.output


def test_csv_has_every_column_and_row(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "metrics.csv"
    assert export(run, "csv", out) == f"{out}\n"
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(dict.fromkeys(name for row in ROWS for name in row))
    assert [row["train/reward"] for row in rows] == ["0.25", "", "0.5"]
    assert [row["eval/return"] for row in rows] == ["", "9.5", ""]


def test_pandas_reads_parquet(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pandas

    export(run, "parquet", tmp_path / "metrics.parquet")
    found = pandas.read_parquet(tmp_path / "metrics.parquet")
    assert found["version"].tolist() == [1, 2, 3]
    assert found["train/entropy"].isna().tolist() == [False, True, False]


def read_events(folder: Path) -> dict[str, list[tuple[int, float, float]]]:
    """Return the scalars in a folder of TensorBoard: step, value, time."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder)).Reload()
    return {
        name: [(each.step, each.value, each.wall_time) for each in found.Scalars(name)]
        for name in found.Tags()["scalars"]
    }


def test_tensorboard_reads_its_events(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    export(run, "tensorboard", tmp_path / "logs")
    scalars = read_events(tmp_path / "logs")
    assert [each[:2] for each in scalars["train/reward"]] == [(1, 0.25), (3, 0.5)]
    assert [each[:2] for each in scalars["eval/return"]] == [(2, 9.5)]
    times = [each[2] for each in scalars["time/wall"]]
    assert times[2] - times[0] == pytest.approx(4.5, abs=1e-3)  # as the run took


def test_it_follows_a_run_to_its_end(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setattr(exporters, "POLL", 0.02)
    (run / "events.jsonl").write_text("")  # goes on

    def work() -> None:
        time.sleep(0.2)
        append(run, {"version": 4, "time/wall": 9.0, "train/reward": 0.75})
        append_end(run, State(FINISHED))

    # The file needs a line before its end can be appended.
    (run / "events.jsonl").write_text('{"event": "stage", "stage": "training"}\n')
    worker = threading.Thread(target=work)
    worker.start()
    export(run, "tensorboard", tmp_path / "logs", "--follow")
    worker.join()
    assert [each[0] for each in read_events(tmp_path / "logs")["train/reward"]] == [1, 3, 4]


def test_wandb_gets_every_row_and_the_settings(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    begun, logged = {}, []

    class Recorded:
        def log(self, values: dict, step: int) -> None:
            logged.append((step, values))

        def finish(self) -> None:
            logged.append("finished")

    def init(**arguments: object) -> Recorded:
        begun.update(arguments)
        return Recorded()

    monkeypatch.setattr(wandb, "init", init)
    export(run, "wandb", tmp_path / "logs")
    assert begun["mode"] == "offline"
    assert begun["config"]["seed"] == 7
    assert logged[1] == (2, {"time/wall": 4.0, "eval/return": 9.5})
    assert logged[-1] == "finished"


def test_a_missing_library_is_named_with_its_extra(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    arguments = ["export", str(run), "--format", "wandb", "--out", str(tmp_path / "logs")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "needs a library that is missing (wandb), pip install" in done.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{run}", "--format", "excel"], "format is 'excel': must be one of safetensors, csv"),
        (["{run}", "--format", "csv", "--follow"], "--follow has no effect with format csv"),
        (["{run}", "--follow"], "--follow has no effect with format safetensors"),
        (["{run}", "--format", "csv", "--node", "a"], "--node has no effect with format csv"),
        (["--format", "csv"], "export needs the folder of a run"),
        (["nowhere", "--format", "csv"], "out is 'nowhere': holds no events.jsonl"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(
    arguments: list[str], sentence: str, run: Path, tmp_path: Path
) -> None:
    given = [each.format(run=run) for each in arguments]
    done = CliRunner().invoke(app, ["export", *given, "--out", str(tmp_path / "x.csv")])
    assert done.exit_code == 2
    assert sentence in done.output
    assert not (tmp_path / "x.csv").exists()


def test_what_exists_is_kept(run: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("mine")
    arguments = ["export", str(run), "--format", "csv", "--out", str(tmp_path / "x.csv")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "exists, choose a new one" in done.output
    assert (tmp_path / "x.csv").read_text() == "mine"

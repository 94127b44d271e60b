"""The command line, without an engine."""

import csv
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from fauno_flwr.cli.compilation import LINE
from fauno_flwr.cli.flower_run import keep_log
from fauno_flwr.cli.main import app
from fauno_flwr.cli.progress import EventFile, Progress, follow
from fauno_flwr.experiments import EXPERIMENTS
from fauno_flwr.learning import kernels

FAUNO = str(Path(sys.executable).with_name("fauno"))


def fauno(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([FAUNO, *arguments], capture_output=True, text=True, check=False)


def test_compare_prints_the_table_and_writes_it(tmp_path: Path) -> None:
    short = ["evaluation.warmup=50", "evaluation.window=200"]
    out = tmp_path / "c"
    done = fauno(*("compare", "--policies", "lq,sed", "--seeds", "3", "--out", str(out)), *short)
    assert done.returncode == 0, done.stderr
    assert done.stderr in ("", f"{LINE}\n")
    assert "LeastQueue" in done.stdout
    assert "ShortestExpectedDelay" in done.stdout
    assert "rho = 0.411" in done.stdout
    written = json.loads((out / "table.json").read_text())
    assert [row["policy"] for row in written["table"]] == ["lq", "sed"]
    assert (out / "figures" / "comparison.png").exists()
    assert "ShortestExpectedDelay - LeastQueue: finished" in done.stdout
    with (out / "worlds.csv").open() as file:
        worlds = list(csv.DictReader(file))
    assert [(row["policy"], row["seed"]) for row in worlds] == [
        (policy, f"{1_000_000 + world}") for policy in ("lq", "sed") for world in range(3)
    ]
    lq, sed = ([row["created"] for row in worlds if row["policy"] == p] for p in ("lq", "sed"))
    assert lq == sed
    with (out / "table.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [int(row["created"]) for row in table] == [sum(map(int, lq))] * 2
    with (out / "differences.csv").open() as file:
        differences = list(csv.DictReader(file))
    minus = written["table"][1]["minus"]["lq"]["response_mean"]
    found = [
        [float(row[end]) for end in ("policy_minus_other", "low", "high")]
        for row in differences
        if (row["policy"], row["other"], row["measure"]) == ("sed", "lq", "response_mean")
    ]
    assert found == [[minus["mean"], minus["low"], minus["high"]]]


def commands(group: click.Group, path: str = "fauno") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def test_every_argument_and_option_of_every_command_has_its_help() -> None:
    """Mutation: arguments lose it with click 8.5 and typer before 0.21."""
    found = dict(commands(typer.main.get_command(app)))
    assert {"fauno experiment", "fauno topology show"} <= set(found)
    silent = [
        f"{name}: {parameter.name}"
        for name, command in found.items()
        for parameter in command.params
        if not getattr(parameter, "help", "")
    ]
    assert silent == []
    (name, *_) = found["fauno experiment"].params
    assert all(experiment in name.help for experiment in EXPERIMENTS)


def test_version_is_that_of_the_package() -> None:
    assert fauno("--version").stdout == f"fauno-flwr {version('fauno-flwr')}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["simulate", "federation.bufer_size=3"], "did you mean federation.buffer_size?"),
        (["simulate", "workload.rate=-1"], "workload.rate is -1.0: must be"),
        (["simulate", "federation.buffer_size=20"], "must be at most 19"),
        (["simulate", "evaluation.policies=[best]"], "evaluation.policies is 'best'"),
        (["simulate", "--conf", "eter2"], "did you mean ether2?"),
        (["simulate", "--out", "/proc/nothing/x"], "cannot be written"),
        (["compare", "--policies", "lq,best"], "policies is 'best': must be one of"),
        (["compare", "--policies", "lq,,sed"], "policies is '': must be one of"),
        (["compare", "--policies", "[lq"], "policies is '[lq'"),
        (["compare", "evaluation.policies=[]"], "evaluation.policies is []"),
        (["compare", "workload.rate=nan"], "workload.rate is nan"),
        (["compare", "topology.kind=full", "topology.nodes=1000000"], "GB that are free"),
        (["compare", "evaluation.window=99999999999"], "window is 99999999999: must be"),
        (["compare", "workload.jobs=file", "workload.path=/none.csv"], "cannot be read"),
        (["compare", "--conf", "nowhere"], "conf is 'nowhere'"),
        (["compare", "--policies", ""], "policies is '': must be one of"),
        (["world", "serve", "--out", "/"], "out is '/': is a folder, must be a file"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments: list[str], sentence: str) -> None:
    done = fauno(*arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_progress_reads_complete_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events, progress = EventFile(path), Progress(6, 40)
    assert list(events.new()) == []
    path.write_text('{"event": "stage", "stage": "training"}\n{"event": "reply", "na')
    for event in events.new():
        progress.update(event)
    assert progress.text() == "training: 0/6 nodes have replied, version 0/40"
    with path.open("a") as file:
        file.write('me": "rpi_ä"}\n{"event": "flush", "version": 3}\n')
    for event in events.new():
        progress.update(event)
    assert "1/6 nodes have replied, version 3/40, 0 s left" in progress.text()
    assert list(events.new()) == []


def test_progress_prints_the_first_failure_of_each_kind_with_the_node(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = Progress(3, 40)
    progress({"event": "stage", "stage": "training"})
    for name, reason in [("a", "sensor 7 fails"), ("b", "sensor 12 fails"), ("b", "no disk")]:
        progress({"event": "error", "name": name, "node": 1, "reason": reason})
    progress({"event": "refused", "node": 5, "reason": "another version"})
    progress({"event": "end", "state": "failed", "reason": "no node succeeds"})
    assert progress.failed == "no node succeeds"
    assert [line for line in capsys.readouterr().err.splitlines() if "training" not in line] == [
        "a: sensor 7 fails",
        "b: no disk",
        "node 5: another version",
    ]


def test_what_a_run_writes_while_the_engine_answers_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr("fauno_flwr.cli.progress.time.monotonic", lambda: now[0])
    monkeypatch.setattr("fauno_flwr.cli.progress.time.sleep", lambda seconds: now.append(seconds))
    path, progress = tmp_path / "events.jsonl", Progress(3, 40)

    def status() -> tuple[str, str]:
        path.write_text(
            '{"event": "error", "name": "a", "node": 1, "reason": "no disk"}\n'
            '{"event": "end", "state": "failed", "reason": "no node succeeds"}\n'
        )
        return "finished:failed", "an exception"

    progress.stage = "done"
    follow(EventFile(path), progress, status)
    assert progress.failed == "no node succeeds"
    assert "a: no disk\n" in capsys.readouterr().err


def test_the_seconds_left_are_never_negative() -> None:
    progress = Progress(3, 2)
    progress({"event": "stage", "stage": "training"})
    progress({"event": "flush", "version": 3})
    assert progress.text().endswith("version 3/2, 0 s left")


def test_progress_prints_each_stage_at_once_and_versions_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr("fauno_flwr.cli.progress.time.monotonic", lambda: now[0])
    progress = Progress(6, 40)
    for stage in ("handshake", "training"):
        progress({"event": "stage", "stage": stage})
    for made in (1, 2, 3):
        now[0] += 3.0
        progress({"event": "flush", "version": made})
    progress({"event": "stage", "stage": "evaluating"})
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(", ")[0] for line in lines] == [
        "handshake ...",
        "training: 0/6 nodes have replied",
        "training: 0/6 nodes have replied",
        "evaluating ...",
    ]
    assert "version 2/40, 114 s left" in lines[2]


@pytest.mark.parametrize("columns", [120, 60, 30])
def test_progress_on_a_terminal_is_a_bar_in_one_line(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    progress = Progress(6, 40)
    progress.live = True
    progress({"event": "stage", "stage": "training"})
    bars = []
    for made in (10, 40):
        progress({"event": "flush", "version": made})
        written = capsys.readouterr().err
        shown = written.rpartition("\r")[2]  # typer removes the escape code
        assert "\n" not in written
        assert len(shown) < columns
        bars.append(shown.count("━"))
        assert "training: 0/6" in shown
    assert bars == ([6, 24] if columns > 48 else [0, 0])


def test_the_log_of_a_run_that_failed_before_its_results_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert keep_log(tmp_path / "never made", "why") == tmp_path / "flower.log"
    (tmp_path / "run").mkdir()
    assert keep_log(tmp_path / "run", "why").read_text() == "why"


def test_one_line_says_that_kernels_are_compiled(capsys: pytest.CaptureFixture) -> None:
    CliRunner().invoke(app, ["peersimgym"])  # any command
    CliRunner().invoke(app, ["peersimgym"])
    logger = logging.getLogger("sim_env.engine.compilation")
    logger.info("compiling tick")
    logger.info("compiling roll")
    assert capsys.readouterr().err.splitlines() == [LINE]


@pytest.mark.slow
def test_a_command_says_that_it_compiles_the_first_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    command = ("compare", "--policies", "sed", "--seeds", "1", "evaluation.window=50")
    assert [fauno(*command).stderr.splitlines() for _ in range(2)] == [[LINE], []]


def test_prepare_compiles_the_kernels_of_every_kind_of_scenario(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The plain ones; with ``--all`` also those of the quirks, and of a reward in Python."""
    prepared = []

    def compile_kernels(config, scenario, report) -> None:
        prepared.append(scenario)
        for part in kernels.PARTS:
            report(part)

    monkeypatch.setattr(kernels, "compile_kernels", compile_kernels)
    for arguments, count in (["prepare"], 1), (["prepare", "--all"], 3):
        prepared.clear()
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0
        assert done.stdout.startswith("compiled kernels are in ")
        assert len(prepared) == count
        steps = [line.partition(" ")[0] for line in done.stderr.splitlines()[1:]]
        total = count * len(kernels.PARTS)
        assert steps == [f"{step}/{total}" for step in range(1, total + 1)]
    assert [scenario.net.events for scenario in prepared] == [False, True, False]
    assert [scenario.is_compiled for scenario in prepared] == [True, True, False]

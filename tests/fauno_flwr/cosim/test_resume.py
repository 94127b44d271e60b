"""An interrupted co-simulation resumes and ends with the bytes of an uninterrupted one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.cosim.grid import CosimGrid
from fauno_flwr.federation.checkpoints import MAY_CHANGE, identity, require_own_checkpoints
from fauno_flwr.federation.run import Run
from fauno_flwr.results import journal
from fauno_flwr.results.directory import RunDirectory
from fauno_flwr.tasks.edge import EdgeTask
from tests.fauno_flwr.cosim.test_grid import SMALL

SIX = [*SMALL, "federation.versions=6", "federation.buffer_size=3"]


class Interrupted(BaseException):
    """Stands for a signal."""


def train(out: Path, *overrides: str, until: int | None = None) -> list[dict[str, Any]]:
    """Train; `until`: interrupt after so many events of the strategy."""
    config = load_config("ether2", [*SIX, *overrides])
    scenario = config.build_scenario()
    left = [-1 if until is None else until]

    def on_event(event: dict[str, Any]) -> None:
        left[0] -= event["event"] != "stage"
        if left[0] == 0:
            raise Interrupted

    task = EdgeTask(config, scenario)
    return Run(CosimGrid(config, scenario), config, task, RunDirectory(out), on_event).execute()


def lines(folder: Path, name: str) -> list[str]:
    """Lines of a file, but for what differs from run to run."""
    found = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    return [
        json.dumps({key: value for key, value in line.items() if key != "time/wall"})
        for line in found
        if line.get("event") not in ("resume", "stage")
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param([], id="critic"),
        pytest.param(
            [
                "cosim.share_with_tasks=true",
                "federation.compression=top-k",
                "federation.server_optimizer=adam",
                "dynamics=failures",
                "dynamics.node_mttf=20",
                "dynamics.node_mttr=3",
                "dynamics.link_mttf=30",
                "dynamics.link_mttr=2",
                "training.rollouts=2",
            ],
            id="failures, residuals, messages on the links",
        ),
        pytest.param(["agent=ddqn", "federation.share=model"], id="replay buffers"),
    ],
)
def test_an_interrupted_training_ends_with_the_bytes_of_an_uninterrupted_one(
    tmp_path: Path, overrides: list[str]
) -> None:
    whole = train(tmp_path / "whole", *overrides)
    events = lines(tmp_path / "whole", "events.jsonl")
    saving = [*overrides, f"federation.checkpoints={tmp_path / 'checkpoints'}"]
    for run, until in enumerate((len(events) // 3, len(events) // 2)):
        with pytest.raises(Interrupted):
            train(tmp_path / f"interrupted-{run}", *saving, until=until)
    for name in ("resumed", "again"):  # the second finds a complete training
        rows = train(tmp_path / name, *saving)
        assert rows == whole
        for file in ("events.jsonl", "metrics.jsonl"):
            assert lines(tmp_path / name, file) == lines(tmp_path / "whole", file)
        for file in ("critic", "actors"):
            path = Path("checkpoints") / f"{file}.safetensors"
            assert (tmp_path / name / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()
    resumed = (tmp_path / "resumed" / "events.jsonl").read_text()
    assert resumed.count('"resume"') >= 1


def test_checkpoints_of_other_settings_are_refused_and_the_difference_is_named(
    tmp_path: Path,
) -> None:
    own = f"federation.checkpoints={tmp_path / 'checkpoints'}"
    require_own_checkpoints(load_config("ether2", [own]))  # claims the folder
    require_own_checkpoints(load_config("ether2", [own, "federation.versions=77"]))
    for override, difference in (
        ("seed=2", "seed is 2 here, 1 there"),
        ("topology=grid20", "topology.kind is 'grid' here, 'ether' there"),
        ("federation.buffer_size=3", "federation.buffer_size is 3"),
    ):
        with pytest.raises(ConfigError, match=difference) as error:
            require_own_checkpoints(load_config("ether2", [own, override]))
        assert "\n" not in str(error.value)
        assert all(free in str(error.value) for free in MAY_CHANGE)


def test_the_content_of_a_file_is_part_of_the_settings_and_its_folder_is_not(
    tmp_path: Path,
) -> None:
    def of(folder: str, text: str) -> dict[str, Any]:
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "jobs.csv"
        path.write_text(text)
        config = load_config("ether2", [])
        config.workload.path = str(path)
        return identity(config)

    assert of("a", "1") == of("b", "1") != of("c", "2")


def test_a_file_with_the_name_of_a_choice_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config("ether2")
    before = identity(config)
    monkeypatch.chdir(tmp_path)
    (tmp_path / config.topology.kind).write_text("notes")
    assert identity(config) == before


def test_a_folder_that_cannot_be_used_is_named() -> None:
    with pytest.raises(ConfigError, match=r"checkpoints is '/proc/x': cannot be written"):
        require_own_checkpoints(load_config("ether2", ["federation.checkpoints=/proc/x"]))


def test_two_processes_do_not_share_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PATIENCE", 0.1)
    folder = tmp_path / "checkpoints"
    script = "import sys, pathlib, fauno_flwr.results.journal as j\n"
    script += f"folder = pathlib.Path({str(folder)!r})\n"
    script += f"j.Journal(folder, j.RunDirectory({str(tmp_path / 'a')!r}))\n"
    script += "print('locked', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(ConfigError, match="is in use by another run"):
            journal.Journal(folder, RunDirectory(tmp_path / "b"))
        other.communicate("")
    journal.Journal(folder, RunDirectory(tmp_path / "c"))

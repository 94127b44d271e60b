"""The folder of a command's results."""

from datetime import datetime
from pathlib import Path

import click
import pytest

from fauno_flwr.cli import options
from fauno_flwr.cli.options import results_folder
from fauno_flwr.config.errors import ConfigError


class Noon(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: object = None) -> "Noon":
        """Return the same time always."""
        return cls(2026, 1, 2, 12)


@pytest.fixture(autouse=True)
def at_noon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "datetime", Noon)


def test_commands_of_the_same_second_have_folders_of_their_own(tmp_path: Path) -> None:
    with click.Context(click.Command("train")):
        folders = [results_folder(None, "ether2") for _ in range(3)]
        assert all(folder.is_dir() for folder in folders)
    names = [f"ether2-20260102-120000{suffix}" for suffix in ("", "-2", "-3")]
    assert folders == [tmp_path / "results" / name for name in names]


def test_a_folder_that_stays_empty_is_removed_with_the_command(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with click.Context(click.Command("train")):
        empty, full = results_folder(None, "a"), results_folder(Path("b"), "")
        (full / "events.jsonl").touch()
        assert results_folder(Path("there"), "") == tmp_path / "there"
        results_folder(Path("there/deep/deeper"), "")
    assert not empty.parent.exists()
    assert list((tmp_path / "there").iterdir()) == []
    assert (full / "events.jsonl").exists()
    assert (tmp_path / "there").is_dir()  # it was not made here


def test_a_folder_with_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    with click.Context(click.Command("train")), pytest.raises(ConfigError, match="is not empty"):
        results_folder(tmp_path, "")
    (tmp_path / "results").touch()
    with click.Context(click.Command("train")), pytest.raises(ConfigError, match="cannot be wri"):
        results_folder(None, "a")

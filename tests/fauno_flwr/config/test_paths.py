"""Relative paths of settings, and the file of resolved settings."""

import os
from pathlib import Path

import pytest

from fauno_flwr.cli.flower_run import run_config
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.layers import PATHS
from fauno_flwr.config.loading import absolute_overrides, load_config, load_resolved
from fauno_flwr.config.reference import settings

PATH_NAMES = (".path", ".sources", ".checkpoints", ".start")
KINDS = {"topology.path": "topology.kind=file", "workload.path": "workload.jobs=file"}


def test_every_setting_that_is_a_path_is_resolved() -> None:
    paths = [each.key for each in settings() if each.key.endswith(PATH_NAMES)]
    assert sorted(paths) == sorted(PATHS)


@pytest.mark.parametrize("key", PATHS)
def test_a_path_is_relative_to_the_working_directory_or_to_its_file(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, _, name = key.partition(".")
    kind = [KINDS[key]] if key in KINDS else []
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    found = load_resolved("ether2", [*kind, f"{key}=x/y"])
    assert found.value(key) == str(tmp_path / "a/x/y")
    lines = [f"  {setting.partition('.')[2].replace('=', ': ')}" for setting in kind]
    (tmp_path / "b/own.yaml").write_text("\n".join([f"{group}:", f"  {name}: ../z", *lines]))
    found = load_resolved(os.path.relpath(tmp_path / "b/own.yaml"))
    assert found.value(key) == str(tmp_path / "z")
    # What was resolved once is read from anywhere.
    (tmp_path / "b/config.yaml").write_text(found.config.to_yaml())
    monkeypatch.chdir("/")
    assert load_config(str(tmp_path / "b/config.yaml")) == found.config
    home = load_resolved("ether2", [*kind, f"{key}=~/x"])
    assert home.value(key) == str(Path.home() / "x")


def test_flower_gets_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes have other working directories; a name with spaces and commas survives."""
    monkeypatch.chdir(tmp_path)
    overrides = ["topology={kind: file, path: 'n, 1.json'}", "workload.rate=1"]
    overrides += ["federation.checkpoints='a b: c'"]
    made = absolute_overrides(overrides)
    assert made[1] == "workload.rate=1"
    monkeypatch.chdir("/")
    config = load_config("ether2", made, relative_to=None)
    assert config.topology.path == str(tmp_path / "n, 1.json")
    assert config.federation.checkpoints == str(tmp_path / "a b: c")
    monkeypatch.chdir(tmp_path)
    assert "a b: c" in run_config("ether2", overrides, tmp_path)["overrides"]
    assert str(tmp_path) in run_config("ether2", overrides, tmp_path)["overrides"]


@pytest.mark.parametrize("key", PATHS)
def test_an_app_in_flower_refuses_relative_paths(key: str) -> None:
    kind = [KINDS[key]] if key in KINDS else []
    with pytest.raises(ConfigError, match=f"{key} is 'x/y': must be an absolute path"):
        load_config("ether2", [*kind, f"{key}=x/y"], relative_to=None)

"""``fauno config``, ``-h`` and completion."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fauno_flwr.cli.config import catalogue
from fauno_flwr.cli.main import COMMANDS, app, deployments, topologies, worlds
from fauno_flwr.cli.options import complete_conf, complete_override
from fauno_flwr.config.loading import choices, conf_dir
from fauno_flwr.config.reference import settings


def fauno(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_show_prints_every_setting_with_its_source(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("training:\n  ticks: 64\nagent: ddqn\n")
    lines = fauno("config", "--conf", str(own), "topology=grid20", "workload.rate=4").splitlines()
    shown = {}
    for line in lines:
        setting, _, source = line.partition("  # ")
        key, _, value = setting.strip().partition("=")
        shown[key] = (value, source.strip())
    keys = {each.key for each in settings() if each.algorithm in ("", "ddqn")}
    assert set(shown) == keys
    assert shown["workload.rate"] == ("4.0", "command line")
    assert shown["topology.kind"] == ("grid", "topology=grid20, command line")
    assert shown["topology.nodes"] == ("20", "default")
    assert shown["training.ticks"] == ("64", str(own))
    assert shown["agent.algorithm"] == ("ddqn", f"agent=ddqn, {own}")
    preset = fauno("config", "--show", "--conf", "peersimgym")
    assert "workload.rate=1.0" in preset
    assert "# preset peersimgym" in preset
    assert "# physics=peersimgym, preset peersimgym" in preset


def test_list_prints_every_name() -> None:
    printed = fauno("config", "--list")
    for path in conf_dir().iterdir():
        for name in choices(path.name):
            assert f"    {name} " in printed
    for title, known, _ in catalogue():
        assert f"{title}:" in printed
        assert all(name in printed for name in known)


def test_keys_prints_every_key() -> None:
    printed = fauno("config", "--keys")
    for each in settings():
        assert f"{each.key}={each.default}" in printed


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_command_has_help(flag: str) -> None:
    prefix = {app: [], deployments: ["deploy"], topologies: ["topology"], worlds: ["world"]}
    for group, functions in COMMANDS.items():
        for function in functions:
            name = function.__name__.replace("_", "-")
            assert "Usage" in fauno(*prefix[group], name, flag)
    assert "Usage" in fauno(flag)


def test_presets_and_keys_are_completed() -> None:
    assert complete_conf("p") == ["paper", "peersimgym"]
    assert complete_override("topology=ether") == [
        "topology=ether1",
        "topology=ether2",
        "topology=ether2-small-queues",
        "topology=ether3",
        "topology=ether4",
    ]
    assert complete_override("federation.buffer") == ["federation.buffer_size="]

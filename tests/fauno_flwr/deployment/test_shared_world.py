"""Separate SuperNode processes in one shared world; minutes each."""

import json
import os
import signal
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fauno_flwr.cli.deploy import world_arguments
from fauno_flwr.config.loading import load_config
from fauno_flwr.deployment.engine import free_addresses
from fauno_flwr.deployment.local import Deployment
from fauno_flwr.shared_world.client import Access, WorldClient
from fauno_flwr.shared_world.tokens import OPERATOR, token_of
from fauno_flwr.shared_world.wire import STATUS
from tests.fauno_flwr.cli.test_main import FAUNO
from tests.fauno_flwr.deployment.conftest import LITTLE, THREE, Started
from tests.fauno_flwr.deployment.test_engine import alive, run_watched

pytestmark = pytest.mark.slow
NODES = {"rpi_0", "rpi_1", "nuc_0"}


def foreign(table: dict[str, Any]) -> int:
    """Tasks that were served by another node than that of their client."""
    return sum(
        count
        for origin, served in table["exchange"].items()
        for server, count in served.items()
        if server != origin
    )


def test_three_nodes_meet_in_one_world(tmp_path: Path) -> None:
    """Tasks offloaded by one SuperNode's agent are served by another's; the table comes out."""
    out = tmp_path / "run"
    settings = [*LITTLE, "world=shared", "federation.versions=4"]
    command = [FAUNO, "deploy", "local", "--nodes", "3", "--out", str(out), *settings]
    code, said, started = run_watched(command, tmp_path)
    assert code == 0, said
    assert alive(started) == []
    world = json.loads((out / "world.json").read_text())
    assert set(world["nodes"]) == NODES
    for node in world["nodes"].values():
        assert node["deployed"] > 0
        assert node["collected"] > 0
    table = world["table"]
    assert foreign(table) == table["served_for_others"] > 0
    served = {name: sum(row.get(name, 0) for row in table["exchange"].values()) for name in NODES}
    assert served == table["served_by"]
    lost = sum(table["lost"].values())
    assert table["created"] == table["finished"] + lost + table["inside"]
    assert "tasks were served by another node than their own" in said
    summary = json.loads((out / "summary.json").read_text())
    assert summary["versions"] == 4
    assert len(summary["nodes"]) == 3


def test_a_killed_world_is_joined_again_and_its_token_stays_secret(tmp_path: Path) -> None:
    (address,) = free_addresses(1)
    settings = [*THREE, "world=shared", f"world.address={address}", "federation.versions=6"]
    load_config("ether2", settings)
    world = world_arguments("ether2", settings, address, tmp_path / "world.json")
    with Deployment(3, tls=True, world=world) as deployment:
        run = Started(deployment, tmp_path / "run", *settings[len(THREE) :])
        run.wait(lambda: run.events("flush"))
        secret = deployment.world_secret.read_text()
        access = Access.read(address, authority=str(deployment.root_certificate))
        access = replace(access, token=token_of(secret, OPERATOR))
        with WorldClient(access, 60.0) as client:
            first = client.call(STATUS, {})[0]["life"]
            os.kill(deployment.services["world"].process.pid, signal.SIGKILL)
            run.end()
            status = client.call(STATUS, {})[0]
        assert deployment.services["world"].restarts == 1
        assert status["life"] != first
        assert sum(node["joined"] for node in status["nodes"].values()) >= 2
        files = [deployment.world_secret, *map(deployment.world_token, range(3))]
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        written = run.logs() + [path for path in run.out.rglob("*") if path.is_file()]
        for private in (file.read_bytes() for file in files):
            assert not [path for path in written if private in path.read_bytes()]
            for service in deployment.services.values():
                assert private.decode() not in " ".join(service.command)
    assert json.loads((tmp_path / "world.json").read_text())["table"]["created"] > 0

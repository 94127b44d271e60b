"""Twenty minutes of random kills: SuperNodes and their world; alone on a machine if it can be."""

import json
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from fauno_flwr.cli.deploy import world_arguments
from fauno_flwr.deployment import processes
from fauno_flwr.deployment.engine import free_addresses
from fauno_flwr.deployment.local import Deployment
from tests.fauno_flwr.deployment.conftest import THREE, Started
from tests.fauno_flwr.deployment.test_engine import descendants

pytestmark = pytest.mark.slow
SECONDS, PAUSE, SETTLED = 1200.0, (30.0, 60.0), 300.0
VICTIMS = ("supernode-", "world")
MEBIBYTE = 2**20


def lasting(deployment: Deployment) -> dict[str, psutil.Process]:
    """Return the processes that are not killed: SuperLink, SuperExec, ServerApp."""
    found = {
        name: psutil.Process(service.process.pid)
        for name, service in deployment.services.items()
        if not name.startswith(VICTIMS)
    }
    for process in descendants(deployment.services["superexec"].process.pid):
        if any("flwr-serverapp" in word for word in process.cmdline()):
            found["serverapp"] = process
    return found


def sample(deployment: Deployment, names: dict[str, psutil.Process], at: float) -> dict:
    return {
        "seconds": round(at),
        "processes": len(processes.find(deployment.mark, deployment.home)),
        "mebibytes": {n: round(p.memory_info().rss / MEBIBYTE) for n, p in names.items()},
        "files": {name: process.num_fds() for name, process in names.items()},
    }


def test_nothing_leaks_while_nodes_and_their_world_are_killed(tmp_path: Path) -> None:
    rng, kills, samples = random.Random(5), dict[str, int](), []
    (address,) = free_addresses(1)
    shared = ["world=shared", f"world.address={address}"]
    world = world_arguments("ether2", [*THREE, *shared], address, tmp_path / "world.json")
    # As fast as possible, the world would keep one core of two from the nodes.
    with Deployment(3, world=[*world, "--pace", "2000"]) as deployment:
        settings = [
            *shared,
            "federation.versions=100000",
            "federation.buffer_size=2",
            "federation.ttl=90",
            f"federation.timeout={SECONDS}",
            f"federation.checkpoints={tmp_path / 'training'}",
        ]
        run = Started(deployment, tmp_path / "run", *settings)
        run.wait(lambda: run.events("flush"))
        began, names = time.monotonic(), lasting(deployment)
        assert set(names) == {"superlink", "superexec", "serverapp"}
        victims = [name for name in deployment.services if name.startswith(VICTIMS)]
        assert len(victims) == 4
        while (at := time.monotonic() - began) < SECONDS - 90:
            samples.append(sample(deployment, names, at))
            print(json.dumps(samples[-1]), len(run.events("flush")), flush=True)
            time.sleep(rng.uniform(*PAUSE))
            name = rng.choice(victims)
            os.kill(deployment.services[name].process.pid, signal.SIGKILL)
            kills[name] = kills.get(name, 0) + 1
        run.end(SECONDS)
        restarts = {name: service.restarts for name, service in deployment.services.items()}
        mark, home = deployment.mark, deployment.home
    assert processes.find(mark, home) == []
    assert not home.exists()
    print(f"\nkills {kills}, restarts {restarts}, {len(run.events('flush'))} versions")

    for name in names:
        assert restarts.get(name, 0) == 0
    versions = [event["version"] for event in run.events("flush")]
    assert versions == list(range(1, len(versions) + 1))
    assert run.summary()["versions"] == len(versions)
    merged = [(event["message"], event["node"]) for event in run.events("reply")]
    assert len(merged) == len(set(merged)), "a reply was counted twice"
    critic = load_file(run.out / "checkpoints" / "critic.safetensors")
    assert all(np.isfinite(array).all() for array in critic.values())
    late = [each for each in samples if each["seconds"] > SETTLED]
    half = len(late) // 2
    for name in names:
        files = [each["files"][name] for each in late]
        memory = [each["mebibytes"][name] for each in late]
        # The halves of what comes after the start: a leak makes the second one larger.
        assert np.median(files[half:]) <= np.median(files[:half]) + 3, (name, files)
        assert np.median(memory[half:]) <= 1.1 * np.median(memory[:half]), (name, memory)
    busiest = max(each["processes"] for each in late[:half])
    assert max(each["processes"] for each in late[half:]) <= busiest + 3

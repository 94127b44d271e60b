"""The original simulator's physics against its measured results."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fauno_flwr.config.loading import load_config
from sim_env.peersimgym.results import PHYSICS, load, measure
from sim_env.policies.heuristics import POLICIES
from tests.paths import SHARED_DATA

DATA = SHARED_DATA
FILES = {"het2": "network_2_clusters_heterogeneous_type.json", "rand10": "network_random10.json"}
TOLERANCE = {"ratio": 0.015, "response": 0.10}


def test_the_file_in_conf_is_this_physics() -> None:
    assert load_config("ether2", ["physics=peersimgym"]).physics == PHYSICS


def small_files(folder: Path) -> tuple[Path, Path]:
    node = {"coordinates": [0, 0], "capacity": {"cpu_milis": 9600, "memory": 6.4e9}}
    nodes = {
        name: {**node, "id": i, "coordinates": [i * 10, i * 5]}
        for i, name in enumerate(("rpi_0", "rpi_1", "nuc_0"))
    }
    links = {"neighbours": {"2": [0, 1]}}
    topology, jobs = folder / "net.json", folder / "jobs.csv"
    topology.write_text(json.dumps({"nodes": nodes, "links": links}))
    jobs.write_text("instructions,size_mb\n4800000,39\n24000000,20\n")
    return topology, jobs


def test_an_idle_node_answers_within_ticks(tmp_path: Path) -> None:
    """Client to worker and back are a tick each; the job takes half a tick or two and a half."""
    scenario = load(*small_files(tmp_path), arrival_rate=0.05)
    found = measure(scenario, POLICIES["local"], 1, 20_000)
    assert found["finished_ratio"] > 0.99
    assert 2.0 <= found["response_ticks"] <= 6.0
    assert found["total"] == pytest.approx(2 * 0.05 * 2000, rel=0.2)


def test_same_seed_same_numbers(tmp_path: Path) -> None:
    scenario = load(*small_files(tmp_path), arrival_rate=2.0)
    runs = [measure(scenario, POLICIES["lqrand"], seed, 500) for seed in (4, 4, 5)]
    for run in runs:
        run.pop("seconds")
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the reference data are not here")
def test_least_queue_agrees_with_the_original() -> None:
    """The rows of LeastQueue, which the tail of the jobs hardly touches; all rows are in docs/."""
    with (DATA / "peersimgym_reference.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["scale"] == "10"]
    checked = 0
    for row in rows:
        if row["policy"] not in ("lq", "lqrand") or "seed" in row["tag"]:
            continue
        name, _, order = row["tag"].partition("-")
        scenario = load(
            DATA / "topologies" / FILES[name],
            DATA / "alibaba_jobs_x0.1.csv",
            float(row["lam"]),
            physics=replace(
                PHYSICS, quirks=replace(PHYSICS.quirks, queue_order=order.lower() or "lifo")
            ),
        )
        found = [measure(scenario, POLICIES[row["policy"]], seed, 10_000) for seed in range(3)]
        ratio = np.mean([each["finished_ratio"] for each in found])
        response = np.mean([each["response_ticks"] for each in found])
        assert ratio == pytest.approx(float(row["ratio"]), abs=TOLERANCE["ratio"])
        assert response == pytest.approx(float(row["rt_task"]), rel=TOLERANCE["response"])
        checked += 1
    assert checked == 6

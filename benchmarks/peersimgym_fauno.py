"""Evaluate FAuNO in the setting of the original simulator, beside numbers of the original.

``python benchmarks/peersimgym_fauno.py DATA [SEEDS]``, where DATA holds
``peersimgym_reference.csv``, ``alibaba_jobs_x0.1.csv`` and ``topologies/``. Training is in
co-simulation with the preset ``peersimgym``, on the networks and jobs of the original; measurement
is as in the original: 10,000 ticks from an empty network, after which travelling tasks count as
unfinished.
"""

import csv
import logging
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.experiments.cells import train, trained_policies
from fauno_flwr.experiments.design import HELD_OUT_SEED
from fauno_flwr.experiments.methods import METHODS
from fauno_flwr.federation.logs import quiet_flower
from sim_env.peersimgym.results import run_worlds
from sim_env.policies.heuristics import POLICIES, TITLES, Policy

NETWORKS = {"het2": "network_2_clusters_heterogeneous_type", "rand10": "network_random10"}
SETTINGS = (("het2", 1.0), ("het2", 2.0), ("rand10", 0.5))
COMPARED = ("fauno", "scratch", "paper")
HEURISTICS = {"sed": "sed", "thr": "threshold", "lq": "lq", "random": "random", "local": "local"}
TICKS, WORLDS = 10_000, 24
COLUMNS = "policy | finished % | between trainings | response, ticks | between trainings"


def settings(data: Path, network: str, rate: float, overrides: tuple[str, ...]) -> RunConfig:
    """Return the preset ``peersimgym`` with a network and the jobs of the original."""
    return load_config(
        "peersimgym",
        [
            "topology.kind=file",
            f"topology.path={data / 'topologies' / NETWORKS[network]}.json",
            "workload.jobs=file",
            f"workload.path={data / 'alibaba_jobs_x0.1.csv'}",
            f"workload.rate={rate}",
            *overrides,
        ],
    )


def measure(config: RunConfig, policy: Policy) -> tuple[float, float]:
    """Return finished tasks in per cent and response in ticks, means over held-out worlds."""
    seeds = range(HELD_OUT_SEED, HELD_OUT_SEED + WORLDS)
    created, finished, response = run_worlds(config.build_scenario(), policy, seeds, TICKS)
    return float(100 * (finished / created).mean()), float(response.mean())


def row(name: str, runs: list[tuple[float, float]]) -> str:
    """Format a line of the table."""
    finished, response = np.array(runs).T
    spread = [f"{x.min():.2f} to {x.max():.2f}" if len(x) > 1 else "" for x in (finished, response)]
    cells = (name, f"{finished.mean():.2f}", spread[0], f"{response.mean():.1f}", spread[1])
    return f"| {' | '.join(cells)} |"


def main(data: Path, seeds: int) -> None:
    """Print a table for each setting."""
    torch.set_num_threads(1)
    theirs: dict[tuple[str, float, str], list[tuple[float, float]]] = defaultdict(list)
    with (data / "peersimgym_reference.csv").open() as file:
        for line in csv.DictReader(file):
            if line["scale"] == "10" and not line["tag"].endswith("FIFO"):
                key = line["tag"].partition("-")[0], float(line["lam"]), line["policy"]
                theirs[key].append((100 * float(line["ratio"]), float(line["rt_task"])))
    for network, rate in SETTINGS:
        print(f"\n{network}, {rate:g} tasks/s and stream\n\n| {COLUMNS} |\n|---|---|---|---|---|")
        for method in COMPARED:
            ways = defaultdict(list)
            for seed in range(1, seeds + 1):
                overrides = (*METHODS[method].settings, f"seed={seed}")
                config = settings(data, network, rate, overrides)
                with quiet_flower(logging.ERROR):
                    trained = train(config)
                policies = trained_policies(config, trained, config.build_scenario())
                for way, policy in policies.items():
                    ways[way].append(measure(config, policy))
            for way, runs in ways.items():
                print(row(f"{METHODS[method].title}, {way}", runs), flush=True)
        config = settings(data, network, rate, ())
        for short, name in HEURISTICS.items():
            print(row(TITLES[name], [measure(config, POLICIES[name])]), flush=True)
            if original := theirs[network, rate, short]:
                print(row(f"{TITLES[name]}, the original", original), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3)

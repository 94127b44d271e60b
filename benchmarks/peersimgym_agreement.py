"""Print a table of the agreement with the original simulator.

``python benchmarks/peersimgym_agreement.py DATA [SEEDS]``, where DATA holds
``peersimgym_reference.csv``, ``alibaba_jobs_x0.1.csv`` and ``topologies/``.
"""

import csv
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from sim_env.peersimgym.results import PHYSICS, load, run_worlds
from sim_env.policies.heuristics import POLICIES

FILES = {"het2": "network_2_clusters_heterogeneous_type.json", "rand10": "network_random10.json"}
NAMES = {"thr": "threshold"}
COLUMNS = (
    "setting | rate | policy | finished %, ours | sd of a run | original | difference | p | "
    "response, ours | sd of a run | original | ratio | p"
)
POINTS, SHARE = 1.5, 0.10


@cache
def ours(
    data: Path, network: str, order: str, rate: float, policy: str, seeds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the finished tasks in per cent and the response in ticks of each run."""
    scenario = load(
        data / "topologies" / FILES[network],
        data / "alibaba_jobs_x0.1.csv",
        rate,
        physics=replace(PHYSICS, quirks=replace(PHYSICS.quirks, queue_order=order)),
    )
    created, finished, response = run_worlds(scenario, POLICIES[policy], range(seeds), 10_000)
    return 100 * finished / created, response


def rank(value: float, runs: np.ndarray) -> float:
    """Compute the two-sided p of a run of the original by its rank among ours."""
    beyond = min(np.sum(runs <= value), np.sum(runs >= value))
    return float(min(1.0, 2 * (1 + beyond) / (1 + len(runs))))


def main(data: Path, seeds: int) -> None:
    """Print one row per row of the reference whose scale is 10, and a count."""
    print(f"| {COLUMNS} |\n" + "|---" * (1 + COLUMNS.count("|")) + "|")
    with (data / "peersimgym_reference.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["scale"] == "10"]
    close, chances = 0, []
    for row in rows:
        name, _, variant = row["tag"].partition("-")
        order = "fifo" if variant == "FIFO" else "lifo"
        policy = NAMES.get(row["policy"], row["policy"])
        cells = [f"{row['tag']} {row['extra']}".strip(), row["lam"], row["policy"]]
        runs = ours(data, name, order, float(row["lam"]), policy, seeds)
        theirs = 100 * float(row["ratio"]), float(row["rt_task"])
        away = theirs[0] - runs[0].mean(), runs[1].mean() / theirs[1]
        close += abs(away[0]) <= POINTS and abs(away[1] - 1) <= SHARE
        for value, each, how in zip(
            theirs, runs, (f"{away[0]:+.2f}", f"{away[1]:.2f}"), strict=True
        ):
            chances.append(rank(value, each))
            cells += [f"{each.mean():.2f}", f"{each.std(ddof=1):.2f}", f"{value:.2f}", how]
            cells.append(f"{chances[-1]:.2f}")
        print("| " + " | ".join(cells) + " |", flush=True)
    low = sum(p < 0.1 for p in chances)
    print(f"\nOur mean is within {POINTS} points and {SHARE:.0%} of {close} of {len(rows)} runs; ")
    print(f"{low} of {len(chances)} numbers have p < 0.1.")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 24)

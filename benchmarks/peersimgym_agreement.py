"""Table of the agreement with the original simulator.

``python benchmarks/peersimgym_agreement.py DATA [SEEDS]``, where DATA holds
``peersimgym_reference.csv``, ``alibaba_jobs_x0.1.csv`` and ``topologies/``.
"""

import csv
import sys
from dataclasses import replace
from pathlib import Path

from sim_env.peersimgym import PHYSICS, load, run_worlds
from sim_env.policies import POLICIES

FILES = {"het2": "network_2_clusters_heterogeneous_type.json", "rand10": "network_random10.json"}
NAMES = {"thr": "threshold"}


def main(data: Path, seeds: int) -> None:
    """Print one row per row of the reference whose scale is 10, seeds of one setting apart."""
    print(
        f"| setting | rate | policy | finished %, ours ({seeds} seeds) | sd of a seed | original |",
        end="",
    )
    print(" difference in sd | response, ours | original | ratio |\n" + "|---" * 10 + "|")
    with (data / "peersimgym_reference.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["scale"] == "10"]
    for row in rows:
        name, _, order = row["tag"].partition("-")
        if order == "seed":
            continue
        scenario = load(
            data / "topologies" / FILES[name],
            data / "alibaba_jobs_x0.1.csv",
            float(row["lam"]),
            physics=replace(PHYSICS, queue_order=order.lower() or "lifo"),
        )
        policy = POLICIES[NAMES.get(row["policy"], row["policy"])]
        created, finished, response = run_worlds(scenario, policy, range(seeds), 10_000)
        ratio, spread = finished / created, (finished / created).std(ddof=1)
        theirs, slow = float(row["ratio"]), float(row["rt_task"])
        print(
            f"| {row['tag']} | {row['lam']} | {row['policy']} | {100 * ratio.mean():.2f} | "
            f"{100 * spread:.2f} | {100 * theirs:.2f} | {(theirs - ratio.mean()) / spread:+.1f} | "
            f"{response.mean():.1f} | {slow:.1f} | {response.mean() / slow:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 12)

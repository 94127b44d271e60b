"""Compare FedAvg and BufferedAsync on the apps of this folder, in virtual time and in one process.

``python examples/compare.py`` trains each app on ten nodes, whose trainings take 0.5 to 1.5 s, on
one node ten times as long. It prints the tables of README.md: accuracies after as many trainings,
in three draws of these times, and after as much virtual time; then other strategies on equal nodes
and with large steps, where versions swing.
"""

import json
import logging
import sys
import tempfile
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from flwr.app import Context, RecordDict
from flwr.common.logger import FLOWER_LOGGER

from strategies import SGD, BufferedAsync, FedBuff, InMemoryGrid

APPS = ("quickstart", "logistic", "logged", "private", "personal", "boosted")
NODES, DRAWS = 10, 3
ROUNDS = 20  # of FedAvg; a version of BufferedAsync is made by half of the nodes
LARGE = {"learning-rate": 0.1}  # of the quickstart app
HERE = Path(__file__).parent


def training_times(draw: int, slow: bool = True) -> Callable[[int, int], float]:
    """Return a function that draws the seconds of the k-th training of a node."""

    def seconds(partition: int, k: int) -> float:
        factor = 10 if slow and partition == 0 else 1
        return factor * np.random.default_rng([draw, partition, k]).uniform(0.5, 1.5)

    return seconds


def train(
    name: str, strategy: str, rounds: int, seconds: Callable[[int, int], float], **settings: Any
) -> list[dict[str, float]]:
    """Run an app; return version, virtual seconds and accuracy of each version."""
    folder = HERE / name
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    client, server = (import_module(f"{name}.{end}_app") for end in ("client", "server"))
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    with tempfile.NamedTemporaryFile("r", suffix=".json") as out:
        config = {
            **project["tool"]["flwr"]["app"]["config"],
            **settings,
            "strategy": strategy,
            "num-rounds": rounds,
            "out": out.name,
        }
        grid = InMemoryGrid(client.app, NODES, duration=seconds, run_config=config)
        server.main(grid, Context(1, 1, {}, RecordDict(), config))
        return json.loads(Path(out.name).read_text())


def last_quarter(history: list[dict[str, float]], key: str, end: float) -> float:
    """Return the mean accuracy over the last quarter before a version or a time."""
    chosen = [each["accuracy"] for each in history if 0.75 * end < each[key] <= end]
    return sum(chosen) / len(chosen)


def compare_apps() -> None:
    """Print the accuracy of each app with FedAvg and with BufferedAsync."""
    print("| app | FedAvg | as many trainings | as much time | s, FedAvg | s, BufferedAsync |")
    print("|---|---|---|---|---|---|")
    times = [training_times(draw) for draw in range(DRAWS)]
    for name in APPS:
        synchronous = train(name, "fedavg", ROUNDS, times[0])
        end = synchronous[-1]["t"]
        # Twice as many versions are as many trainings; nearly twenty times as many, as much time.
        short = [train(name, "async", 2 * ROUNDS, each) for each in times]
        long = train(name, "async", 20 * ROUNDS, times[0])
        same = np.mean([last_quarter(each, "version", 2 * ROUNDS) for each in short])
        cells = [last_quarter(synchronous, "t", end), same, last_quarter(long, "t", end)]
        row = " | ".join(f"{100 * each:.1f}" for each in cells)
        print(f"| {name} | {row} | {end:.0f} | {short[0][-1]['t']:.0f} |", flush=True)


def compare_strategies() -> None:
    """Print the accuracy with large steps and equal nodes, after as many trainings."""
    print("\n| strategy | mean | least |\n|---|---|---|")
    times = [training_times(draw, slow=False) for draw in range(DRAWS)]
    kinds: dict[str, tuple[Callable[..., Any], int]] = {
        "`BufferedAsync()`": (BufferedAsync, 2 * ROUNDS),
        "`BufferedAsync(server_optimizer=SGD(0.5))`": (
            lambda **more: BufferedAsync(server_optimizer=SGD(0.5), **more),
            2 * ROUNDS,
        ),
        "`FedBuff(5)`": (lambda **more: FedBuff(5, **more), 2 * ROUNDS),
        "`BufferedAsync(0.8)`": (lambda **more: BufferedAsync(0.8, **more), ROUNDS * 5 // 4),
    }
    histories = {"`FedAvg()`": [train("quickstart", "fedavg", ROUNDS, times[0], **LARGE)]}
    for kind, (strategy, versions) in kinds.items():
        with patch("strategies.BufferedAsync", strategy):  # which the app imports
            histories[kind] = [
                train("quickstart", "async", versions, each, **LARGE) for each in times
            ]
    for kind, runs in histories.items():
        quarters = [[each["accuracy"] for each in run[-(len(run) // 4) :]] for run in runs]
        print(f"| {kind} | {100 * np.mean(quarters):.1f} | {100 * np.min(quarters):.1f} |")


if __name__ == "__main__":
    FLOWER_LOGGER.setLevel(logging.ERROR)
    torch.set_num_threads(1)
    compare_apps()
    compare_strategies()

"""Compare FedAvg and BufferedAsync on the apps of this folder, in virtual time and in one process.

``python examples/compare.py`` trains each app on ten nodes, of which one is ten times slower than
the others, and prints a table: accuracies after as many trainings, and after as much virtual time.
"""

import json
import logging
import sys
import tempfile
import tomllib
from importlib import import_module
from pathlib import Path

import torch
from flwr.app import Context, RecordDict
from flwr.common.logger import FLOWER_LOGGER

from strategies import InMemoryGrid

APPS = ("quickstart", "logistic", "logged", "private", "personal", "boosted")
NODES, ROUNDS = 10, 20  # of FedAvg; a version of BufferedAsync is made by half of the nodes
HERE = Path(__file__).parent


def train(name: str, strategy: str, rounds: int) -> list[dict[str, float]]:
    """Run an app; return version, virtual seconds and accuracy of each version."""
    folder = HERE / name
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    client, server = (import_module(f"{name}.{end}_app") for end in ("client", "server"))
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    with tempfile.NamedTemporaryFile("r", suffix=".json") as out:
        config = {
            **project["tool"]["flwr"]["app"]["config"],
            "strategy": strategy,
            "num-rounds": rounds,
            "out": out.name,
        }
        grid = InMemoryGrid(
            client.app,
            NODES,
            duration=lambda partition, k: 10.0 if partition == 0 else 1.0,
            run_config=config,
        )
        server.main(grid, Context(1, 1, {}, RecordDict(), config))
        return json.loads(Path(out.name).read_text())


def last_quarter(history: list[dict[str, float]], key: str, end: float) -> float:
    """Return the mean accuracy over the last quarter before a version or a time."""
    chosen = [each["accuracy"] for each in history if 0.75 * end < each[key] <= end]
    return sum(chosen) / len(chosen)


def main() -> None:
    """Print the table."""
    FLOWER_LOGGER.setLevel(logging.ERROR)
    torch.set_num_threads(1)
    print("| app | FedAvg | as many trainings | as much time | s, FedAvg | s, BufferedAsync |")
    print("|---|---|---|---|---|---|")
    for name in APPS:
        synchronous = train(name, "fedavg", ROUNDS)
        seconds = synchronous[-1]["t"]
        # Twice as many versions are as many trainings; nearly twenty times as many, as much time.
        asynchronous = train(name, "async", 20 * ROUNDS)
        (same,) = (each["t"] for each in asynchronous if each["version"] == 2 * ROUNDS)
        cells = [
            last_quarter(synchronous, "version", ROUNDS),
            last_quarter(asynchronous, "version", 2 * ROUNDS),
            last_quarter(asynchronous, "t", seconds),
        ]
        row = " | ".join(f"{100 * each:.1f}" for each in cells)
        print(f"| {name} | {row} | {seconds:.0f} | {same:.0f} |", flush=True)


if __name__ == "__main__":
    main()

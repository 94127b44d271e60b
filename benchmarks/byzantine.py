"""Hostile nodes against merge rules: what a training loses to them.

``python benchmarks/byzantine.py --out DIR`` trains in co-simulation from scratch, with little data,
so that a critic matters: every attack by 1 and 2 of 10 and of 19 nodes, with K = 2, 5 and all, and
every rule. A cell is one training with its evaluation, kept in DIR/cells; the same command goes on
where it was stopped, ``--most 3`` computes so many cells, ``--attacks``, ``--rules``, ``--sizes``
and the like choose. It prints the table of what is there, which ``--table`` does alone.
"""

import argparse
import itertools
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Message
from safetensors.numpy import load_file

from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import RunConfig, TrainingConfig
from fauno_flwr.cosim.agents import RoundTrip
from fauno_flwr.cosim.grid import CosimGrid
from fauno_flwr.experiments.design import HELD_OUT_SEED
from fauno_flwr.federation.logs import quiet_flower
from fauno_flwr.federation.protocol import ARRAYS, METRICS
from fauno_flwr.federation.run import Run
from fauno_flwr.learning.metrics import STEPS
from fauno_flwr.results.directory import RunDirectory, read_lines, write_atomically
from fauno_flwr.results.statistics import crossed
from fauno_flwr.tasks.edge import EdgeTask
from sim_env.evaluation import run_policy
from strategies.arrays import Layout, to_arrays, to_record
from strategies.grids import FIRST_NODE_ID

ALL = "all"
SIZES = {10: ("topology=random10",), 19: ()}
BUFFERS = ("2", "5", ALL)
OPEN = ("federation.norm_factor=1e9", "federation.weight_factor=1e9")  # no learned bounds
RULES = {
    "mean": ("federation.merge=mean", *OPEN),
    "trimmed": ("federation.merge=trimmed-mean", *OPEN),
    "median": ("federation.merge=median", *OPEN),
    "norm-filtered": ("federation.merge=norm-filtered", *OPEN),
    "default": (),
}
LITTLE = ("workload.rate=2", "agent.prior=0", "training.worlds=4", "training.ticks=128")
EVALUATION = ("evaluation.policies=[]", "evaluation.worlds=8", "evaluation.window=1000")
MEASURED = TrainingConfig(worlds=4, ticks=600)  # for the error of the critic
MESSAGES = 8  # to a node, on average
NONE = "none"
LARGE = 9.9e5  # norm, just below federation.max_norm
ALLOWED = -0.005  # difference of the finished ratio to no attack that counts as none

Attack = Callable[[np.ndarray, np.ndarray], np.ndarray]


def slow_poison(delta: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return an update of the norm of the honest one, always in the same direction."""
    return np.linalg.norm(delta) * direction


# From the honest update and a fixed random direction to the one that is sent.
ATTACKS: dict[str, Attack] = {
    NONE: lambda delta, _: delta,
    "scale": lambda delta, _: -delta * (LARGE / max(np.linalg.norm(delta), 1e-9)),
    "sign-flip": lambda delta, _: -delta,
    "weight": lambda delta, _: -delta,  # with all the steps that were requested
    "slow-poison": slow_poison,
    "nan": lambda delta, _: np.full_like(delta, np.nan),
}


@dataclass(frozen=True)
class Cell:
    """One training."""

    nodes: int
    buffer: str
    rule: str
    attack: str
    hostile: int
    seed: int

    @property
    def key(self) -> str:
        """Name of its file."""
        return "-".join(map(str, asdict(self).values()))

    def config(self) -> RunConfig:
        """Return its settings, with as much data for every K."""
        k = self.nodes if self.buffer == ALL else int(self.buffer)
        versions = max(1, round(MESSAGES * self.nodes / k))
        overrides = [*SIZES[self.nodes], *LITTLE, *EVALUATION, *RULES[self.rule]]
        overrides += [f"seed={self.seed}", f"evaluation.seed={HELD_OUT_SEED}"]
        overrides += [f"federation.buffer_size={k}", f"federation.versions={versions}"]
        return load_config("ether2", overrides)


class HostileGrid(CosimGrid):
    """A co-simulation in which the first agents send other updates than they have learned.

    They act and learn as the others do: what differs between two attacks is the shared critic.

    Parameters
    ----------
    config : RunConfig
    cell : Cell
    """

    def __init__(self, config: RunConfig, cell: Cell) -> None:
        scenario = config.build_scenario()
        super().__init__(config, scenario)
        self.attack, self.cell = ATTACKS[cell.attack], cell
        # Spread over the network: sources and servers alike.
        drawn = np.random.default_rng([cell.seed, 7]).permutation(len(scenario.agents))
        self.hostile = set(drawn[: cell.hostile].tolist())

    def _reply(self, trip: RoundTrip) -> Message:
        reply = super()._reply(trip)
        agent = trip.message.metadata.dst_node_id - FIRST_NODE_ID
        if agent in self.hostile and self.cell.attack != NONE:
            self.corrupt(trip, reply)
        return reply

    def corrupt(self, trip: RoundTrip, reply: Message) -> None:
        """Replace the update in a reply, and its steps if the attack is by weight."""
        base, sent = (to_arrays(each.content[ARRAYS]) for each in (trip.message, reply))
        layout = Layout(base)
        theta = layout.flatten(base).astype(np.float64)
        direction = np.random.default_rng([self.cell.seed, 8]).normal(size=layout.size)
        delta = layout.flatten(sent) - theta
        changed = theta + self.attack(delta, direction / np.linalg.norm(direction))
        reply.content[ARRAYS] = to_record(layout.unflatten(changed))
        if self.cell.attack == "weight":
            training = self.config.training
            reply.content[METRICS][STEPS] = training.worlds * training.ticks * training.rollouts


def critic_error(config: RunConfig, grid: HostileGrid, critic: dict[str, np.ndarray]) -> float:
    """Return the share of the variance of returns that a critic does not explain.

    Of the honest nodes, while all act as they have learned, in a world of its own; the median over
    nodes. 1 is no better than a constant; returns are those observed (lambda = 1).
    """
    agent = replace(config.agent, gae_lambda=1.0)
    other = replace(config, agent=agent, seed=config.seed + 1000, training=MEASURED)
    measured = CosimGrid(other, other.build_scenario())
    population = measured.population
    for each in range(population.agents):
        population.set_actor(grid.population.get_actor(each), each)
        population.set_shared(critic, each)
    weights = population.weights(measured.scenario.agent_of_node, greedy=False)
    for each in range(population.agents):
        measured._recorder.drop(each)
    measured._recorder.roll(weights, MEASURED.ticks)
    batches = [measured._recorder.take(each) for each in range(population.agents)]
    rngs = [np.random.default_rng(each) for each in range(population.agents)]
    found = population.update(batches, 0.0, rngs)
    honest = [each for each in range(population.agents) if each not in grid.hostile]
    return float(np.median([1.0 - found[each]["explained_variance"] for each in honest]))


def run_cell(cell: Cell) -> dict[str, Any]:
    """Train and evaluate."""
    torch.set_num_threads(1)
    begin, config = time.process_time(), cell.config()
    grid = HostileGrid(config, cell)
    with tempfile.TemporaryDirectory() as folder, quiet_flower(logging.CRITICAL):
        out = RunDirectory(folder)
        Run(grid, config, EdgeTask(config, grid.scenario), out).execute()
        events = read_lines(out.path / "events.jsonl")
        critic = load_file(out.path / "checkpoints" / "critic.safetensors")
    policy = grid.population.policy(grid.scenario.agent_of_node, greedy=True)
    evaluation = config.evaluation
    metrics = run_policy(
        grid.scenario,
        policy,
        evaluation.seeds,
        warmup=evaluation.warmup,
        window=evaluation.window,
    )
    kinds = [event["event"] for event in events]
    return {
        **asdict(cell),
        "finished_ratio": metrics.finished_ratio.tolist(),
        "critic_error": critic_error(config, grid, critic),
        "versions": kinds.count("flush"),
        "rejected": kinds.count("reject"),
        "banned": kinds.count("ban"),
        "scaled_down": sum(event.get("scaled_down", 0) for event in events),
        "cpu": time.process_time() - begin,
    }


def cells(given: argparse.Namespace) -> Iterator[Cell]:
    """Yield the cells that are chosen; without an attack there is one number of hostile nodes."""
    for seed, nodes, buffer, rule, attack, hostile in itertools.product(
        range(1, given.seeds + 1),
        given.sizes,
        given.buffers,
        given.rules,
        given.attacks,
        given.hostile,
    ):
        if attack != NONE:
            yield Cell(nodes, buffer, rule, attack, hostile, seed)
        elif hostile == given.hostile[0]:
            yield Cell(nodes, buffer, rule, attack, 0, seed)


def compute(wanted: Sequence[Cell], folder: Path, most: int) -> list[dict[str, Any]]:
    """Return the results of all cells that there are, after at most so many new ones."""
    folder.mkdir(parents=True, exist_ok=True)
    found, made = [], 0
    for number, cell in enumerate(wanted, 1):
        path = folder / f"{cell.key}.json"
        if not path.exists():
            if made == most:
                continue
            result = run_cell(cell)
            write_atomically(path, json.dumps(result) + "\n")
            made += 1
            print(f"{number}/{len(wanted)} {cell.key}: {result['cpu']:.0f} s", file=sys.stderr)
        found.append(json.loads(path.read_text()))
    return found


def table(found: Sequence[dict[str, Any]]) -> str:
    """Return the results as Markdown: means over seeds, and differences to no attack."""
    groups: dict[tuple, dict[int, dict[str, Any]]] = {}
    for each in found:
        key = tuple(each[name] for name in ("nodes", "buffer", "rule", "attack", "hostile"))
        groups.setdefault(key, {})[each["seed"]] = each
    lines = [
        "| nodes | K | rule | attack | hostile | finished % | minus no attack, points | "
        "critic error | rejected | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for key, runs in groups.items():
        nodes, buffer, rule, attack, hostile = key
        ratios = np.array([run["finished_ratio"] for run in runs.values()])
        mine = crossed(ratios)
        text = "-"
        plain = groups.get((nodes, buffer, rule, NONE, 0), {})
        seeds = [seed for seed in runs if seed in plain]
        if attack != NONE and seeds:
            minus = crossed(
                np.array(
                    [
                        np.subtract(runs[s]["finished_ratio"], plain[s]["finished_ratio"])
                        for s in seeds
                    ]
                )
            )
            value, low, high = (100 * x for x in (minus.value, minus.low, minus.high))
            flag = " **beyond 0.5**" if minus.value < ALLOWED else ""
            text = f"{value:+.2f} [{low:+.2f}, {high:+.2f}]{flag}"
        errors = [run["critic_error"] for run in runs.values()]
        rejected = np.mean([run["rejected"] for run in runs.values()])
        lines.append(
            f"| {nodes} | {buffer} | {rule} | {attack} | {hostile} | {100 * mine.value:.2f} "
            f"[{100 * mine.low:.2f}, {100 * mine.high:.2f}] | {text} | {np.median(errors):.3g} "
            f"[{min(errors):.3g}, {max(errors):.3g}] | {rejected:.0f} | {len(runs)} |"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Compute the cells that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--most", type=int, default=-1, help="new cells to compute")
    parser.add_argument("--sizes", type=int, nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--buffers", nargs="+", choices=BUFFERS, default=list(BUFFERS))
    parser.add_argument("--rules", nargs="+", choices=list(RULES), default=list(RULES))
    parser.add_argument("--attacks", nargs="+", choices=list(ATTACKS), default=list(ATTACKS))
    parser.add_argument("--hostile", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--table", action="store_true", help="compute nothing")
    given = parser.parse_args(arguments)
    most = 0 if given.table else given.most
    print(table(compute(list(cells(given)), given.out / "cells", most)))


if __name__ == "__main__":
    main(sys.argv[1:])

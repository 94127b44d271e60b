"""What a node's critic tells the server: its load, its place in the network, its policy.

``python benchmarks/critic_leaks.py --out DIR`` trains in co-simulation without privacy and with
local privacy at each epsilon of ``fauno experiment privacy``; a random half of the Raspberry Pis
has three times the load of the others. The server keeps what a node sends: 8 critics, and the
versions they were trained from. It has trained on the same network itself, with other seeds, so it
knows what the nodes there would send. From the values of the critics for observations of its own
it guesses, by linear discriminant analysis, for a node of a run that it has not seen,

* the load: heavy or light (Raspberry Pis only, which are 8 and 8);
* the kind of device: Raspberry Pi or not (balanced accuracy);
* the cluster: one of two (Raspberry Pis only);
* the node: one of 19;

and, without any guess, its policy: how often the best action of the last critic that a node has
sent is the most probable one of the node, on observations of the node. Beside it the same for the
version that the node trained from, which the server has anyway, and for a random legal action.

A cell is one training, kept in DIR/cells; the same command goes on where it was stopped, and
``--part 0 4`` computes every fourth cell from the first on. It prints the
table of what is there, which ``--table`` does alone.
"""

import argparse
import logging
import tempfile
from pathlib import Path

import numpy as np
import torch
from flwr.app import Message
from scipy import stats

from fauno_flwr.config.loading import load_config
from fauno_flwr.config.privacy import LOCAL
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.cosim.agents import Agent, RoundTrip
from fauno_flwr.cosim.grid import CosimGrid
from fauno_flwr.experiments.methods import FROM_SCRATCH
from fauno_flwr.experiments.privacy import ACTION, CLIPS, MESSAGES, NOISE, SCARCE, TUNED_AT, private
from fauno_flwr.federation.logs import quiet_flower
from fauno_flwr.federation.protocol import ARRAYS
from fauno_flwr.federation.run import Run
from fauno_flwr.learning.ppo import Population
from fauno_flwr.learning.transitions import Decisions, join, stack
from fauno_flwr.results.directory import RunDirectory
from fauno_flwr.tasks.edge import EdgeTask
from sim_env.scenario import Scenario
from strategies.arrays import Arrays, to_arrays
from strategies.grids import FIRST_NODE_ID

NONE = "none"
BUDGETS = (NONE, *map(str, NOISE))
SEEDS, FIRST_SEED = 8, 6_101  # runs of the attacker, and as many of the attacked after them
PIS, HEAVY, LIGHT = 16, 3.0, 1.0  # tasks per second
PROBES, PROBE_SEED, PROBE_TICKS = 400, 6_100, 500
SHRINKAGE = 0.3  # of the covariance, towards a multiple of the identity


class Tapped(CosimGrid):
    """A co-simulation that keeps what the server gets, and what the nodes then saw and would do.

    Attributes
    ----------
    sent : dict of int to list
        By agent: the critic of each message, and the one of its reply.
    own : dict of int to (Decisions, array of int)
        The decisions of the last update that the server has, and the most probable actions.
    """

    def __init__(self, config: RunConfig, scenario: Scenario) -> None:
        super().__init__(config, scenario)
        self.sent: dict[int, list[tuple[Arrays, Arrays]]] = {}
        self.own: dict[int, tuple[Decisions, np.ndarray]] = {}
        self._own: dict[int, tuple[Decisions, np.ndarray]] = {}

    def _finish_update(self, agent: Agent, trip: RoundTrip) -> None:
        rollout = trip.rollout
        super()._finish_update(agent, trip)
        if rollout is not None and len(rollout):
            acting = scores(self.population.select([agent.index]), rollout, with_actor=True)
            self._own[agent.index] = rollout, acting.argmax(axis=1)

    def _reply(self, trip: RoundTrip) -> Message:
        reply = super()._reply(trip)
        agent = trip.message.metadata.dst_node_id - FIRST_NODE_ID
        pair = to_arrays(trip.message.content[ARRAYS]), to_arrays(reply.content[ARRAYS])
        self.sent.setdefault(agent, []).append(pair)
        if agent in self._own:
            self.own[agent] = self._own[agent]
        return reply


@torch.no_grad()
def scores(one: Population, decisions: Decisions, with_actor: bool = False) -> np.ndarray:
    """Return the values of the critic of a stack of one agent, or what it acts by; (R, K)."""
    local, destination, mask, _ = stack([decisions])
    found = one.critic.scores(*one.critic.features(local, destination, mask))
    if with_actor:
        actor = one.actor.scores(*one.actor.features(local, destination, mask))
        found = actor + found / one.config.temperature
    return np.asarray(found[0].numpy())


def settings(budget: str, seed: int) -> tuple[RunConfig, np.ndarray]:
    """Return the settings of a training, and which Raspberry Pis have a heavy load."""
    heavy = np.random.default_rng(seed).permutation(np.arange(PIS) < PIS // 2)
    rates = ", ".join(f"rpi_{i}: {HEAVY if high else LIGHT}" for i, high in enumerate(heavy))
    overrides = [f"workload.source_rates={{{rates}}}", FROM_SCRATCH, *SCARCE, f"seed={seed}"]
    overrides += ["evaluation.policies=[]", f"federation.versions={2 * MESSAGES}"]
    if budget != NONE:
        clip = CLIPS[ACTION, LOCAL][int(budget) < TUNED_AT[0]]
        overrides += private(ACTION, LOCAL, int(budget), clip)
    return load_config("ether2", overrides), heavy


def probes() -> tuple[Decisions, np.ndarray]:
    """Return observations in a run of the server, with equal loads, and a legal slot of each."""
    config = load_config("ether2", ["workload.rate=2", *SCARCE, f"seed={PROBE_SEED}"])
    scenario = config.build_scenario()
    grid = CosimGrid(config, scenario)
    grid.run_until(PROBE_TICKS)
    agents = range(len(scenario.agents))
    found = join([grid._recorder.take(i, PROBE_TICKS - config.training.ticks) for i in agents])
    rng = np.random.default_rng(PROBE_SEED)
    found = found[rng.choice(len(found), min(PROBES, len(found)), replace=False)]
    slots = [int(rng.choice(np.flatnonzero(legal))) for legal in found.mask]
    return found, np.array(slots)


def compute(budget: str, seed: int) -> dict[str, np.ndarray]:
    """Train, and return what the server learns from each node, with the truth."""
    config, heavy = settings(budget, seed)
    scenario = config.build_scenario()
    grid = Tapped(config, scenario)
    with tempfile.TemporaryDirectory() as folder, quiet_flower(logging.ERROR):
        out = RunDirectory(Path(folder) / "run")
        Run(grid, config, EdgeTask(config, scenario), out).execute()
    one = grid.population.select([0])
    assert isinstance(one, Population)
    asked, slots = probes()
    rows = np.arange(len(slots))

    def values(critic: Arrays, decisions: Decisions) -> np.ndarray:
        one.set_critic(critic)
        return scores(one, decisions)

    features, agreement = [], []
    for agent in range(len(scenario.agents)):
        pairs = [[values(c, asked)[rows, slots] for c in pair] for pair in grid.sent[agent]]
        features.append(np.mean([sent - base for base, sent in pairs], axis=0))
        decisions, acted = grid.own[agent]
        base, sent = grid.sent[agent][-1]
        agreement.append(
            [
                *(
                    (values(critic, decisions).argmax(axis=1) == acted).mean()
                    for critic in (sent, base)
                ),
                (1 / decisions.mask.sum(axis=1)).mean(),
            ]
        )
    topology = scenario.topology
    names = [topology.names[node] for node in scenario.agents]
    pis = np.array([name.startswith("rpi_") for name in names])
    hub = topology.neighbours[topology.names.index("nuc_0")]
    heavy_of = {f"rpi_{i}": bool(high) for i, high in enumerate(heavy)}
    return {
        "features": np.array(features, np.float32),
        "agreement": np.array(agreement),
        "pi": pis,
        "cluster": np.isin(scenario.agents, hub),
        "heavy": np.array([heavy_of.get(name, False) for name in names]),
    }


def guess(known: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Guess labels by linear discriminant analysis with equal priors and a shrunk covariance."""
    classes = np.unique(labels)
    means = np.array([known[labels == c].mean(axis=0) for c in classes])
    rest = known - means[np.searchsorted(classes, labels)]
    covariance = rest.T @ rest / len(rest)
    covariance *= 1 - SHRINKAGE
    covariance[np.diag_indices_from(covariance)] += SHRINKAGE * np.mean(rest**2) + 1e-12
    directions = np.linalg.solve(covariance, means.T)
    found = asked @ directions - 0.5 * np.einsum("cf,fc->c", means, directions)
    return np.asarray(classes[found.argmax(axis=1)])


def accuracies(runs: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return accuracies in each of the attacked runs, by what is guessed."""
    # Relative to the other nodes of the run: what all of them learn tells nothing of one.
    features = [run["features"] - run["features"].mean(axis=0) for run in runs]
    scale = np.concatenate(features[:SEEDS]).std() or 1.0
    features = [each / scale for each in features]
    found = {}
    for what, labels, among in (
        ("load", [run["heavy"] for run in runs], [run["pi"] for run in runs]),
        ("device", [run["pi"] for run in runs], [np.ones(len(run["pi"]), bool) for run in runs]),
        ("cluster", [run["cluster"] for run in runs], [run["pi"] for run in runs]),
        (
            "node",
            [np.arange(len(run["pi"])) for run in runs],
            [np.ones(len(run["pi"]), bool) for run in runs],
        ),
    ):
        known = np.concatenate([f[rows] for f, rows in zip(features, among, strict=True)][:SEEDS])
        truth = np.concatenate(
            [each[rows] for each, rows in zip(labels, among, strict=True)][:SEEDS]
        )
        found[what] = np.array(
            [
                balanced(guess(known, truth, f[rows]), each[rows])
                for f, each, rows in list(zip(features, labels, among, strict=True))[SEEDS:]
            ]
        )
    return found


def balanced(guessed: np.ndarray, truth: np.ndarray) -> float:
    """Return the accuracy, averaged over the classes."""
    return float(np.mean([(guessed[truth == c] == c).mean() for c in np.unique(truth)]))


def percent(values: np.ndarray) -> str:
    """Format a mean over runs with its 95 % interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{100 * values.mean():.0f} ± {100 * half:.0f}"


def table(folder: Path) -> str:
    """Format the table of the budgets that are complete."""
    lines = [
        "| epsilon | load | device | cluster | node | policy | the version's policy | random |",
        "|---|---|---|---|---|---|---|---|",
        "| chance | 50 | 50 | 50 | 5.3 | - | - | - |",
    ]
    for budget in BUDGETS:
        files = [folder / f"{budget}-{FIRST_SEED + i}.npz" for i in range(2 * SEEDS)]
        if not all(file.is_file() for file in files):
            continue
        runs = [dict(np.load(file)) for file in files]
        found = [percent(each) for each in accuracies(runs).values()]
        agreement = np.array([run["agreement"].mean(axis=0) for run in runs])
        found += [percent(column) for column in agreement.T]
        lines.append(f"| {budget} | {' | '.join(found)} |")
    return "\n".join(lines)


def main() -> None:
    """Compute the cells that are missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("I", "N"))
    parser.add_argument("--table", action="store_true", help="compute nothing")
    given = parser.parse_args()
    folder = given.out / "cells"
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    keys = [(budget, FIRST_SEED + i) for i in range(2 * SEEDS) for budget in BUDGETS]
    first, step = given.part
    for budget, seed in [] if given.table else keys[first::step]:
        path = folder / f"{budget}-{seed}.npz"
        if not path.exists():
            found = compute(budget, seed)
            unfinished = path.with_suffix(".part.npz")
            np.savez_compressed(unfinished, **found)
            unfinished.replace(path)
            print(f"done: {path.stem}", flush=True)
    print(table(folder))


if __name__ == "__main__":
    main()

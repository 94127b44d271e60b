"""What a user would pick instead: other trainers and ours, on the same environment.

``python benchmarks/other_trainers.py --out DIR`` trains rpi_0 of ether2 at 4 tasks/s and source,
beside nodes that follow LeastQueue, by

* the PPO of this package, with and without prior;
* PPO of Stable-Baselines3, in one world and in 16, and MaskablePPO of sb3-contrib;
* a PPO of one file, in torch (``rivals/single_file.py``);
* PPO of RLlib;

and all 19 nodes by ``fauno train`` and, sharing their parameters, by MaskablePPO through SuperSuit.
Each training is measured after the same number of agent-steps and after the same CPU time, on the
same worlds: by the ratio of finished tasks and their response (one node: of the tasks born there).
CPU seconds are those of this process and of all that it has started, without imports and without
the measurement itself; torch has one thread.

These libraries are no dependencies of the project. Methods whose library is missing are left out:

    pip install 'fauno-flwr[sb3]' supersuit
    pip install 'ray[rllib]==2.55.1'    # in an environment of its own: it pins another gymnasium

A cell is one training, kept in DIR/cells; the same command goes on where it was stopped, also in
another environment, and ``--part 0 4`` computes every fourth cell from the first on. Then it prints
the tables of what is there and writes all numbers to DIR/table.json; with ``--table`` it only does
that.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import torch
from rivals.common import Progress, measure_all, measure_node

from fauno_flwr.results.directory import write_atomically
from sim_env.evaluation import interval
from sim_env.policies.heuristics import TITLES, Policy, get_policy

ONE, ALL = "one node", "all nodes"
SEEDS = 3
FIRST_WORLD = 1_000_000
HEURISTIC = "heuristics-"
HEURISTICS = ("random", "local", "lq", "sed", "threshold")


@dataclass(frozen=True)
class Budget:
    """When trainings of one kind are measured.

    Parameters
    ----------
    steps : int
        Agent-steps.
    seconds : float
        CPU seconds.
    worlds : int
        In which they are measured.
    measure : callable
        Maps a policy and the seeds of the worlds to what is measured.
    """

    steps: int
    seconds: float
    worlds: int
    measure: Callable[[Policy, range], dict[str, float]]


BUDGETS = {
    ONE: Budget(100_000, 30.0, 8, measure_node),
    ALL: Budget(500_000, 40.0, 16, measure_all),
}
# What is measured, with title and format.
MEASURED = {
    ALL: {"finished": ("finished %", "{:.1f}"), "response": ("response s", "{:.2f}")},
}
MEASURED[ONE] = {**MEASURED[ALL], "reward": ("reward", "{:.3f}")}
# By budget, the other quantity: what had been spent of it when the budget was.
SPENT = {"steps": "cpu_seconds", "seconds": "agent_steps"}


@dataclass(frozen=True)
class Method:
    """A trainer.

    Parameters
    ----------
    title : str
    kind : str
        Key of :data:`BUDGETS`.
    place : str
        ``module:function``, a :data:`rivals.common.Trainer`.
    needs : tuple of str, default empty
        Modules that must be installed.
    """

    title: str
    kind: str
    place: str
    needs: tuple[str, ...] = ()


SB3, CONTRIB = "stable_baselines3", "sb3_contrib"
METHODS = {
    "ours": Method("ours", ONE, "rivals.ours:one_node"),
    "ours-scratch": Method("ours, without prior", ONE, "rivals.ours:without_prior"),
    "sb3-1": Method("SB3 PPO, 1 world", ONE, "rivals.sb3:one_world", (SB3, CONTRIB)),
    "sb3-16": Method("SB3 PPO, 16 worlds", ONE, "rivals.sb3:many_worlds", (SB3, CONTRIB)),
    "sb3-masked": Method("SB3 MaskablePPO, 16", ONE, "rivals.sb3:masked", (SB3, CONTRIB)),
    "single-file": Method("PPO in one file, 16", ONE, "rivals.single_file:train"),
    "rllib": Method("RLlib PPO, 16", ONE, "rivals.rllib:train", ("ray.rllib", "ormsgpack")),
    "ours-all": Method("ours: fauno train", ALL, "rivals.ours:all_nodes"),
    "sb3-all": Method(
        "SB3 MaskablePPO, shared", ALL, "rivals.sb3:all_nodes", (SB3, CONTRIB, "supersuit")
    ),
}


def cpu_seconds() -> float:
    """Return the CPU time of this process and of all that it has started and that still run."""
    own = psutil.Process()
    return sum(
        times.user + times.system
        for times in (process.cpu_times() for process in [own, *own.children(recursive=True)])
    )


@dataclass
class Meter:
    """Take a training's progress, and measure it once at each of its two budgets.

    Parameters
    ----------
    budget : Budget
    first_world : int
        Seed of the first world of the measurement.

    Attributes
    ----------
    found : dict of str to dict
        By budget, ``steps`` and ``seconds``: agent-steps, decisions and CPU seconds so far, and
        what :attr:`Budget.measure` returns.
    """

    budget: Budget
    first_world: int = FIRST_WORLD
    found: dict[str, dict[str, float]] = field(default_factory=dict)
    spent: float = 0.0
    _since: float | None = None
    _last: Progress | None = None

    def __call__(self, progress: Progress) -> bool:
        """Measure what is due; return whether the training is to go on.

        The first call begins the measurement of time.
        """
        if self._since is not None:
            self.spent += cpu_seconds() - self._since
        self._last = progress
        if progress.steps >= self.budget.steps:
            self._measure("steps")
        if self.spent >= self.budget.seconds:
            self._measure("seconds")
        self._since = cpu_seconds()
        return len(self.found) < 2

    def close(self) -> None:
        """Measure a training that has ended by itself, before a budget was spent."""
        self._measure("steps")
        self._measure("seconds")

    def _measure(self, name: str) -> None:
        if name in self.found:
            return
        assert self._last is not None
        seeds = range(self.first_world, self.first_world + self.budget.worlds)
        self.found[name] = {
            "agent_steps": self._last.steps,
            "decisions": self._last.decisions,
            "cpu_seconds": self.spent,
            **self.budget.measure(self._last.policy(), seeds),
        }


def train(name: str, seed: int, budget: Budget) -> dict[str, dict[str, float]]:
    """Train by one method, and return :attr:`Meter.found`."""
    torch.set_num_threads(1)
    method = METHODS[name]
    module, _, function = method.place.partition(":")
    meter = Meter(budget)
    getattr(import_module(module), function)(seed, meter)
    meter.close()
    return meter.found


def measure_heuristics(kind: str) -> dict[str, dict[str, float]]:
    """Measure each heuristic, on all nodes or on the one node beside the same peers."""
    budget = BUDGETS[kind]
    seeds = range(FIRST_WORLD, FIRST_WORLD + budget.worlds)
    return {name: budget.measure(get_policy(name), seeds) for name in HEURISTICS}


def cells() -> dict[str, Callable[[], dict]]:
    """Return what computes each cell, by name: a method and a seed, or the heuristics of a kind."""
    found: dict[str, Callable[[], dict]] = {
        f"{HEURISTIC}{kind.partition(' ')[0]}": partial(measure_heuristics, kind)
        for kind in BUDGETS
    }
    for name, method in METHODS.items():
        for seed in range(1, SEEDS + 1):
            found[f"{name}-{seed}"] = partial(train, name, seed, BUDGETS[method.kind])
    return found


def missing_module(cell: str) -> str:
    """Return the first module that a cell needs and this environment lacks; empty if none."""
    method = METHODS.get(cell.rpartition("-")[0])
    needs = () if method is None else method.needs
    return next((name for name in needs if find_spec(name.partition(".")[0]) is None), "")


def compute(folder: Path, part: int, parts: int) -> None:
    """Compute the cells of a part that are not there yet."""
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    for name, cell in list(cells().items())[part::parts]:
        path = folder / "cells" / f"{name}.json"
        if path.exists():
            continue
        if missing := missing_module(name):
            print(f"{name} is left out: no module {missing}", flush=True)
            continue
        print(f"{name} ...", flush=True)
        write_atomically(path, json.dumps(cell(), indent=1) + "\n")


def shown(values: list[float], form: str) -> str:
    """Return the mean of trainings, and half of its 95 % Student interval if there are several."""
    found = interval(np.array(values))
    half = f" ± {form.format(found.high - found.mean)}" if len(values) > 1 else ""
    return form.format(found.mean) + half


def row(method: Method, cells: list[dict[str, dict[str, float]]]) -> list[str]:
    """Return the row of a method: how fast it trains, and what it has learned at both budgets."""
    ends = [max(cell.values(), key=lambda found: found["cpu_seconds"]) for cell in cells]
    columns = [method.title]
    for what in ("agent_steps", "decisions"):
        columns.append(f"{np.mean([end[what] / end['cpu_seconds'] for end in ends]):,.0f}")
    for budget, other in SPENT.items():
        found = [cell[budget] for cell in cells]
        columns.append(f"{np.mean([each[other] for each in found]):,.0f}")
        for what, (_, form) in MEASURED[method.kind].items():
            columns.append(shown([each[what] for each in found], form))
    return columns


def heuristic_row(kind: str, name: str, found: dict[str, float]) -> list[str]:
    """Return the row of a heuristic, the same at both budgets."""
    measured = [form.format(found[what]) for what, (_, form) in MEASURED[kind].items()]
    return [TITLES[name], "", "", *["", *measured] * len(SPENT)]


def read(folder: Path) -> dict[str, dict]:
    """Return the cells that are there, by name."""
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("cells/*.json")}


def tables(found: Mapping[str, dict]) -> str:
    """Format cells as Markdown: a table for one node, and one for all nodes."""
    made = []
    for kind, budget in BUDGETS.items():
        titles = [title for title, _ in MEASURED[kind].values()]
        heads = [kind, "agent-steps / CPU s", "decisions / CPU s"]
        heads += [f"{budget.steps:,} agent-steps: CPU s", *titles]
        heads += [f"{budget.seconds:g} CPU s: agent-steps", *titles]
        rows = [heads, ["---"] * len(heads)]
        for name, method in METHODS.items():
            cells = [found[cell] for cell in sorted(found) if cell.rpartition("-")[0] == name]
            if method.kind == kind and cells:
                rows.append(row(method, cells))
        for name, each in found.get(f"{HEURISTIC}{kind.partition(' ')[0]}", {}).items():
            rows.append(heuristic_row(kind, name, each))
        made.append("\n".join(f"| {' | '.join(columns)} |" for columns in rows))
    return "\n\n".join(made)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the cells")
    parser.add_argument(
        "--part",
        type=int,
        nargs=2,
        default=(0, 1),
        metavar=("I", "N"),
        help="compute every N-th cell, from number I on (0 1: all)",
    )
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args(arguments)
    part, parts = options.part
    if not 0 <= part < parts:
        parser.error(f"part is {part} {parts}: must be I N with 0 <= I < N")
    if not options.table:
        compute(options.out, part, parts)
    found = read(options.out)
    if not found:
        parser.error(f"out is {str(options.out)!r}: holds no cells")
    write_atomically(options.out / "table.json", json.dumps(found, indent=1, sort_keys=True) + "\n")
    print(tables(found))


if __name__ == "__main__":
    main()

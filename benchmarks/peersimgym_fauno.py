"""FAuNO in the physics of the original simulator, beside the four numbers that its paper has.

``python benchmarks/peersimgym_fauno.py DATA --out DIR`` trains and measures whatever is missing in
``DIR/cells`` and writes ``paper.md`` and ``paper.tex``; DATA holds ``alibaba_jobs_x0.1.csv`` and
``topologies/`` of the original. Training is in co-simulation with the preset ``peersimgym``;
measurement is as in the original: 10,000 ticks from an empty network, after which travelling tasks
count as unfinished.
"""

import argparse
import logging
import multiprocessing
import os
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.experiments.cells import GREEDY, SAMPLED, fingerprint, train, trained_policies
from fauno_flwr.experiments.design import (
    HEURISTICS,
    Cell,
    Condition,
    Design,
    Experiment,
    all_methods,
    cells,
)
from fauno_flwr.experiments.methods import METHODS
from fauno_flwr.experiments.paper_table import READING, Number, PaperTable, paper_tables
from fauno_flwr.experiments.paper_text import write_paper_tables
from fauno_flwr.experiments.runner import CellsFailedError, Outcome, Results, compute, stored
from fauno_flwr.experiments.summary import summarise, table
from fauno_flwr.federation.logs import quiet_flower
from sim_env.peersimgym.results import run_worlds
from sim_env.policies.heuristics import POLICIES

NETWORKS = {
    "ether2": ("Ether, 2 clusters", "network_2_clusters_heterogeneous_type"),
    "ether4": ("Ether, 4 clusters", "network_4_clusters_heterogeneous_type"),
    "random10": ("random, 10 nodes", "network_random10"),
}
RATES = (0.5, 1.0, 2.0)  # the paper's
COMPARED = ("fauno", "paper", "scof")
# No choice was made on these worlds, and no other experiment has them.
FIRST_WORLD, WORLDS, TICKS = 6_300_000, 24, 10_000
MESSAGES = 20  # train messages to a node, on average
UNKNOWN_LOAD = "load unknown"
PUBLISHED = "FAuNO, published†"
# For Ether and for a random network.
PUBLISHED_NUMBERS = {"finished": ("97.4", "88.2"), "response": ("165.2", "307.2")}
SETTINGS = (
    f"Settings: the preset peersimgym (all quirks of the original), 10 ticks per second, networks "
    f"{', '.join(file for _, file in NETWORKS.values())} of the original, with node speeds per "
    f"tick as its code reads them; jobs of the Alibaba trace with a tenth of the instructions, "
    f"deadlines of 30 to 60 s, λ tasks per second and stream. {MESSAGES} train messages to a node, "
    f"K = m/2 (SCOF stand-in: all nodes). Measured over {TICKS:,} ticks from an empty network, "
    f"tasks on their way at the end are unfinished, in {WORLDS} worlds from seed {FIRST_WORLD:,} "
    f"on, whose arrivals differ by up to one per cent between policies in these physics; greedy "
    f"actions, sampled ones in paper mode."
)
KNOWN = (
    "† Four single entries of a public list of results. Known of them: the policy (FAuNO), "
    "the kind of network (one pair for Ether, which therefore is the same in both columns of "
    "Ether, and one for a random network), and for Ether the jobs (Alibaba trace). Summaries "
    "of the paper name λ = 0.5, 1 and 2, 2 and 4 clusters, and random networks of 10 to 40 "
    "nodes. Unknown: λ and the number of nodes behind each number, the jobs of the random "
    "network, how the trace was scaled, deadlines, ticks per second, version of the "
    "simulator, training (seeds, episodes, all hyper-parameters), whether actions were "
    "sampled, worlds and intervals, whether the two numbers of a kind are of the same run, and "
    "the paper's numbers of LeastQueue and SCOF. Ticks per second are 10 in the configurations "
    "that its authors left, and only then are responses of this size seen. So this is no "
    "replication: a row of ours near a published number says that it is within reach, not that "
    "it was reproduced."
)


def experiment(data: Path) -> Experiment:
    """Return the experiment on the networks and jobs in a folder."""
    conditions = [
        Condition(
            f"{name}-rate{rate:g}",
            f"{title}, λ = {rate:g}/s",
            (
                "topology.kind=file",
                f"topology.path={data / 'topologies' / file}.json",
                "workload.jobs=file",
                f"workload.path={data / 'alibaba_jobs_x0.1.csv'}",
                f"workload.rate={rate:g}",
                f"evaluation.worlds={WORLDS}",
            ),
        )
        for name, (title, file) in NETWORKS.items()
        for rate in RATES
    ]
    design = Design(
        conditions, all_methods(conditions, COMPARED), MESSAGES, "peersimgym", FIRST_WORLD
    )
    question = "How does FAuNO compare with the paper's numbers in the physics of its simulator?"
    methods = {name: METHODS[name] for name in COMPARED}
    return Experiment("peersimgym", question, lambda quick: design, methods)


def run_cell(cell: Cell) -> dict[str, Any]:
    """Train in co-simulation and measure as the original does.

    Returns
    -------
    dict
        As of :func:`fauno_flwr.experiments.cells.run_cell`, but for ``response_mean``, which is in
        ticks, and a single kind of loss, ``not finished``. Of a method, only the kind of actions
        that it is compared by.
    """
    torch.set_num_threads(1)
    begin, cpu = time.monotonic(), time.process_time()
    ((name, world),) = cell.worlds.items()
    policies = {policy: POLICIES[policy] for policy in cell.policies}
    if cell.training:
        with quiet_flower(logging.ERROR):
            trained = train(cell.training)
        # The agents observe as they did in training; the arrivals are the same for all.
        world = replace(world, observation=cell.training.observation)
        shown = GREEDY if METHODS[cell.method].greedy else SAMPLED
        every = trained_policies(cell.training, trained.actors, world.build_scenario())
        policies = {shown: every[shown]}
    scenario, found = world.build_scenario(), {}
    for policy, decide in policies.items():
        created, finished, response = run_worlds(scenario, decide, world.evaluation.seeds, TICKS)
        found[policy] = {
            "created": created.tolist(),
            "finished_ratio": (finished / created).tolist(),
            "response_mean": response.tolist(),
            "lost": {"not finished": (created - finished).tolist()},
        }
    spent = {"wall": time.monotonic() - begin, "cpu": time.process_time() - cpu}
    return {
        "key": cell.key,
        "method": cell.method,
        "seed": cell.seed,
        "settings": fingerprint(cell),
        "worlds": {
            name: {
                "rho": scenario.rho,
                "agents": len(scenario.agents),
                "seeds": list(world.evaluation.seeds),
                "policies": found,
            }
        },
        "seconds": spent,
    }


class Pool:
    """Pool that computes cells in processes of their own.

    Parameters
    ----------
    workers : int
        How many at a time.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def __call__(self, cells: Sequence[Cell]) -> Generator[Outcome, None, None]:
        """Compute cells; yield each as it is done."""
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.workers, mp_context=context) as pool:
            waiting = {pool.submit(run_cell, cell): cell for cell in cells}
            for done in as_completed(waiting):
                error = done.exception()
                if error is not None and not isinstance(error, Exception):
                    raise error
                yield waiting[done], error or done.result()


def tables(chosen: Experiment, found: Sequence[Mapping[str, Any]]) -> list[PaperTable]:
    """Return the tables of finished tasks and response, each with a block of published numbers."""
    titles = {condition.name: condition.title for condition in chosen.design(False).conditions}
    summary = summarise(chosen, titles, found)
    made = []
    for each in paper_tables(summary, table(summary), "ticks", 1):
        ether, random = PUBLISHED_NUMBERS[each.name.rpartition("-")[2]]
        numbers = [Number(ether if "Ether" in column else random) for column in each.columns]
        made.append(each.with_block(UNKNOWN_LOAD, {PUBLISHED: numbers}))
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute the cells that are missing, and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of the original's data")
    parser.add_argument("--out", type=Path, required=True, help="folder of the cells and tables")
    parser.add_argument("--seeds", type=int, default=5, help="trainings per method (5)")
    parser.add_argument(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="processes (one for each core)",
    )
    parser.add_argument("--tables-only", action="store_true", help="compute nothing")
    given = parser.parse_args(arguments)
    for name in ("seeds", "workers"):
        if getattr(given, name) < 1:
            parser.error(f"{name} is {getattr(given, name)}: must be at least 1")
    chosen, out = experiment(given.data.absolute()), given.out.absolute()
    try:
        if not given.tables_only:
            # The longest first, or the last would keep one core busy while the others are idle.
            made = sorted(cells(chosen, False, given.seeds), key=_cost, reverse=True)
            pool = Pool(given.workers)
            compute(
                made, Results(out), pool, lambda line: print(line, flush=True), lambda: pool.workers
            )
        found = stored(out, chosen, False)
    except (ConfigError, CellsFailedError) as error:
        parser.error(str(error))
    seeds = max(cell["seed"] or 0 for cell in found)
    notes = [f"{seeds} training{'s' * (seeds > 1)} of each method. {READING}", SETTINGS, KNOWN]
    write_paper_tables(tables(chosen, found), "FAuNO in the original's physics", notes, out)
    print((out / "paper.md").read_text())


def _cost(cell: Cell) -> tuple[bool, bool, float]:
    (world,) = cell.worlds.values()
    return cell.method != HEURISTICS, "4_clusters" in str(world.topology), world.workload.rate


if __name__ == "__main__":
    main()

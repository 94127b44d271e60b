"""How far one manager reaches, and gossip without one: networks of 20 to 3,000 nodes.

The protocol, written before the first of these worlds was looked at, is in docs/experiments.md.
"""

from pathlib import Path
from typing import NamedTuple

from fauno_flwr.experiments.design import Arm, Condition, Design, Experiment
from fauno_flwr.experiments.federation import COMPARED, SHARED, VERY_SCARCE
from fauno_flwr.experiments.figures import plot_size
from fauno_flwr.experiments.gossip import GOSSIP
from fauno_flwr.experiments.load_table import load_rows
from fauno_flwr.experiments.methods import Method
from fauno_flwr.experiments.summary import Summary

FIRST_WORLD = 6_200_000  # no choice was made on these worlds, nor on those of other experiments


class Size(NamedTuple):
    """A network, and what fits into eight minutes of one core.

    Parameters
    ----------
    overrides : tuple of str
        The topology.
    rate : float
        Tasks per second of a source that make the offered load :data:`LOAD`.
    """

    overrides: tuple[str, ...]
    rate: float


LOAD = 0.6  # offered load rho of every network, so that size is all that differs
ETHER = {
    nodes: Size((f"topology.clusters={clusters}",), rate)
    for nodes, clusters, rate in (
        (20, 2, 2.922),
        (40, 4, 2.016),
        (100, 9, 1.528),
        (300, 27, 1.266),
        (1000, 91, 1.173),
        (3000, 273, 1.148),
    )
}
# The radius gives a node fourteen neighbours on average, fewer at the border.
RANDOM = {
    nodes: Size(("topology=random20", f"topology.nodes={nodes}", f"topology.radius={radius}"), rate)
    for nodes, radius, rate in (
        (20, 47.2, 1.338),
        (40, 33.38, 1.061),
        (100, 21.11, 1.055),
        (300, 12.19, 1.060),
        (1000, 6.68, 1.063),
        (3000, 3.85, 1.063),
    )
}
NETWORKS = {"ether": ETHER, "random": RANDOM}
# Worlds of the evaluation and ticks that are measured in each, by the number of nodes.
EVALUATION = {20: (16, 1000), 40: (8, 1000), 100: (4, 1000), 300: (4, 600)}
EVALUATION |= {1000: (3, 600), 3000: (3, 300)}
ONE_SEED = 1000  # from this many nodes on
LARGEST = 3000  # one method only
HALF, QUARTER = 4, 2  # messages to a node where more would not fit into eight minutes
# Messages as of a model this many times as large: 3 MB instead of 10 kB.
FACTOR = 300
LARGE_MODEL = {100: RANDOM[100], 300: RANDOM[300], 1000: RANDOM[1000]}
QUICK = (20, 100)
METHODS: dict[str, Method] = {
    "fauno": Method("FAuNO, K = m/2", SHARED),
    "fixed": Method("FAuNO, K = 10", (*SHARED, "federation.buffer_size=10")),
    "alone": COMPARED["alone"],
    "top-k": Method("FAuNO, K = m/2, top 10 %", (*SHARED, "federation.compression=top-k")),
    "gossip": Method("gossip on the topology", GOSSIP),
}
EVERYWHERE = ("fauno", "fixed", "alone", "gossip")
WITH_LARGE_MODEL = ("fauno", "fixed", "top-k", "gossip")


def design(quick: bool) -> Design:
    """Cross networks, sizes and methods; then sizes and methods with messages of a large model."""
    conditions, arms = [], []
    for kind, sizes in NETWORKS.items():
        for nodes, size in sizes.items():
            if quick and nodes not in QUICK:
                continue
            condition = _condition(f"{kind}{nodes}", f"{kind}, {nodes:,} nodes", nodes, size)
            conditions.append(condition)
            methods = EVERYWHERE if nodes < LARGEST else ("fauno",)
            arms += [Arm(method, condition.name) for method in methods]
    for nodes, size in LARGE_MODEL.items():
        if quick and nodes not in QUICK:
            continue
        condition = _condition(
            f"large-model{nodes}",
            f"random, {nodes:,} nodes, model {FACTOR:,} x as large",
            nodes,
            size,
            (f"cosim.message_factor={FACTOR}",),
        )
        conditions.append(condition)
        arms += [Arm(method, condition.name) for method in WITH_LARGE_MODEL]
    return Design(conditions, arms, messages=4 if quick else 8, first_world=FIRST_WORLD)


def _condition(
    name: str, title: str, nodes: int, size: Size, training: tuple[str, ...] = ()
) -> Condition:
    worlds, window = EVALUATION[nodes]
    world = (
        *size.overrides,
        f"workload.rate={size.rate}",
        f"evaluation.worlds={worlds}",
        f"evaluation.window={window}",
    )
    return Condition(
        name,
        title,
        world,
        (*VERY_SCARCE, *training),
        messages=_messages(nodes, large_model=bool(training)),
        seeds=1 if nodes >= ONE_SEED or training else 0,
    )


def _messages(nodes: int, large_model: bool) -> int:
    """Return the messages to a node; 0: those of the design."""
    if large_model and nodes >= ONE_SEED:
        return QUARTER
    return HALF if nodes >= LARGEST else 0


def report(summary: Summary, folder: Path) -> list[str]:
    """Draw the figure over the number of nodes; the table of the load needs no further lines."""
    plot_size(summary, load_rows(summary), folder / "size.png")
    return []


EXPERIMENT = Experiment(
    "scale",
    "How far does one manager reach, and what is the first thing that gets in the way?",
    design,
    METHODS,
    seeds=3,
    rivals=("fixed", "alone", "top-k", "gossip", "lq", "sed", "threshold"),
    target=True,
    load=True,
    further=report,
)

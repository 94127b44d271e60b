"""A small experiment: one condition of six nodes, two methods, and trainings of a second."""

from fauno_flwr.experiments.design import Arm, Condition, Design, Experiment
from fauno_flwr.experiments.methods import METHODS

SMALL = (
    "topology=ether1",
    "evaluation.worlds=3",
    "evaluation.window=200",
    "evaluation.warmup=50",
)
SHORT = ("training.worlds=2", "training.ticks=40", "training.rollouts=1", "training.warmup=10")


def tiny(quick: bool) -> Design:
    condition = Condition("small", "1 cluster", SMALL, SHORT)
    return Design([condition], [Arm("fauno", "small"), Arm("sync", "small")], messages=2)


TINY = Experiment("tiny", "Is it?", tiny, {k: METHODS[k] for k in ("fauno", "sync")}, target=True)

"""What slow nodes cost, with and without waiting for them."""

from fauno_flwr.experiments.design import Condition, Design, Experiment, all_methods
from fauno_flwr.experiments.methods import FROM_SCRATCH, METHODS

SLOW = ("rpi_0", "rpi_4", "rpi_8", "rpi_12")  # a quarter of ether2's Raspberry Pis
COMPARED = ("fauno", "sync", "independent")


def slow(factor: float) -> str:
    """Return the override by which their updates take `factor` times as long."""
    return "cosim.slowdown={" + ", ".join(f"{name}: {factor:g}" for name in SLOW) + "}"


def design(quick: bool) -> Design:
    """Slowdowns x methods."""
    conditions = [
        Condition(
            f"slow{factor}",
            f"a quarter {factor}x slow" if factor > 1 else "nobody slow",
            ("workload.rate=2",),
            (slow(factor), FROM_SCRATCH),
        )
        for factor in ((1, 10) if quick else (1, 2, 5, 10))
    ]
    return Design(conditions, all_methods(conditions, COMPARED), messages=8 if quick else 30)


EXPERIMENT = Experiment(
    "straggler",
    "With a quarter of the nodes 1 to 10 times as slow, how long does it take to learn, with and "
    "without waiting for them?",
    design,
    {name: METHODS[name] for name in COMPARED},
    rivals=("sync", "independent", "lq", "sed"),
    target=True,
)

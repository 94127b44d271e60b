"""The buffer size K, and the weight of stale updates."""

from fauno_flwr.experiments.design import Arm, Condition, Design, Experiment
from fauno_flwr.experiments.methods import FROM_SCRATCH, Method
from fauno_flwr.experiments.straggler import slow

SIZES = {
    "half": ("m/2", "0.5"),
    "quarter": ("m/4", "0.25"),
    "three-quarters": ("3m/4", "0.75"),
    "all": ("m", "{agents}"),
}
EXPONENTS = (0.0, 0.5, 1.0)
QUICK_EXPONENTS = (0.0, 0.5)
METHODS = {
    f"{name}-a{exponent:g}": Method(
        f"K = {label}, s = (1+τ)^-{exponent:g}" if exponent else f"K = {label}, s = 1",
        (
            f"federation.buffer_size={size}",
            f"federation.staleness={{{{name: polynomial, exponent: {exponent:g}}}}}",
        ),
    )
    for exponent in EXPONENTS
    for name, (label, size) in SIZES.items()
}
PAPER = "half-a0"


def design(quick: bool) -> Design:
    """Cross sizes and exponents; a quarter of the Raspberry Pis is slow, so updates are stale."""
    conditions = [
        Condition(
            f"rate{rate:g}",
            f"ether2, λ = {rate:g}/s",
            (f"workload.rate={rate:g}",),
            (slow(5), FROM_SCRATCH),
        )
        for rate in ((2.0,) if quick else (1.0, 2.0, 4.0))
    ]
    allowed = QUICK_EXPONENTS if quick else EXPONENTS
    names = [name for name in METHODS if float(name.rpartition("-a")[2]) in allowed]
    arms = [Arm(name, condition.name) for condition in conditions for name in names]
    return Design(conditions, arms, messages=6 if quick else 30)


EXPERIMENT = Experiment(
    "buffer",
    "How many updates should make a version, and should stale ones count less?",
    design,
    METHODS,
    rivals=(*[name for name in METHODS if name != PAPER], "lq", "sed"),
)

"""FAuNO against the heuristics and other methods, over networks and loads.

The protocol of the full size, written before the first of its worlds was looked at, is in
docs/experiments.md.
"""

from fauno_flwr.experiments import bound
from fauno_flwr.experiments.design import (
    HELD_OUT_SEED,
    Condition,
    Design,
    Experiment,
    all_methods,
)
from fauno_flwr.experiments.methods import METHODS, Method

FIRST_WORLD = 4_000_000  # no choice was made on these worlds, nor on those of other experiments
TOPOLOGIES = ("ether1", "ether2", "ether3", "ether4", "random10", "random20", "random40")
RATES = (0.5, 1.0, 2.0, 4.0)
# Copies of the network in training, chosen so that updates have about as many decisions.
WORLDS = {0.5: 16, 1.0: 16, 2.0: 8, 4.0: 4}
# With the best of its grid in the tuning, see docs/results/tuning; its defaults are not.
TUNED = ("agent.learning_rate=0.003", "agent.epochs=10")
COMPARED = {
    **METHODS,
    "independent-tuned": Method(
        "independent PPO, tuned", (*METHODS["independent"].settings, *TUNED)
    ),
}
QUICK_TOPOLOGIES, QUICK_RATES = ("ether2", "random10"), (1.0, 4.0)


def design(quick: bool) -> Design:
    """Cross topologies, rates and methods."""
    conditions = [
        Condition(
            f"{topology}-rate{rate:g}",
            f"{topology}, λ = {rate:g}/s",
            (f"topology={topology}", f"workload.rate={rate:g}"),
            (f"training.worlds={WORLDS[rate]}",),
        )
        for topology in (QUICK_TOPOLOGIES if quick else TOPOLOGIES)
        for rate in (QUICK_RATES if quick else RATES)
    ]
    return Design(
        conditions,
        all_methods(conditions, () if quick else tuple(COMPARED)),
        messages=8 if quick else 20,
        first_world=HELD_OUT_SEED if quick else FIRST_WORLD,
    )


EXPERIMENT = Experiment(
    "baseline",
    "Over networks and loads, is FAuNO better than the heuristics, and than other ways to learn?",
    design,
    COMPARED,
    rivals=("lq", "sed", "threshold", "independent", "independent-tuned", "scof", "model"),
    heuristics=(bound.BOUND,),
    further=bound.report,
)

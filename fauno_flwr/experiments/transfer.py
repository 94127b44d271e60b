"""Actors of a small network in a larger one, without further training."""

from fauno_flwr.experiments.design import Arm, Condition, Design, Experiment
from fauno_flwr.experiments.methods import Method

METHODS = {
    "transferred": Method("trained on 2 clusters"),
    "model": Method("same, full-model federation", ("federation.share=model",)),
    "native": Method("trained where evaluated"),
}


def design(quick: bool) -> Design:
    """Cross target networks and rates; each target node gets an actor of its role."""
    conditions, arms = [], []
    for rate in (2.0,) if quick else (0.5, 1.0, 2.0):
        place = {
            clusters: Condition(
                f"ether{clusters}-rate{rate:g}",
                f"{clusters} clusters, λ = {rate:g}/s",
                (f"topology=ether{clusters}", f"workload.rate={rate:g}"),
            )
            for clusters in (2, 3, 4)
        }
        targets = (place[4].name,) if quick else (place[3].name, place[4].name)
        conditions += [c for c in place.values() if c.name in (place[2].name, *targets)]
        for method in ("transferred", "model"):
            arms.append(Arm(method, place[2].name, evaluated_in=(place[2].name, *targets)))
        arms += [Arm("native", target) for target in targets]
    return Design(conditions, arms, messages=8 if quick else 30)


EXPERIMENT = Experiment(
    "transfer",
    "Do actors that were trained on 2 clusters serve 3 and 4 clusters, untouched, as well as those "
    "that were trained there?",
    design,
    METHODS,
    rivals=("native", "model", "lq", "sed", "threshold"),
)

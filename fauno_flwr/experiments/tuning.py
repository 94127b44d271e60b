"""The settings of every method, tuned with equal care; on worlds of development only.

Each kind of method has a grid of 8 to 12 settings: learning rates and epochs with a critic of
states; temperatures, rates of the critic and learning rates with a critic of actions; learning
rates and the decay of epsilon of the stand-in for SCOF. As a module, it ranks the settings of a
finished tuning: ``python -m fauno_flwr.experiments.tuning DIR``.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fauno_flwr.experiments.design import (
    DEVELOPMENT_SEED,
    Condition,
    Design,
    Experiment,
    all_methods,
)
from fauno_flwr.experiments.federation import VERY_SCARCE
from fauno_flwr.experiments.methods import METHODS, PAPERS_CRITIC, Method
from fauno_flwr.experiments.summary import SIGN

RATES, EPOCHS = (3e-4, 1e-3, 3e-3, 1e-2), (4, 10)
TEMPERATURES, CRITIC_RATES, ACTION_RATES = (0.1, 0.3, 1.0), (1.0, 3.0), (1e-3, 3e-3)
DECAYS = (40, 160, 320)
NEAR = 0.0005  # finished ratios this close are equal
SHARES = {"shared": "critic", "alone": "nothing", "model": "model"}
ACTION = ("agent.critic=action",)


def methods() -> dict[str, Method]:
    """Return the grid: a method for each share, critic and choice of settings."""
    made = {}
    for share, value in SHARES.items():
        common = (f"federation.share={value}",)
        for rate in RATES:
            for epochs in EPOCHS:
                name = f"state-{share}-{rate:g}-{epochs}"
                made[name] = Method(
                    f"state critic, {share}: rate {rate:g}, {epochs} epochs",
                    (
                        PAPERS_CRITIC,
                        *common,
                        *(f"agent.learning_rate={rate:g}", f"agent.epochs={epochs}"),
                    ),
                )
        for temperature in TEMPERATURES:
            for critic_rate in CRITIC_RATES:
                for rate in ACTION_RATES:
                    settings = (
                        *common,
                        *ACTION,
                        f"agent.temperature={temperature:g}",
                        f"agent.critic_rate={critic_rate:g}",
                        f"agent.learning_rate={rate:g}",
                    )
                    name = f"action-{share}-{temperature:g}-{critic_rate:g}-{rate:g}"
                    title = (
                        f"action critic, {share}: T {temperature:g}, critic x {critic_rate:g}, "
                        f"rate {rate:g}"
                    )
                    made[name] = Method(title, settings)
    scof = METHODS["scof"]
    for rate in RATES[1:]:
        for steps in DECAYS:
            made[f"scof-{rate:g}-{steps}"] = Method(
                f"{scof.title}: rate {rate:g}, epsilon over {steps} steps",
                (*scof.settings, f"agent.learning_rate={rate:g}", f"agent.epsilon_steps={steps}"),
            )
    return made


def design(quick: bool) -> Design:
    """Cross the grid with two networks, two loads and two amounts of data, all of them small."""
    ether, grid = ("workload.rate=2",), ("topology=grid20", "workload.rate=1")
    conditions = [
        Condition("ether2-8", "ether2, 2 tasks/s, 8 messages", ether, VERY_SCARCE, 8),
        Condition("grid20-8", "grid20, 1 task/s, 8 messages", grid, VERY_SCARCE, 8),
        Condition("ether2-3", "ether2, 2 tasks/s, 3 messages", ether, VERY_SCARCE, 3),
    ]
    if quick:
        conditions = conditions[:1]
    return Design(
        conditions, all_methods(conditions, tuple(methods())), 8, first_world=DEVELOPMENT_SEED
    )


class Place(NamedTuple):
    """A setting of a grid, averaged over conditions, seeds and worlds.

    Parameters
    ----------
    method : str
    finished : float
        Ratio.
    response : float
        Seconds.
    """

    method: str
    finished: float
    response: float


def ranking(table: Sequence[Mapping[str, Any]]) -> dict[str, list[Place]]:
    """Rank the settings of each grid by the rule of the protocol.

    The highest finished ratio, averaged over conditions, comes first; among the settings within
    :data:`NEAR` of it, the ones with a lower response come earlier.

    Parameters
    ----------
    table : sequence of mapping
        ``table`` of the ``summary.json`` of the experiment.

    Returns
    -------
    dict of str to list of Place
        By grid, as ``action-shared``.
    """
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in table:
        if row["policy"] in EXPERIMENT.methods:
            rows.setdefault(row["policy"], []).append(row)
    grids: dict[str, list[Place]] = {}
    for method, found in rows.items():
        means = (
            sum(row[measure]["mean"]["value"] for row in found) / len(found) for measure in SIGN
        )
        parts = method.split("-")
        grid = parts[0] if parts[0] == "scof" else "-".join(parts[:2])
        grids.setdefault(grid, []).append(Place(method, *means))
    for places in grids.values():
        best = max(place.finished for place in places)
        near = [place for place in places if place.finished >= best - NEAR]
        others = [place for place in places if place not in near]
        near.sort(key=lambda place: place.response)
        places[:] = near + sorted(others, key=lambda place: -place.finished)
    return grids


EXPERIMENT = Experiment(
    "tuning",
    "Which settings suit each method best, on worlds of development?",
    design,
    methods(),
    seeds=3,
    rivals=("lq", "sed"),
)

if __name__ == "__main__":
    summary = json.loads((Path(sys.argv[1]) / "summary.json").read_text())
    print("| settings | finished % | response s |\n|---|---|---|")
    for places in ranking(summary["table"]).values():
        for place in places:
            title = EXPERIMENT.methods[place.method].title
            print(f"| {title} | {100 * place.finished:.2f} | {place.response:.2f} |")

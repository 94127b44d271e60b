"""What privacy costs: how much noise the federation survives, by who adds it and by its size.

The protocol, written before the first of these worlds was looked at, is in
docs/results/privacy/protocol.md.
"""

from collections.abc import Mapping

from fauno_flwr.config.privacy import CENTRAL, LOCAL
from fauno_flwr.experiments.design import DEVELOPMENT_SEED, Arm, Condition, Design, Experiment
from fauno_flwr.experiments.methods import FROM_SCRATCH, PAPERS_CRITIC, Method
from fauno_flwr.experiments.privacy_report import report

FIRST_WORLD = 6_100_000  # no choice was made on these worlds, nor on those of other experiments
DELTA = 1e-5
MESSAGES = 8
# Versions, or messages, in which the busiest node takes part; at most 9, or 10, in development.
RELEASES = 10
# The noise multiplier by epsilon, of RELEASES releases at DELTA: strategies.noise_multiplier_for().
NOISE = {100: 0.3084, 30: 0.7094, 10: 1.675, 3: 4.722, 1: 12.8}
ACTION, STATE = "action", "state"
# Of the critic that the agents have by default, and of the paper's, as tuned for `federation`.
SETTINGS: Mapping[str, tuple[str, ...]] = {
    ACTION: (),
    STATE: (PAPERS_CRITIC, "agent.learning_rate=0.01", "agent.epochs=10"),
}
# The norm to clip to, by critic and who adds the noise: for an epsilon from 30 on, and below it.
CLIPS = {
    (ACTION, CENTRAL): (1.0, 0.03),
    (ACTION, LOCAL): (0.1, 0.03),
    (STATE, CENTRAL): (0.1, 0.03),
    (STATE, LOCAL): (0.03, 0.1),
}
TUNED_AT, GRID = (30, 3), (0.03, 0.1, 0.3, 1.0)
WORLD = ("workload.rate=2",)
SCARCE = ("training.worlds=1", "training.ticks=128")
# By nodes that learn: clusters; the rate with the offered load of 19 nodes at 2 tasks/s, 0.41, as
# there is one server for all; and the ticks in which a node decides as often.
LARGE = {100: (11, 1.0, 256), 298: (33, 0.85, 300)}
FEW = 3  # training seeds where cells are many, or large


def private(critic: str, kind: str, epsilon: int, clip: float) -> tuple[str, ...]:
    """Return the settings of a federation in which epsilon of no node passes a budget."""
    # Any two updates of a node are alike with local privacy: they are twice as far apart.
    noise = NOISE[epsilon] * (2 if kind == LOCAL else 1)
    privacy = {"clip": clip, "noise_multiplier": round(noise, 4), "max_epsilon": epsilon}
    return (
        *SETTINGS[critic],
        f"federation.privacy.kind={kind}",
        *(f"federation.privacy.{name}={value}" for name, value in privacy.items()),
    )


def methods() -> dict[str, Method]:
    """Return the federations with each budget, those without, and no federation."""
    made = {
        "fauno": Method("FAuNO", SETTINGS[ACTION]),
        "alone": Method(
            "the same, not shared", ("agent.temperature=0.3", "federation.share=nothing")
        ),
        "state": Method("FAuNO, the paper's critic", SETTINGS[STATE]),
        "independent": Method(
            "independent PPO",
            (
                *(PAPERS_CRITIC, "agent.learning_rate=0.003", "agent.epochs=10"),
                "federation.share=nothing",
            ),
        ),
    }
    for critic, settings in SETTINGS.items():
        first, suffix = ("", "") if critic == ACTION else (f"{STATE}-", ", the paper's critic")
        clip = CLIPS[critic, CENTRAL][0]
        # As much noise as makes no difference: settings allow none at all only without clipping.
        clipped = "kind=central", f"clip={clip}", "noise_multiplier=1e-3"
        made[f"{first}clipped"] = Method(
            f"clipped, no noise{suffix}",
            (*settings, *(f"federation.privacy.{each}" for each in clipped)),
        )
        for kind in (CENTRAL, LOCAL):
            for epsilon in NOISE:
                clip = CLIPS[critic, kind][epsilon < TUNED_AT[0]]
                made[f"{first}{kind}-{epsilon}"] = Method(
                    f"{kind}, ε ≤ {epsilon}{suffix}", private(critic, kind, epsilon, clip)
                )
    return made


METHODS = methods()


def design(quick: bool) -> Design:
    """Cross budgets with priors at 19 nodes; a few of them in larger federations."""
    scratch = Condition("scratch", "19 nodes", WORLD, (FROM_SCRATCH, *SCARCE))
    if quick:
        names = ("fauno", "alone", "central-30", "local-30")
        return _design([scratch], [Arm(name, scratch.name) for name in names])
    prior = Condition("prior", "19 nodes, prior", WORLD, SCARCE, seeds=FEW)
    arms = [Arm(name, scratch.name) for name in METHODS]
    arms += [Arm(name, prior.name) for name in METHODS if _with_prior(name)]
    large = [
        Condition(
            f"nodes{nodes}",
            f"{nodes} nodes",
            (f"topology.clusters={clusters}", f"workload.rate={rate:g}"),
            (FROM_SCRATCH, "training.worlds=1", f"training.ticks={ticks}"),
            seeds=FEW,
        )
        for nodes, (clusters, rate, ticks) in LARGE.items()
    ]
    fewest = ("fauno", "alone", "central-30", "central-3")
    arms += [Arm(name, large[0].name) for name in (*fewest, "independent", "local-30", "local-3")]
    arms += [Arm(name, large[1].name) for name in fewest]
    return _design([scratch, prior, *large], arms)


def _with_prior(method: str) -> bool:
    """Return whether a method is also trained with the prior: of the paper's critic only some."""
    kept = tuple(f"-{epsilon}" for epsilon in TUNED_AT)
    return not method.startswith(f"{STATE}-") or method.endswith(kept)


def _design(conditions: list[Condition], arms: list[Arm]) -> Design:
    return Design(conditions, arms, MESSAGES, first_world=FIRST_WORLD)


EXPERIMENT = Experiment(
    "privacy",
    "How much noise does the federation survive, and how many nodes does it take to hide one?",
    design,
    METHODS,
    rivals=("alone", "independent", "state", "clipped", "central-30", "local-30", "lq", "sed"),
    further=report,
)

TUNED = {
    f"{critic}-{kind}-{epsilon}-{clip}": Method(
        f"{critic} critic, {kind}, ε ≤ {epsilon}, C = {clip}",
        private(critic, kind, epsilon, clip),
    )
    for critic in SETTINGS
    for kind in (CENTRAL, LOCAL)
    for epsilon in TUNED_AT
    for clip in GRID
}


def tuning(quick: bool) -> Design:
    """Cross budgets with norms to clip to, on worlds of development."""
    chosen = list(TUNED)[:4] if quick else list(TUNED)
    condition = Condition("scratch", "ether2, no prior", WORLD, (FROM_SCRATCH, *SCARCE))
    arms = [Arm(name, condition.name) for name in chosen]
    return Design([condition], arms, MESSAGES, first_world=DEVELOPMENT_SEED)


# fauno experiment fauno_flwr.experiments.privacy:TUNING
TUNING = Experiment(
    "privacy-tuning", "To which norm should updates be clipped?", tuning, TUNED, seeds=2
)

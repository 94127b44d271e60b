"""The settings of every method, tuned with equal care; on worlds of development only.

Each kind of method has a grid of 8 to 12 settings: learning rates and epochs with a critic of
states; temperatures, rates of the critic and learning rates with a critic of actions; learning
rates and the decay of epsilon of the stand-in for SCOF.
"""

from fauno_flwr.experiments.design import (
    DEVELOPMENT_SEED,
    Condition,
    Design,
    Experiment,
    all_methods,
)
from fauno_flwr.experiments.federation import VERY_SCARCE
from fauno_flwr.experiments.methods import METHODS, Method

RATES, EPOCHS = (3e-4, 1e-3, 3e-3, 1e-2), (4, 10)
TEMPERATURES, CRITIC_RATES, ACTION_RATES = (0.1, 0.3, 1.0), (1.0, 3.0), (1e-3, 3e-3)
DECAYS = (40, 160, 320)
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
                    (*common, f"agent.learning_rate={rate:g}", f"agent.epochs={epochs}"),
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


EXPERIMENT = Experiment(
    "tuning",
    "Which settings suit each method best, on worlds of development?",
    design,
    methods(),
    seeds=3,
    rivals=("lq", "sed"),
)

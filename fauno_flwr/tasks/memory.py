"""Estimates of the memory that a run takes, so that one that cannot succeed does not begin."""

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.settings import RunConfig
from sim_env.memory import require_memory
from sim_env.scenario import Scenario
from sim_env.world import require_room

NUMBER = 4  # bytes of a float32
COPIES = 4  # of each parameter: itself, its gradient and Adam's two moments
NETWORKS = 2  # of an agent, at least: actor and critic, or Q-network and target


def require_evaluation(config: RunConfig, scenario: Scenario) -> None:
    """Raise :class:`ConfigError` if the worlds of the evaluation do not fit into the memory."""
    _require_worlds("evaluation.worlds", config.evaluation.worlds, scenario)


def require_training(config: RunConfig, scenario: Scenario | None, agents: int) -> None:
    """Raise :class:`ConfigError` if the training does not fit into the free memory.

    The estimates are lower bounds.

    Parameters
    ----------
    config : RunConfig
    scenario : Scenario or None
        The compiled world; None without a network.
    agents : int
        Agents that one process trains: all in co-simulation, elsewhere one.
    """
    training, hidden = config.training, config.agent.hidden
    decisions, numbers = float(training.worlds * training.ticks), 1.0
    if scenario is not None:
        require_evaluation(config, scenario)
        _require_worlds("training.worlds", training.worlds, scenario)
        # Every second new task is decided about once.
        decisions *= min(scenario.net.births / 2 / len(scenario.agents), 1.0) * agents
        numbers = scenario.encoding.local + scenario.encoding.destinations
    weights = agents * NETWORKS * float(hidden) ** 2
    try:
        require_memory(f"agent.hidden is {hidden}: training", weights * COPIES * NUMBER)
        require_memory(
            f"training.ticks is {training.ticks}: a rollout in training.worlds = "
            f"{training.worlds} worlds",
            decisions * numbers * NUMBER,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def evaluations_at_once(config: RunConfig, scenario: Scenario, most: int) -> int:
    """Return how many policies, `most` at most and one at least, the free memory has room for."""
    for number in range(most, 1, -1):
        try:
            require_room(scenario, number * config.evaluation.worlds)
        except ValueError:
            continue
        return number
    return 1


def _require_worlds(setting: str, worlds: int, scenario: Scenario) -> None:
    try:
        require_room(scenario, worlds)
    except ValueError as error:
        raise ConfigError(f"{setting} is {worlds}: {error}") from error

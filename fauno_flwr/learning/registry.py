"""Algorithms by name, and the agents of a run."""

from fauno_flwr.config.agent import ALGORITHM_GROUP, DDQN, PPO
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.ddqn import QPopulation
from fauno_flwr.learning.ppo import Population
from sim_env import plugins
from sim_env.scenario import Scenario

ALGORITHMS: dict[str, type[AgentStack]] = {PPO: Population, DDQN: QPopulation}


def find_algorithm(name: str) -> type[AgentStack]:
    """Return the algorithm of that name, or at that import path.

    Raises
    ------
    ConfigError
        If there is none.
    """
    try:
        found = plugins.find("agent.algorithm", name, ALGORITHMS, ALGORITHM_GROUP)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(found, type) or not issubclass(found, AgentStack):
        raise ConfigError(
            f"agent.algorithm is {name!r}: must be a subclass of "
            f"{AgentStack.__module__}.{AgentStack.__name__}"
        )
    return found


def make_population(agents: int, config: RunConfig, scenario: Scenario) -> AgentStack:
    """Make untrained agents as the settings say; all start equal.

    Parameters
    ----------
    agents : int
        Number of agents A: 1 in a Flower client.
    config : RunConfig
    scenario : Scenario
        Network of the agents; its largest number of slots is the size of padded networks.
    """
    slots = int(scenario.net.slots.max())
    algorithm = find_algorithm(config.agent.algorithm)
    return algorithm(agents, config.agent, config.seed, scenario.encoding, slots)

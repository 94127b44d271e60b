"""The algorithms by name, and the agents of a run."""

from fauno_flwr.config.settings import DDQN, PPO, RunConfig
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.ddqn import QPopulation
from fauno_flwr.learning.ppo import Population
from sim_env.scenario import Scenario

ALGORITHMS: dict[str, type[AgentStack]] = {PPO: Population, DDQN: QPopulation}


def make_population(agents: int, config: RunConfig, scenario: Scenario) -> AgentStack:
    """Untrained agents as the settings want them; all start equal.

    Parameters
    ----------
    agents : int
        A: 1 in a Flower client.
    config : RunConfig
    scenario : Scenario
        Its largest number of slots is the size of padded networks.
    """
    slots = int(scenario.net.slots.max())
    stack = ALGORITHMS[config.agent.algorithm]
    return stack(agents, config.agent, config.seed, config.observation, slots)

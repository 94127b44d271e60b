"""Speed of learning in one shared network: agents stacked, or one after another.

Compare the ratios within one run, not times between machines.
"""

import numpy as np
import torch

from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.learning.ppo import Population
from fauno_flwr.learning.recorder import Recorder
from fauno_flwr.tasks.own_worlds import own_worlds
from sim_env.world import World

TICKS = 256


def setting() -> tuple[RunConfig, World, Population]:
    """Return ether2 under load, after a warm-up."""
    torch.set_num_threads(1)
    config = load_config("ether2")
    scenario = config.build_scenario()
    world = World(scenario, range(config.training.worlds))
    population = Population(len(scenario.agents), config.agent, 1)
    population.policy(scenario.agent_of_node).drive(world, 300)
    return config, world, population


def note(benchmark, config: RunConfig, agents: int) -> None:
    """Note the agent-steps: ticks of all agents of all worlds, with or without a decision."""
    steps = TICKS * config.training.worlds * agents
    benchmark.extra_info["agent-steps/s"] = steps / benchmark.stats["median"]


def test_all_agents_side_by_side(benchmark) -> None:
    """A rollout of compiled actors and one stacked update."""
    config, world, population = setting()
    recorder = Recorder(world, population.agents, TICKS)
    rngs = [np.random.default_rng(agent) for agent in range(population.agents)]

    def run() -> None:
        recorder.roll(population.weights(world.scenario.agent_of_node, greedy=False), TICKS)
        batches = [recorder.take(agent) for agent in range(population.agents)]
        population.update(batches, 1e-3, rngs)

    benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    note(benchmark, config, population.agents)


def test_one_agent_after_another(benchmark) -> None:
    """The same code agent by agent: acting tick by tick in numpy, an update for each."""
    config, world, population = setting()
    agents = [population.select([agent]) for agent in range(population.agents)]
    nodes = world.scenario.agents

    def run() -> None:
        rng = np.random.default_rng(0)
        policies = [agent.policy() for agent in agents]
        recorder = Recorder(world, len(agents), TICKS)
        for _ in range(TICKS):
            seen = world.observe()
            actions = np.zeros((world.num_worlds, world.num_nodes), np.int32)
            for agent, node in enumerate(nodes):
                mine = seen[seen.node == node]
                if len(mine):
                    actions[mine.world, node] = policies[agent](mine, rng)
            world.step(actions)
        # Training data as in the benchmark above.
        recorder.roll(population.weights(world.scenario.agent_of_node, greedy=False), TICKS)
        for agent, alone in enumerate(agents):
            alone.update([recorder.take(agent)], 1e-3, [rng])

    benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    note(benchmark, config, len(agents))


def test_each_agent_in_its_own_copy(benchmark) -> None:
    """As 19 Flower clients do it, one after the other: copies of the worlds for each."""
    config, world, population = setting()
    config.training.warmup, scenario = 0, world.scenario
    assert config.training.ticks == TICKS
    agents = [population.select([agent]) for agent in range(population.agents)]

    def run() -> None:
        for agent, alone in enumerate(agents):
            rng = np.random.default_rng(agent)
            worlds = own_worlds(config, scenario, agent, alone, 1, rng)
            alone.update([worlds.collect(alone)], 1e-3, [rng])

    benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    note(benchmark, config, len(agents))

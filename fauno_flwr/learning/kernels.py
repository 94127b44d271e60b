"""Compile ahead what a run needs."""

from collections.abc import Callable

import numpy as np

from fauno_flwr.config.settings import RunConfig
from fauno_flwr.learning.recorder import Recorder
from fauno_flwr.learning.registry import make_population
from sim_env.policies.heuristics import POLICIES
from sim_env.scenario import Scenario
from sim_env.world import World

TICKS = 20
PARTS = ("heuristics", "actors", "rollouts", "updates", "observations")


def compile_kernels(
    config: RunConfig, scenario: Scenario, report: Callable[[str], None] = lambda part: None
) -> None:
    """Compile what runs use; what is in the cache already is loaded, which takes a second.

    Processes that start together would otherwise each compile the same kernels.

    Parameters
    ----------
    config : RunConfig
    scenario : Scenario
        The compiled world of `config`.
    report : callable, optional
        Called with each of :data:`PARTS` before it is compiled.
    """
    world = World(scenario, [0])
    actors = make_population(1, config, scenario)
    recorder = Recorder(world, 1, keep=TICKS)
    nodes = np.zeros(world.num_nodes)
    heuristics, policy, rollouts, updates, observations = PARTS
    report(heuristics)
    world.run(POLICIES["sed"], TICKS, np.random.default_rng(0))
    report(policy)
    actors.policy().drive(world, TICKS)
    report(rollouts)
    recorder.roll(actors.weights(nodes, greedy=False), TICKS)
    world.tasks_on_links()
    report(updates)
    actors.update([recorder.take(0)], 0.0, [np.random.default_rng(0)])
    report(observations)
    world.step(np.zeros((1, world.num_nodes), np.int32))
    world.observe().features()

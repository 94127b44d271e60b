"""The command ``fauno prepare``."""

from typing import TYPE_CHECKING, Annotated

import typer

from fauno_flwr.config.loading import load_config

if TYPE_CHECKING:
    import numpy as np

    from sim_env.engine.observation import Observation
    from sim_env.scenario import Scenario


def prepare(
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="Also those that few runs use: quirks of PeersimGym, own rewards."
        ),
    ] = False,
) -> None:
    """Compile the kernels once for this machine, so that no run has to."""
    from sim_env.engine.compilation import cache_root

    compile_kernels(load_config("ether2").build_scenario())
    if every:
        compile_kernels(load_config("peersimgym").build_scenario())
        # A reward in Python is what makes the loop over ticks one in Python.
        own = load_config("ether2", [f"reward.kind={__name__}:no_reward"])
        compile_kernels(own.build_scenario())
    typer.echo(f"compiled kernels are in {cache_root()}")


def compile_kernels(scenario: "Scenario") -> None:
    """Compile what runs of a scenario use: ticks, heuristics, actors, the recorder."""
    import numpy as np

    from fauno_flwr.config.agent import PPOConfig
    from fauno_flwr.learning.ppo import Population
    from fauno_flwr.learning.recorder import Recorder
    from sim_env.policies.heuristics import POLICIES
    from sim_env.world import World

    world = World(scenario, [0])
    world.run(POLICIES["sed"], 100, np.random.default_rng(0))
    actors = Population(1, PPOConfig(), 0)
    actors.policy().drive(world, 100)
    recorder = Recorder(world, 1, actors.config.hidden, keep=100)
    recorder.roll(actors.weights(np.zeros(world.num_nodes), greedy=False), 100)
    while not len(observation := world.observe()):
        world.step(np.zeros((1, world.num_nodes), np.int32))
    observation.features()


def no_reward(observation: "Observation") -> "np.ndarray":
    """Earn nothing with any action; array of float, shape (R, K)."""
    return observation.mask * 0.0

"""The command ``fauno prepare``."""

import typer


def prepare() -> None:
    """Compile the kernels once for this machine, so that no run has to."""
    import numpy as np

    from fauno_flwr.config.agent import PPOConfig
    from fauno_flwr.learning.ppo import Population
    from sim_env.engine.compilation import cache_root
    from sim_env.policies.heuristics import POLICIES
    from sim_env.world import World

    world = World("ether2", [0])
    world.run(POLICIES["sed"], 100, np.random.default_rng(0))
    Population(1, PPOConfig(), 0).policy().drive(world, 100)
    while not len(observation := world.observe()):
        world.step(np.zeros((1, world.num_nodes), np.int32))
    observation.features()
    typer.echo(f"compiled kernels are in {cache_root()}")

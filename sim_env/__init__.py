"""Edge networks in which nodes hand tasks to each other, as worlds to learn in.

Importing this package registers ``fauno/Ether2-v0`` and ``fauno/Balanced-v0`` with gymnasium, as
environments of one node, and with PettingZoo, as parallel environments of all nodes.
"""

import gymnasium
import pettingzoo

from sim_env.scenario import SCENARIOS, Scenario, ScenarioSpec, load_scenario
from sim_env.world import Metrics, World

__all__ = ["SCENARIOS", "Metrics", "Scenario", "ScenarioSpec", "World", "load_scenario"]

for _name in SCENARIOS:
    gymnasium.register(
        id=f"fauno/{_name.capitalize()}-v0",
        entry_point="sim_env.envs.single:EdgeEnv",
        vector_entry_point="sim_env.envs.single:EdgeVectorEnv",
        kwargs={"scenario": _name},
    )
    pettingzoo.register(
        "parallel",
        id=f"fauno/{_name.capitalize()}-v0",
        entry_point="sim_env.envs.parallel:EdgeParallelEnv",
        kwargs={"scenario": _name},
    )

"""Edge networks whose nodes offload tasks to each other, as worlds to learn in.

Importing this package registers ``fauno/Ether2-v0`` and ``fauno/Balanced-v0`` with gymnasium, as
environments of one node, and with PettingZoo, as parallel environments of all nodes.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

import gymnasium
import pettingzoo

from sim_env.scenario import SCENARIOS, Scenario, ScenarioSpec, load_scenario
from sim_env.world import Metrics, World

if TYPE_CHECKING:
    from sim_env.engine.features import OBSERVATIONS, Encoding
    from sim_env.engine.observation import Observation
    from sim_env.engine.physics import PhysicsSpec, Quirks
    from sim_env.engine.reward import REWARDS, RewardSpec
    from sim_env.envs.parallel import EdgeParallelEnv
    from sim_env.envs.plan import save_network
    from sim_env.envs.render import draw_world, save_frames
    from sim_env.envs.single import EdgeEnv
    from sim_env.envs.vector import EdgeVectorEnv
    from sim_env.evaluation import by_world, run_policies, run_policy, summarise
    from sim_env.network.conversion import from_networkx
    from sim_env.network.failures import DynamicsSpec, Outage
    from sim_env.network.files import read_ether_json, read_topology
    from sim_env.network.graph import Topology
    from sim_env.network.imports import import_graph, read_edges, read_graphml
    from sim_env.network.plain import save_topology
    from sim_env.network.topology import TopologySpec, build_topology
    from sim_env.policies.heuristics import POLICIES, Policy, get_policy
    from sim_env.workload.files import read_jobs
    from sim_env.workload.jobs import JobTable, TaskType
    from sim_env.workload.schedule import Schedule, Step
    from sim_env.workload.workload import WorkloadSpec

# Module of each public name that is imported when it is first used.
_LAZY = {
    name: module
    for module, names in {
        "engine.features": ("OBSERVATIONS", "Encoding"),
        "engine.observation": ("Observation",),
        "engine.physics": ("PhysicsSpec", "Quirks"),
        "engine.reward": ("REWARDS", "RewardSpec"),
        "envs.parallel": ("EdgeParallelEnv",),
        "envs.plan": ("save_network",),
        "envs.render": ("draw_world", "save_frames"),
        "envs.single": ("EdgeEnv",),
        "envs.vector": ("EdgeVectorEnv",),
        "evaluation": ("by_world", "run_policies", "run_policy", "summarise"),
        "network.conversion": ("from_networkx",),
        "network.failures": ("DynamicsSpec", "Outage"),
        "network.files": ("read_ether_json", "read_topology"),
        "network.graph": ("Topology",),
        "network.imports": ("import_graph", "read_edges", "read_graphml"),
        "network.plain": ("save_topology",),
        "network.topology": ("TopologySpec", "build_topology"),
        "policies.heuristics": ("POLICIES", "Policy", "get_policy"),
        "workload.files": ("read_jobs",),
        "workload.jobs": ("JobTable", "TaskType"),
        "workload.schedule": ("Schedule", "Step"),
        "workload.workload": ("WorkloadSpec",),
    }.items()
    for name in names
}

__all__ = [
    "OBSERVATIONS",
    "POLICIES",
    "REWARDS",
    "SCENARIOS",
    "DynamicsSpec",
    "EdgeEnv",
    "EdgeParallelEnv",
    "EdgeVectorEnv",
    "Encoding",
    "JobTable",
    "Metrics",
    "Observation",
    "Outage",
    "PhysicsSpec",
    "Policy",
    "Quirks",
    "RewardSpec",
    "Scenario",
    "ScenarioSpec",
    "Schedule",
    "Step",
    "TaskType",
    "Topology",
    "TopologySpec",
    "WorkloadSpec",
    "World",
    "build_topology",
    "by_world",
    "draw_world",
    "from_networkx",
    "get_policy",
    "import_graph",
    "load_scenario",
    "read_edges",
    "read_ether_json",
    "read_graphml",
    "read_jobs",
    "read_topology",
    "run_policies",
    "run_policy",
    "save_frames",
    "save_network",
    "save_topology",
    "summarise",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used; the version is that of the distribution."""
    if name == "__version__":
        try:
            value: Any = importlib.metadata.version("fauno-flwr")
        except importlib.metadata.PackageNotFoundError:  # in a FAB the packages are not installed
            value = "0.0.0+unknown"
    elif name in _LAZY:
        value = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__, "__version__"})


for _name in SCENARIOS:
    gymnasium.register(
        id=f"fauno/{_name.capitalize()}-v0",
        entry_point="sim_env.envs.single:EdgeEnv",
        vector_entry_point="sim_env.envs.vector:EdgeVectorEnv",
        kwargs={"scenario": _name},
    )
    pettingzoo.register(
        "parallel",
        id=f"fauno/{_name.capitalize()}-v0",
        entry_point="sim_env.envs.parallel:EdgeParallelEnv",
        kwargs={"scenario": _name},
    )

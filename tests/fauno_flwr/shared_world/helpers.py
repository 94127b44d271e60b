"""Small shared worlds for the tests: services, nodes, clients, and actors with an opinion."""

import contextlib
from collections.abc import Iterator

import numpy as np

from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.registry import make_population
from fauno_flwr.learning.transitions import Decisions
from fauno_flwr.shared_world import wire
from fauno_flwr.shared_world.client import (
    Access,
    SharedWorld,
    WorldClient,
)
from fauno_flwr.shared_world.host import WorldHost
from fauno_flwr.shared_world.server import Credentials, WorldService
from fauno_flwr.shared_world.tokens import token_of

AGENTS = 3
SMALL = [
    "topology=full20",
    f"topology.nodes={AGENTS}",
    "workload.rate=10",
    "world=shared",
    "world.keep=2000",
    "world.patience=20",
    "training.worlds=2",
    "training.ticks=150",
]
TICKS = 300  # of a rollout
SECRET = "a-secret-that-nobody-guesses"
TOKEN = token_of(SECRET, "0")
IS_SELF = 6  # feature of a destination under the default observation


def settings(*overrides: str, address: str = "127.0.0.1:1") -> RunConfig:
    return load_config("ether2", [*SMALL, f"world.address={address}", *overrides])


def make_host(config: RunConfig, pace: float = 0.0) -> WorldHost:
    return WorldHost(config, config.build_scenario(), pace)


@contextlib.contextmanager
def serving(
    config: RunConfig,
    address: str = "127.0.0.1:0",
    pace: float = 0.0,
    credentials: Credentials = Credentials(),  # noqa: B008
) -> Iterator[WorldService]:
    with WorldService(make_host(config, pace), address, credentials) as service:
        yield service


def actor_of(population: AgentStack) -> wire.Arrays:
    weights = population.weights(np.zeros(0, np.int32), greedy=False)._asdict()
    return {
        name: value[0]
        for name, value in weights.items()
        if isinstance(value, np.ndarray) and name != "agent_of_node"
    }


def opinionated(config: RunConfig, keeps: bool, agents: int = 1) -> AgentStack:
    """Make agents that keep every task, or offload every one they can."""
    population = make_population(agents, config, config.build_scenario())
    local = population.encoding.local
    for agent in range(agents):
        actor = {name: np.zeros_like(array) for name, array in population.get_actor().items()}
        of = "actor." if len(population.acting) > 1 else ""
        actor[f"{of}weights.0"][local + IS_SELF, 0] = 5.0
        actor[f"{of}weights.1"][0, 0] = 5.0
        actor[f"{of}weights.2"][0, 0] = 100.0 if keeps else -100.0
        population.set_actor(actor, agent)
    return population


def node(service: WorldService, agent: int = 0, *overrides: str, **access: str) -> SharedWorld:
    config = settings(*overrides, address=service.address)
    return SharedWorld(config, config.build_scenario(), agent, Access(service.address, **access))


def client(service: WorldService, patience: float = 5.0) -> WorldClient:
    return WorldClient(Access(service.address), patience)


def hello(config: RunConfig, agent: int = 0) -> wire.Head:
    return {
        "agent": agent,
        "protocol": wire.PROTOCOL,
        "fingerprint": wire.fingerprint(config, config.build_scenario()),
        "settings": wire.world_settings(config),
    }


def assert_equal(one: Decisions, two: Decisions) -> None:
    for name, column in vars(one).items():
        np.testing.assert_array_equal(column, getattr(two, name), err_msg=name)

"""The settings of a run: dataclasses that validate themselves, and what they build."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from omegaconf import OmegaConf

from fauno_flwr.config.agent import AgentConfig, PPOConfig
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.federation import GOSSIP, FederationConfig
from sim_env.engine.features import require_observation
from sim_env.engine.reward import RewardSpec
from sim_env.envs.vector import SELF
from sim_env.errors import (
    Use,
    no_effect,
    require_choice,
    require_effect,
    require_number,
    with_kind,
)
from sim_env.network.failures import DynamicsSpec
from sim_env.network.topology import TopologySpec
from sim_env.policies.heuristics import POLICIES, require_peers, require_policy
from sim_env.scenario import PhysicsSpec, Scenario, ScenarioSpec
from sim_env.workload.workload import WorkloadSpec

LARGEST_SEED = 2**62
VALIDATION_OFFSET = 500_000  # from the seeds of the evaluation to those during training
MOST_ROLLOUTS = 10_000  # of a message that is sized by time
MOST_NODES = 10_000  # of a federation without a network
LONGEST_MESSAGE = 10**8  # ticks
WORLDS = OWN, SHARED, GYM = ("own", "shared", "gym")


@dataclass
class TrainingConfig:
    """What a node does for one train message.

    Parameters
    ----------
    worlds : int
        Parallel copies of the network.
    warmup : int
        Ticks before the first rollout; with each message the worlds start empty.
    ticks : int
        Ticks of a rollout.
    rollouts : int
        Rollouts, each followed by an update, per message.
    seconds_per_message : float
        Target duration of a message in real time: the server requests as many rollouts as fill it
        on that node, and ``rollouts`` only with its first message. 0: always ``rollouts``.
    peers : str
        Policy of the other agents: ``self`` (this node's own actor) or a heuristic.
    """

    worlds: int = 16
    warmup: int = 100
    ticks: int = 256
    rollouts: int = 2
    seconds_per_message: float = 0.0
    peers: str = SELF

    def __post_init__(self) -> None:
        for name in ("worlds", "ticks", "rollouts"):
            value = getattr(self, name)
            require_number(f"training.{name}", value, at_least=1, at_most=LONGEST_MESSAGE)
        require_number("training.warmup", self.warmup, at_least=0, at_most=LONGEST_MESSAGE)
        require_number("training.seconds_per_message", self.seconds_per_message, at_least=0)
        if self.peers != SELF:
            require_peers(self.peers, "training.peers")

    @property
    def most_rollouts(self) -> int:
        """Largest number of rollouts that a message may request."""
        return max(self.rollouts, MOST_ROLLOUTS) if self.seconds_per_message else self.rollouts

    @property
    def most_steps(self) -> int:
        """Largest number of decisions behind one message: one per world and tick."""
        return self.worlds * self.ticks * self.most_rollouts


@dataclass
class WorldConfig:
    """Where the nodes act while they train.

    Parameters
    ----------
    kind : str
        ``own``: each node in its own copies of the network. ``shared``: all nodes in one network,
        hosted by :mod:`fauno_flwr.shared_world`. ``gym``: each in an environment of gymnasium.
    address : str
        Address of the service that hosts a ``shared`` world, as in ``192.0.2.10:9100``.
    heuristic : str
        Policy, in a ``shared`` world, of the nodes that have not deployed an actor yet.
    keep : int
        Ticks for which a ``shared`` world keeps an agent's decisions.
    patience : float
        Seconds for which a node retries to reach a ``shared`` world.
    env_id : str
        Id of the ``gym`` environment, as in :func:`gymnasium.make` (``package:Name-v0``).
    nodes : int
        Number of nodes that learn in a ``gym`` environment.
    """

    uses: ClassVar[dict[str, Use]] = {
        **dict.fromkeys(("address", "heuristic", "keep", "patience"), with_kind("kind", SHARED)),
        **dict.fromkeys(("env_id", "nodes"), with_kind("kind", GYM)),
    }

    kind: str = OWN
    address: str = ""
    heuristic: str = "sed"
    keep: int = 16384
    patience: float = 60.0
    env_id: str = ""
    nodes: int = 4

    def __post_init__(self) -> None:
        require_choice("world.kind", self.kind, WORLDS)
        require_number("world.nodes", self.nodes, at_least=1, at_most=MOST_NODES)
        # The loop of the service is compiled: it knows the built-in heuristics only.
        require_choice("world.heuristic", self.heuristic, POLICIES)
        require_number("world.keep", self.keep, at_least=1)
        require_number("world.patience", self.patience, above=0)
        if self.address:
            require_address("world.address", self.address)
        require_effect("world.", self, self.uses)


@dataclass
class CosimConfig:
    """Co-simulation in one network under virtual time; see :mod:`fauno_flwr.cosim`.

    Parameters
    ----------
    server : str
        Name of the node that hosts the server; empty: the network's server, or else its fastest
        node.
    takeover : float
        Seconds after a failure of the server's node until the fastest node that is up takes over,
        from the last version that it has received; 0: the server is waited for.
    training_work : float
        Instructions that a node executes for one decision in one pass of an update.
    share_with_tasks : bool
        Whether messages share the links with the tasks on them.
    message_factor : float
        Factor on the bytes of each message: what a model so many times as large would send.
    slowdown : dict of str to float
        Factor by which the updates of some nodes take longer, by name: ``{rpi_3: 10, nuc_0: 2}``.
    """

    server: str = ""
    takeover: float = 0.0
    training_work: float = 5e5
    share_with_tasks: bool = True
    message_factor: float = 1.0
    slowdown: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_number("cosim.takeover", self.takeover, at_least=0)
        require_number("cosim.training_work", self.training_work, at_least=0)
        require_number("cosim.message_factor", self.message_factor, above=0)
        for name, factor in self.slowdown.items():
            require_number(f"cosim.slowdown.{name}", factor, above=0)

    def slowdowns(self, names: Sequence[str]) -> list[float]:
        """Return the factor of each node; ``ValueError`` for a name that is not among `names`."""
        for name in (*self.slowdown, *filter(None, [self.server])):
            require_choice("cosim: node", name, names)
        return [self.slowdown.get(name, 1.0) for name in names]


@dataclass
class EvaluationConfig:
    """The joint evaluation of all actors, and the heuristics that they are compared with.

    Parameters
    ----------
    worlds : int
        Worlds with different arrivals; every policy is evaluated in the same ones.
    warmup, window : int
        Ticks before the measured window, and in it.
    seed : int
        Seed of the first world; never used in training.
    every : int
        Versions between two evaluations during training, on worlds of their own
        (:attr:`validation_seeds`); 0: none. It needs ``federation.collect_actors``.
    policies : list of str
        Heuristics in the table: names, or import paths of one's own.
    greedy : bool
        Whether the agents take their most probable action instead of sampling one.
    replay : bool
        Whether the first world is recorded under every policy, for ``fauno report``.
    """

    worlds: int = 16
    warmup: int = 600
    window: int = 2000
    seed: int = 1_000_000
    every: int = 0
    policies: list[str] = field(
        default_factory=lambda: ["sed", "threshold", "lq", "random", "local"]
    )
    greedy: bool = True
    replay: bool = True

    def __post_init__(self) -> None:
        for name in ("worlds", "window"):
            require_number(f"evaluation.{name}", getattr(self, name), at_least=1)
        for name in ("warmup", "every"):
            require_number(f"evaluation.{name}", getattr(self, name), at_least=0)
        require_number("evaluation.seed", self.seed, at_least=0, at_most=LARGEST_SEED)
        for policy in self.policies:
            require_policy(policy, "evaluation.policies")
        require_different("evaluation.policies", self.policies)

    @property
    def seeds(self) -> range:
        """Seeds of the worlds."""
        return range(self.seed, self.seed + self.worlds)

    @property
    def validation_seeds(self) -> range:
        """Seeds of as many other worlds, for the evaluations during training."""
        return range(self.seed + VALIDATION_OFFSET, self.seed + VALIDATION_OFFSET + self.worlds)


@dataclass
class RunConfig:
    """Everything that a run depends on; a group is chosen by the name of a file in ``conf/``.

    Parameters
    ----------
    seed : int
        Seed of the initial networks and of everything random in training.
    topology, workload, physics, reward, dynamics : dataclass
        The world.
    observation : str
        What the nodes observe: ``full``, ``paper``, or one's own.
    agent, training, world, federation, cosim, evaluation : dataclass
        The run in it.
    """

    seed: int = 1
    topology: TopologySpec = field(default_factory=TopologySpec)
    workload: WorkloadSpec = field(default_factory=WorkloadSpec)
    physics: PhysicsSpec = field(default_factory=PhysicsSpec)
    reward: RewardSpec = field(default_factory=RewardSpec)
    observation: str = "full"
    dynamics: DynamicsSpec = field(default_factory=DynamicsSpec)
    agent: AgentConfig = field(default_factory=PPOConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    world: WorldConfig = field(default_factory=WorldConfig)
    federation: FederationConfig = field(default_factory=FederationConfig)
    cosim: CosimConfig = field(default_factory=CosimConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        require_number("seed", self.seed, at_least=0, at_most=LARGEST_SEED)
        require_observation(self.observation)
        self._require_server()
        if self.evaluation.every and not self.federation.collect_actors:
            raise ConfigError(
                f"evaluation.every is {self.evaluation.every}: must be 0 without "
                f"federation.collect_actors=true, because the actors stay on their nodes"
            )

    def _require_server(self) -> None:
        """Check what the settings say about a server that may not exist, or never fails."""
        takeover = self.cosim.takeover
        if self.federation.merging == GOSSIP:
            for name, value in (("server", self.cosim.server), ("takeover", takeover)):
                if value:
                    key = f"cosim.{name}"
                    raise ConfigError(no_effect(key, value, "federation.merging", GOSSIP))
        if takeover and not (self.dynamics.nodes or self.dynamics.node_mttf):
            raise ConfigError(no_effect("cosim.takeover", takeover, "dynamics.node_mttf", 0))
        if takeover and self.federation.checkpoints:
            raise ConfigError(
                f"cosim.takeover is {takeover:g}: must be 0 with federation.checkpoints"
            )

    @property
    def scenario_spec(self) -> ScenarioSpec:
        """The world of this run."""
        return ScenarioSpec(
            self.topology,
            self.workload,
            self.physics,
            self.reward,
            self.observation,
            self.dynamics,
        )

    def build_network(self) -> Scenario | None:
        """Compile the world of this run as :meth:`build_scenario` does; None without a network."""
        return None if self.world.kind == GYM else self.build_scenario()

    def build_scenario(self) -> Scenario:
        """Compile the world of this run and validate what depends on more than one group."""
        training, world = self.training, self.world
        if world.kind == GYM:
            raise ConfigError(f"world.kind is {GYM!r}: must be another one here, with a network")
        if world.kind == SHARED and not world.address:
            raise ConfigError(
                "world.address is '': must be HOST:PORT of fauno world serve with world=shared"
            )
        if world.kind == SHARED and training.worlds * training.ticks > world.keep:
            raise ConfigError(
                f"world.keep is {world.keep}: must be at least {training.worlds * training.ticks}, "
                f"the ticks of a rollout in a shared world (training.worlds * training.ticks)"
            )
        try:
            scenario = Scenario(self.scenario_spec)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        self.require_nodes(len(scenario.agents))
        return scenario

    def require_nodes(self, agents: int) -> None:
        """Raise :class:`ConfigError` if the federation does not fit so many nodes that learn."""
        if self.federation.share not in self.agent.shares:
            raise ConfigError(
                f"federation.share is {self.federation.share!r}: must be "
                f"{' or '.join(self.agent.shares)} with agent.algorithm={self.agent.algorithm}"
            )
        if self.federation.buffer_size > max(agents, 1.0):
            raise ConfigError(
                f"federation.buffer_size is {self.federation.buffer_size:g}: must be at most "
                f"{agents}, the number of nodes that learn"
            )

    def to_yaml(self) -> str:
        """Return all settings as YAML; :func:`fauno_flwr.config.loading.from_yaml` reads it."""
        return str(OmegaConf.to_yaml(OmegaConf.structured(self)))


def require_address(name: str, address: str) -> None:
    """Raise ``ValueError`` unless an address is of the form HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ValueError(f"{name} is {address!r}: must be HOST:PORT, as in 192.0.2.10:9100")


def is_loopback(host: str) -> bool:
    """Return whether a host can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def require_different(name: str, values: Sequence[str]) -> None:
    """Raise :class:`ConfigError` for a value that occurs twice."""
    for number, value in enumerate(values):
        if value in values[:number]:
            raise ConfigError(f"{name} has {value!r} twice: must be different ones")

"""The settings of a run: what they are, what they may be, and what they build."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import OmegaConf

from sim_env.engine.features import require_observation
from sim_env.engine.reward import RewardSpec
from sim_env.envs.single import SELF
from sim_env.errors import require_choice, require_number
from sim_env.network.failures import DynamicsSpec
from sim_env.network.topology import TopologySpec
from sim_env.policies.heuristics import POLICIES
from sim_env.scenario import PhysicsSpec, Scenario, ScenarioSpec
from sim_env.workload.workload import WorkloadSpec
from strategies.buffered_async import ON_REPLY, ON_VERSION, require_buffer_size
from strategies.compression import Compression, Int8, TopK
from strategies.merge import Mean, Median, MergeRule, NormFiltered, TrimmedMean

LARGEST_SEED = 2**62
MOST_ROLLOUTS = 1000  # of a message that is sized by time
SHARES = CRITIC, MODEL, NOTHING = ("critic", "model", "nothing")
ALGORITHMS = PPO, DDQN = ("ppo", "ddqn")
NETWORKS = EQUIVARIANT, PADDED = ("equivariant", "padded")
WORLDS = OWN, SHARED, GYM = ("own", "shared", "gym")
COMPRESSIONS = NONE, TOP_K, INT8 = ("none", "top-k", "8-bit")
MERGE_RULES: dict[str, MergeRule] = {
    "mean": Mean(),
    "trimmed-mean": TrimmedMean(),
    "median": Median(),
    "norm-filtered": NormFiltered(),
}


class ConfigError(ValueError):
    """A setting that cannot be; the text is one sentence for the user."""


@dataclass
class AgentConfig:
    """Networks and learning of every agent.

    Parameters
    ----------
    algorithm : str
        ``ppo``, or ``ddqn``: :mod:`fauno_flwr.learning.ddqn`, the stand-in for SCOF.
    network : str
        ``equivariant`` or ``padded``: :mod:`fauno_flwr.learning.networks`.
    hidden : int
        Width of the two hidden layers of actor and critic.
    learning_rate : float
        Of Adam; falls linearly to 0 with the versions of the run.
    gamma : float
        Discount per decision.
    epochs, minibatches : int
        Passes over a rollout, and the pieces of one pass.
    max_grad_norm : float
        Gradients of actor and critic are clipped to this norm, each by itself.
    gae_lambda : float
        Of ``ppo``: lambda of generalised advantage estimation.
    prior : float
        Weight of the expected delay in the actor's start: 0 knows nothing, more prefers the shorter
        delay, as ShortestExpectedDelay does. Of equivariant networks whose observation tells it.
    clip : float
        Of ``ppo``: of the probability ratio.
    entropy : float
        Of ``ppo``: weight of the entropy bonus.
    replay : int
        Of ``ddqn``: decisions in the replay buffer.
    target_period : int
        Of ``ddqn``: gradient steps between two copies of the network to the target network.
    epsilon : float
        Of ``ddqn``: share of random actions in the end; it begins at 1.
    epsilon_steps : int
        Of ``ddqn``: gradient steps until then.
    """

    algorithm: str = PPO
    network: str = EQUIVARIANT
    hidden: int = 32
    learning_rate: float = 1e-3
    gamma: float = 0.9
    epochs: int = 4
    minibatches: int = 4
    max_grad_norm: float = 0.5
    prior: float = 10.0
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy: float = 0.01
    replay: int = 10_000
    target_period: int = 64
    epsilon: float = 0.05
    epsilon_steps: int = 320

    def __post_init__(self) -> None:
        require_choice("agent.algorithm", self.algorithm, ALGORITHMS)
        require_choice("agent.network", self.network, NETWORKS)
        for name in ("hidden", "epochs", "minibatches", "target_period", "epsilon_steps"):
            require_number(f"agent.{name}", getattr(self, name), at_least=1)
        for name in ("learning_rate", "clip", "max_grad_norm"):
            require_number(f"agent.{name}", getattr(self, name), above=0)
        for name in ("gamma", "gae_lambda", "epsilon"):
            require_number(f"agent.{name}", getattr(self, name), at_least=0, at_most=1)
        require_number("agent.prior", self.prior, at_least=0)
        require_number("agent.replay", self.replay, at_least=2)
        require_number("agent.entropy", self.entropy, at_least=0)


@dataclass
class TrainingConfig:
    """What one train message makes a node do.

    Parameters
    ----------
    worlds : int
        Parallel copies of the network.
    warmup : int
        Ticks before the first rollout; the worlds start empty with each message.
    ticks : int
        Ticks of a rollout.
    rollouts : int
        Rollouts, each followed by an update, per message.
    seconds_per_message : float
        Real time that a message should take its node: the server asks for as many rollouts as fill
        it on that node, and for ``rollouts`` only in its first message. 0: always for ``rollouts``.
    peers : str
        What decides for the other agents: ``self`` (this node's own actor) or a heuristic.
    """

    worlds: int = 16
    warmup: int = 100
    ticks: int = 256
    rollouts: int = 2
    seconds_per_message: float = 0.0
    peers: str = SELF

    def __post_init__(self) -> None:
        for name in ("worlds", "ticks", "rollouts"):
            require_number(f"training.{name}", getattr(self, name), at_least=1)
        for name in ("warmup", "seconds_per_message"):
            require_number(f"training.{name}", getattr(self, name), at_least=0)
        require_choice("training.peers", self.peers, (SELF, *POLICIES))

    @property
    def most_rollouts(self) -> int:
        """Rollouts that a message may ask for."""
        return max(self.rollouts, MOST_ROLLOUTS) if self.seconds_per_message else self.rollouts

    @property
    def most_steps(self) -> int:
        """Decisions behind one message, at most: one per world and tick."""
        return self.worlds * self.ticks * self.most_rollouts


@dataclass
class WorldConfig:
    """Where the nodes act while they train.

    Parameters
    ----------
    kind : str
        ``own``: each in copies of the network of its own. ``shared``: all in one, that of
        :mod:`fauno_flwr.shared_world`. ``gym``: not in a network at all, but each in an
        environment of gymnasium.
    address : str
        Of a shared world: where the service listens, as in ``192.0.2.10:9100``.
    heuristic : str
        Decides in a shared world for the nodes that have deployed no actor yet.
    keep : int
        Ticks for which a shared world keeps what an agent has decided.
    patience : float
        Seconds for which a node tries to reach a shared world that does not answer.
    env_id : str
        Of ``gym``: the environment, as :func:`gymnasium.make` takes it (``package:Name-v0``).
    nodes : int
        Of ``gym``: nodes that learn.
    """

    kind: str = OWN
    address: str = ""
    heuristic: str = "sed"
    keep: int = 16384
    patience: float = 60.0
    env_id: str = ""
    nodes: int = 4

    def __post_init__(self) -> None:
        require_choice("world.kind", self.kind, WORLDS)
        require_number("world.nodes", self.nodes, at_least=1)
        require_choice("world.heuristic", self.heuristic, POLICIES)
        require_number("world.keep", self.keep, at_least=1)
        require_number("world.patience", self.patience, above=0)
        if self.address:
            require_address("world.address", self.address)


@dataclass
class FederationConfig:
    """The asynchronous strategy and its nodes.

    Parameters
    ----------
    share : str
        What travels and is merged: the ``critic`` (FAuNO), the whole ``model``, or ``nothing``:
        the nodes report their critics, but keep their own (independent learners).
    versions : int
        Versions to make.
    buffer_size : float
        K: a whole number of nodes, or a fraction of them below 1.
    refill : str
        When a node that has answered gets its next message: at once, with each ``reply``, or with
        the next ``version``; with K = all nodes, the latter is synchronous training.
    server_rate : float
        Server learning rate.
    staleness_exponent : float
        An update from tau versions ago weighs ``(1 + tau)^-staleness_exponent``.
    merge : str
        One of ``mean``, ``trimmed-mean``, ``median``, ``norm-filtered``.
    compression : str
        How the nodes' updates travel: ``none``; ``top-k``, the largest values; ``8-bit``, levels.
        What is left out goes into the next message: :mod:`strategies.compression`.
    top_k : float
        Of ``top-k``: fraction of the values that travels.
    checkpoints : str
        Folder for the state of training after each version, absolute; empty for none. A run that
        finds one there goes on from it.
    ttl : float
        Seconds after which an unanswered message counts as failed. If messages are sized by time,
        the most: four times as long as a node took for its last one, 60 at least, are enough then.
    timeout : float
        Seconds after which training ends with the versions made so far.
    wait_for_nodes : float
        Seconds to wait until there is a SuperNode for every agent.
    collect_actors : bool
        Ask the nodes for their actors at the end, for one joint evaluation. Nothing but critics
        leaves a node otherwise; a node refuses with ``share-actor=false`` in its node config.
    """

    share: str = "critic"
    versions: int = 40
    buffer_size: float = 0.5
    refill: str = ON_REPLY
    server_rate: float = 1.0
    staleness_exponent: float = 0.0
    merge: str = "mean"
    compression: str = NONE
    top_k: float = 0.1
    checkpoints: str = ""
    ttl: float = 600.0
    timeout: float = 3600.0
    wait_for_nodes: float = 120.0
    collect_actors: bool = False

    def __post_init__(self) -> None:
        require_choice("federation.share", self.share, SHARES)
        require_number("federation.versions", self.versions, at_least=1)
        require_buffer_size(self.buffer_size, "federation.buffer_size")
        require_choice("federation.refill", self.refill, (ON_REPLY, ON_VERSION))
        for name in ("server_rate", "ttl", "timeout", "wait_for_nodes"):
            require_number(f"federation.{name}", getattr(self, name), above=0)
        require_number("federation.staleness_exponent", self.staleness_exponent, at_least=0)
        require_choice("federation.merge", self.merge, MERGE_RULES)
        require_choice("federation.compression", self.compression, COMPRESSIONS)
        require_number("federation.top_k", self.top_k, above=0, at_most=1)
        if self.checkpoints and not Path(self.checkpoints).is_absolute():
            raise ConfigError(
                f"federation.checkpoints is {self.checkpoints!r}: must be an absolute path"
            )

    def build_compression(self) -> Compression | None:
        """The compression of both ends; None if the arrays travel as they are."""
        if self.compression == TOP_K:
            return TopK(self.top_k)
        return Int8() if self.compression == INT8 else None


@dataclass
class CosimConfig:
    """One shared network under virtual time; see :mod:`fauno_flwr.cosim.grid`.

    Parameters
    ----------
    server : str
        Name of the node that hosts the server; empty: the network's server, or else its fastest
        node.
    training_work : float
        Instructions that a node executes for one decision in one pass of an update.
    share_with_tasks : bool
        Whether messages share the links with the tasks on them.
    slowdown : str
        Nodes whose updates take longer, as in ``rpi_3 10,nuc_0 2``: a name and a factor.
    """

    server: str = ""
    training_work: float = 5e5
    share_with_tasks: bool = True
    slowdown: str = ""

    def __post_init__(self) -> None:
        require_number("cosim.training_work", self.training_work, at_least=0)
        self._factors()

    def _factors(self) -> dict[str, float]:
        factors = {}
        for part in filter(None, (part.strip() for part in self.slowdown.split(","))):
            name, _, factor = (word.strip() for word in part.rpartition(" "))
            try:
                factors[name] = float(factor)
            except ValueError:
                raise ValueError(
                    f"cosim.slowdown is {self.slowdown!r}: must be names and factors, such as "
                    f"rpi_3 10,nuc_0 2 (not {part!r})"
                ) from None
            require_number(
                f"cosim.slowdown: factor of {name.strip()}", factors[name.strip()], above=0
            )
        return factors

    def slowdowns(self, names: Sequence[str]) -> list[float]:
        """Factor of each node; ``ValueError`` for a name that is not among `names`."""
        factors = self._factors()
        for name in (*factors, *filter(None, [self.server])):
            require_choice("cosim: node", name, names)
        return [factors.get(name, 1.0) for name in names]


@dataclass
class EvaluationConfig:
    """The joint evaluation in one shared world, and the heuristics beside it.

    Parameters
    ----------
    worlds : int
        Worlds with different arrivals; the same ones for every policy.
    warmup, window : int
        Ticks before the measured window, and of the window.
    seed : int
        Of the first world; never used in training.
    policies : list of str
        Heuristics in the table.
    greedy : bool
        Whether the agents take their most probable action instead of a sampled one.
    """

    worlds: int = 16
    warmup: int = 600
    window: int = 2000
    seed: int = 1_000_000
    policies: list[str] = field(
        default_factory=lambda: ["sed", "threshold", "lq", "random", "local"]
    )
    greedy: bool = True

    def __post_init__(self) -> None:
        for name in ("worlds", "window"):
            require_number(f"evaluation.{name}", getattr(self, name), at_least=1)
        require_number("evaluation.warmup", self.warmup, at_least=0)
        require_number("evaluation.seed", self.seed, at_least=0, at_most=LARGEST_SEED)
        for policy in self.policies:
            require_choice("evaluation.policies", policy, POLICIES)

    @property
    def seeds(self) -> range:
        """Seeds of the worlds."""
        return range(self.seed, self.seed + self.worlds)


@dataclass
class RunConfig:
    """Everything that a run depends on."""

    seed: int = 1
    topology: TopologySpec = field(default_factory=TopologySpec)
    workload: WorkloadSpec = field(default_factory=WorkloadSpec)
    physics: PhysicsSpec = field(default_factory=PhysicsSpec)
    reward: RewardSpec = field(default_factory=RewardSpec)
    observation: str = "full"
    dynamics: DynamicsSpec = field(default_factory=DynamicsSpec)
    agent: AgentConfig = field(default_factory=AgentConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    world: WorldConfig = field(default_factory=WorldConfig)
    federation: FederationConfig = field(default_factory=FederationConfig)
    cosim: CosimConfig = field(default_factory=CosimConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        require_number("seed", self.seed, at_least=0, at_most=LARGEST_SEED)
        require_observation(self.observation)

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

    def build_scenario(self) -> Scenario:
        """Compile the world of this run, and check what depends on more than one group."""
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
        if self.agent.algorithm == DDQN and self.federation.share == CRITIC:
            raise ConfigError(
                f"federation.share is {CRITIC!r}: must be {MODEL} or {NOTHING} with "
                f"agent.algorithm={DDQN}, which has no critic"
            )
        if self.federation.buffer_size > agents:
            raise ConfigError(
                f"federation.buffer_size is {self.federation.buffer_size:g}: must be at most "
                f"{agents}, the number of nodes that learn"
            )

    def to_yaml(self) -> str:
        """All settings as YAML; :func:`fauno_flwr.config.loading.from_yaml` reads it back."""
        return str(OmegaConf.to_yaml(OmegaConf.structured(self)))


def require_address(name: str, address: str) -> None:
    """Raise ``ValueError`` unless an address is of the form HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ValueError(f"{name} is {address!r}: must be HOST:PORT, as in 192.0.2.10:9100")

"""The settings of the strategy and its nodes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from fauno_flwr.config import rules
from fauno_flwr.config.agent import CRITIC, NOTHING, SHARES
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.privacy import CENTRAL, PrivacyConfig
from sim_env.errors import (
    Use,
    no_effect,
    require_choice,
    require_effect,
    require_number,
    with_kind,
    without_kind,
)
from strategies.buffered_async import ON_REPLY, ON_VERSION, require_buffer_size
from strategies.gossip_node import METROPOLIS, MIXINGS, PUSH_SUM

MERGINGS = MANAGER, GOSSIP = ("manager", "gossip")
# What a gossip does not do.
MANAGED = (
    *("merge", "server_optimizer", "compression", "checkpoints"),
    *("max_norm", "norm_factor", "weight_factor"),
)
GRAPHS = TOPOLOGY, RING, RANDOM = ("topology", "ring", "random")


@dataclass
class FederationConfig:
    """The asynchronous strategy and its nodes.

    Parameters
    ----------
    share : str
        What travels and is merged: the ``critic`` (FAuNO), the whole ``model``, or ``nothing``:
        the nodes report their critics, but keep their own (independent learners).
    start : str
        Absolute path of the shared parameters of another run, ``checkpoints/critic.safetensors`` in
        its folder: they are version 0, and the first that each node receives. Empty: initial ones.
    versions : int
        Versions to make.
    buffer_size : int or float
        K: an integer is a number of nodes, a float a fraction of them (1.0: all), rounded up.
    refill : str
        When a node that has reported gets its next message: with each ``reply``, at once, or with
        the next ``version``; with K = all nodes, the latter is synchronous training. In a gossip:
        when it trains again: at once, or when it has merged K neighbours, or `ttl` is over.
    merging : str
        Who merges: the ``manager``, which is the server, or the nodes by ``gossip``, in
        co-simulation: there is no server then, each node sends its update to its neighbours, and
        merges theirs as soon as K of them are in its buffer. A version is as many trainings as
        there are nodes, and K counts neighbours. For other carriers see :class:`strategies.Gossip`.
    graph : str
        The neighbours in a gossip: those of the ``topology``, a ``ring``, or ``random`` nodes,
        drawn anew for each update.
    peers : int
        Number of ``random`` nodes.
    mixing : str
        Weights in a gossip: ``metropolis``, by degree and steps, or ``push-sum``, which keeps the
        mean of all models on directed graphs too, such as the one of ``random`` nodes; see
        :mod:`strategies.gossip_node`.
    staleness : str or mapping
        Weight of an update by its staleness: ``constant``, ``polynomial``, ``hinge``, ``cut-off``,
        or one's own; see :mod:`fauno_flwr.config.rules` and :mod:`strategies.staleness`.
    merge : str or mapping
        How updates are merged: ``mean``, ``trimmed-mean``, ``median``, ``norm-filtered``, or
        one's own; see :mod:`strategies.merge`.
    server_optimizer : str or mapping
        What makes the next version of the merged update: ``sgd``, ``adam``, or one's own; see
        :mod:`strategies.optimizers`.
    compression : str or mapping
        How the nodes' updates travel: ``none``, ``top-k`` or ``8-bit``. What an update leaves out
        is added to the next one; see :mod:`strategies.compression`.
    privacy : PrivacyConfig
        Differential privacy of the shared parameters.
    max_norm : float
        Largest Euclidean norm of an update; the guard rejects a larger one.
    norm_factor : float
        Largest norm of an update in multiples of the usual one, which the server learns from all
        nodes: a larger one is scaled down to it. At least 1.
    weight_factor : float
        Largest weight of an update in multiples of the median of those that make a version with it.
        All nodes are asked for the same time or data, yet each reports its steps itself. At least
        1.
    checkpoints : str
        Absolute path of a folder for the state of training after each version; empty: none. A run
        that finds a checkpoint there resumes from it, if it has the same settings: only those of
        :data:`fauno_flwr.federation.checkpoints.MAY_CHANGE` may differ.
    replace_lost_agents : bool
        Resume although nodes have lost their agents: new ones take their places. Otherwise such a
        training is refused.
    bind_keys : bool
        Bind the place of each agent to the key of the first SuperNode in it: no other one ever gets
        it. For deployments whose SuperNodes have keys of their own; without one, a SuperNode that
        restarts has a new key, and could not return.
    ttl : float
        Seconds after which an unanswered message counts as failed. If messages are sized by time
        (``training.seconds_per_message``), this is the upper bound: a node is given four times the
        duration of its last message, and at least 60 s.
    timeout : float
        Seconds after which training ends with the versions made so far.
    wait_for_nodes : float
        Seconds to wait until there is a SuperNode for every agent.
    collect_actors : bool
        Query the actors of the nodes at the end, for one joint evaluation. Otherwise nothing but
        critics leaves a node. A node with ``share-actor=false`` in its node config refuses.
    """

    uses: ClassVar[dict[str, Use]] = {
        "replace_lost_agents": Use("checkpoints", bool),
        "start": without_kind("share", NOTHING),
        **dict.fromkeys(MANAGED, with_kind("merging", MANAGER)),
        **dict.fromkeys(("graph", "mixing"), with_kind("merging", GOSSIP)),
        "peers": with_kind("graph", RANDOM),
    }

    share: str = CRITIC
    start: str = ""
    versions: int = 40
    buffer_size: int | float = 0.5
    refill: str = ON_REPLY
    merging: str = MANAGER
    graph: str = TOPOLOGY
    peers: int = 2
    mixing: str = METROPOLIS
    staleness: Any = "constant"
    merge: Any = "mean"
    server_optimizer: Any = "sgd"
    compression: Any = "none"
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    max_norm: float = 1e6
    norm_factor: float = 5.0
    weight_factor: float = 3.0
    checkpoints: str = ""
    replace_lost_agents: bool = False
    bind_keys: bool = False
    ttl: float = 600.0
    timeout: float = 3600.0
    wait_for_nodes: float = 120.0
    collect_actors: bool = False

    def __post_init__(self) -> None:
        require_choice("federation.merging", self.merging, MERGINGS)
        require_choice("federation.graph", self.graph, GRAPHS)
        require_choice("federation.mixing", self.mixing, MIXINGS)
        require_number("federation.peers", self.peers, at_least=1)
        require_effect("federation.", self, self.uses)
        require_choice("federation.share", self.share, SHARES)
        require_number("federation.versions", self.versions, at_least=1)
        require_buffer_size(self.buffer_size, "federation.buffer_size")
        require_choice("federation.refill", self.refill, (ON_REPLY, ON_VERSION))
        rules.validate(rules.STALENESS, self.staleness)
        rules.validate(rules.MERGE, self.merge)
        rules.validate(rules.SERVER_OPTIMIZER, self.server_optimizer)
        rules.validate(rules.COMPRESSION, self.compression)
        self._require_mean()
        self._require_gossip()
        for name in ("max_norm", "ttl", "timeout", "wait_for_nodes"):
            require_number(f"federation.{name}", getattr(self, name), above=0)
        for name in ("norm_factor", "weight_factor"):
            require_number(f"federation.{name}", getattr(self, name), at_least=1)
        for name in ("checkpoints", "start"):
            path = getattr(self, name)
            if path and not Path(path).is_absolute():
                raise ConfigError(f"federation.{name} is {path!r}: must be an absolute path")

    def _require_gossip(self) -> None:
        """Check what has no effect in a gossip, beside :attr:`uses`."""
        if self.mixing == PUSH_SUM and self.staleness != "constant":
            name, value = "federation.staleness", self.staleness
            raise ConfigError(no_effect(name, value, "federation.mixing", PUSH_SUM))
        if self.merging != GOSSIP:
            return
        if self.refill == ON_REPLY and self.ttl != FederationConfig.ttl:
            raise ConfigError(no_effect("federation.ttl", self.ttl, "federation.refill", ON_REPLY))
        if self.privacy.kind == CENTRAL:
            name = "federation.privacy.kind"
            raise ConfigError(no_effect(name, CENTRAL, "federation.merging", GOSSIP))

    def _require_mean(self) -> None:
        """Check that a private version is the plain mean: its noise is for what one can change."""
        if self.privacy.kind != CENTRAL:
            return
        if rules.split(rules.MERGE, self.merge) != ("mean", {}):
            raise ConfigError(
                f"federation.merge is {self.merge!r}: must be mean with "
                f"federation.privacy.kind={CENTRAL}"
            )
        for name in ("norm_factor", "weight_factor"):
            value = getattr(self, name)
            if value != getattr(FederationConfig, name):
                raise ConfigError(
                    no_effect(f"federation.{name}", value, "federation.privacy.kind", CENTRAL)
                )

"""Local training: what a node does for one train message, wherever it runs.

The Flower client does it in one go; in co-simulation the same steps are spread over virtual time,
and the updates of several agents are computed at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ArrayRecord, MetricRecord, RecordDict

from fauno_flwr.config import rules
from fauno_flwr.config.agent import NOTHING
from fauno_flwr.config.privacy import LOCAL
from fauno_flwr.config.settings import MOST_ROLLOUTS, RunConfig
from fauno_flwr.federation.protocol import ARRAYS, BASE_VERSION, CONFIG, ROLLOUTS, read
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.metrics import train_metrics
from fauno_flwr.learning.transitions import Decisions
from sim_env.errors import require_whole
from strategies.arrays import Arrays, to_arrays, to_record
from strategies.compression import compress_update
from strategies.private_updates import describe, privatize


@dataclass
class Progress:
    """State of an agent's training, beside its networks, that lasts from message to message.

    Parameters
    ----------
    messages : int
        Train messages answered.
    version : int
        Version of the shared parameters that the agent last trained from; -1 before the first.
    residual : array of float64, optional
        What compression has left out so far; see :func:`strategies.compress_update`.
    """

    messages: int = 0
    version: int = -1
    residual: np.ndarray | None = None


@dataclass
class LocalTraining:
    """The training of one agent for one message.

    Call :meth:`begin`, then :meth:`record` for every rollout until :attr:`complete`, then
    :meth:`update_record` and :meth:`metrics`.

    Parameters
    ----------
    config : RunConfig
    agents : AgentStack
        Stack that holds the agent.
    agent : int
        Its place in the stack.
    progress : Progress
        Updated in place.
    content : RecordDict
        Content of the train message.
    noise_seed : sequence of int, optional
        Seed of the noise of ``federation.privacy.kind=local``; the number of the message is added.
        None: that of the operating system.
    """

    config: RunConfig
    agents: AgentStack
    agent: int
    progress: Progress
    content: RecordDict
    noise_seed: Sequence[int] | None = None
    version: int = field(init=False)
    rollouts: int = field(init=False)
    updates: list[dict[str, float]] = field(init=False, default_factory=list)
    rewards: list[float] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        message = self.content.config_records[CONFIG]
        self.version = read(message, BASE_VERSION, int)
        self.rollouts = self.config.training.rollouts
        if ROLLOUTS in message:
            self.rollouts = read(message, ROLLOUTS, int)
        most = max(self.config.training.rollouts, MOST_ROLLOUTS)
        require_whole(f"{ROLLOUTS} in a message", self.rollouts, at_least=1, at_most=most)

    @property
    def base(self) -> dict[str, np.ndarray]:
        """The shared parameters of the message."""
        return to_arrays(self.content.array_records[ARRAYS])

    @property
    def learning_rate(self) -> float:
        """Learning rate of this message: it decays linearly with the versions of the run."""
        decay = 1 - self.version / self.config.federation.versions
        return self.config.agent.learning_rate * decay

    @property
    def complete(self) -> bool:
        """Whether every rollout has been recorded."""
        return len(self.updates) >= self.rollouts

    def begin(self) -> bool:
        """Take over the shared parameters; returns whether the agent acts differently now.

        An agent that already trained from this version keeps what it has learned since.
        """
        share = self.config.federation.share
        is_new = self.version != self.progress.version and share != NOTHING
        self.progress.version = self.version
        return is_new and self.agents.set_shared(self.base, self.agent)

    def record(self, rollout: Decisions, update: dict[str, float]) -> None:
        """Record a rollout and the metrics of the update that followed it."""
        self.rewards.append(float(rollout.reward.mean()) if len(rollout) else 0.0)
        self.updates.append(update)

    def update_record(self) -> ArrayRecord:
        """Return what travels to the server, and count the message as answered."""
        shared = self._noisy(self.agents.get_shared(self.config.federation.share, self.agent))
        compression = rules.build(rules.COMPRESSION, self.config.federation.compression)
        self.progress.messages += 1
        if compression is None:
            return to_record(shared)
        arrays, self.progress.residual = compress_update(
            compression, shared, self.base, self.progress.residual
        )
        return arrays

    def _noisy(self, shared: Arrays) -> Arrays:
        """Return shared parameters as they may leave the node."""
        privacy, seed = self.config.federation.privacy, self.noise_seed
        if privacy.kind != LOCAL:
            return shared
        entropy = (
            None
            if seed is None
            else np.random.SeedSequence(seed, spawn_key=(self.progress.messages,))
        )
        return to_arrays(
            privatize(
                to_record(shared),
                self.content.array_records[ARRAYS],
                privacy.clip,
                privacy.noise_multiplier,
                np.random.default_rng(entropy),
            )
        )

    def metrics(self, environment: Mapping[str, float], seconds: float) -> MetricRecord:
        """Return the metrics of the reply; parameters as of :func:`train_metrics`."""
        metrics = train_metrics(
            self.updates, self.rewards, self.progress.messages, environment, seconds
        )
        privacy = self.config.federation.privacy
        if privacy.kind == LOCAL:
            metrics.update(describe(privacy.clip, privacy.noise_multiplier))
        return metrics

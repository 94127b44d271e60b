"""Settings of the agents: one dataclass for each algorithm."""

from dataclasses import dataclass
from typing import Any, ClassVar

from fauno_flwr.config.errors import ConfigError
from sim_env import plugins
from sim_env.errors import Use, require_choice, require_effect, require_number, with_kind

SHARES = CRITIC, MODEL, NOTHING = ("critic", "model", "nothing")
PPO, DDQN = "ppo", "ddqn"
CRITICS = ACTION, STATE = ("action", "state")
EQUIVARIANT, PADDED = "equivariant", "padded"
ALGORITHM_GROUP, NETWORK_GROUP = "fauno.algorithms", "fauno.networks"  # of entry points


@dataclass
class AgentConfig:
    """What the settings of every algorithm have in common.

    Parameters
    ----------
    algorithm : str
        ``ppo``, ``ddqn`` (the stand-in for SCOF), the name of an entry point, or the import path
        of a subclass of :class:`fauno_flwr.learning.agents.AgentStack`.
    network : str
        ``equivariant``, ``padded``, the name of an entry point, or the import path of a
        :class:`fauno_flwr.learning.networks.Networks`.
    hidden : int
        Width of the two hidden layers of each network.
    learning_rate : float
        Learning rate of Adam; it decays linearly to 0 with the versions of the run.
    gamma : float
        Discount per decision.
    epochs, minibatches : int
        Passes over a rollout, and minibatches of one pass.
    max_grad_norm : float
        Largest norm of a gradient, of each network by itself.
    prior : float
        Weight of the expected delay in the initial actor: 0 starts from random scores, a larger
        one prefers the shorter delay, as ShortestExpectedDelay does. It has an effect in
        equivariant networks whose observation contains the delay.
    """

    shares: ClassVar[tuple[str, ...]] = SHARES  # what `federation.share` may be
    uses: ClassVar[dict[str, Use]] = {
        "prior": Use("network", lambda network: network != PADDED, neutral=0.0)
    }

    algorithm: str = PPO
    network: str = EQUIVARIANT
    hidden: int = 32
    learning_rate: float = 1e-3
    gamma: float = 0.9
    epochs: int = 4
    minibatches: int = 4
    max_grad_norm: float = 0.5
    prior: float = 10.0

    def __post_init__(self) -> None:
        plugins.require_name("agent.algorithm", self.algorithm, CONFIGS, ALGORITHM_GROUP)
        plugins.require_name(
            "agent.network", self.network, dict.fromkeys((EQUIVARIANT, PADDED)), NETWORK_GROUP
        )
        for name in ("hidden", "epochs", "minibatches"):
            require_number(f"agent.{name}", getattr(self, name), at_least=1)
        for name in ("learning_rate", "max_grad_norm"):
            require_number(f"agent.{name}", getattr(self, name), above=0)
        require_number("agent.gamma", self.gamma, at_least=0, at_most=1)
        require_number("agent.prior", self.prior, at_least=0)
        require_effect("agent.", self, self.uses)


@dataclass
class PPOConfig(AgentConfig):
    """PPO: :mod:`fauno_flwr.learning.ppo`; further parameters as of :class:`AgentConfig`.

    Parameters
    ----------
    gae_lambda : float
        Lambda of generalised advantage estimation.
    clip : float
        Clip range of the probability ratio.
    entropy : float
        Weight of the entropy bonus.
    critic : str
        ``action``: it values every action, and has a say in the policy; ``state``: it values the
        state, as the paper's does, and serves as the baseline of the advantages only.
    temperature : float
        T of the policy ``softmax(actor(s, a) + Q(s, a) / T)`` with a critic of actions, in the
        units of the reward.
    learn_actor : bool
        Whether the actor learns. With a critic of actions it need not: the critic acts alone then,
        beside the initial actor.
    critic_rate : float
        Learning rate of the critic, relative to that of the actor.
    """

    uses: ClassVar[dict[str, Use]] = {
        **AgentConfig.uses,
        "temperature": with_kind("critic", ACTION),
        "learn_actor": with_kind("critic", ACTION),
    }

    learning_rate: float = 3e-3
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy: float = 0.01
    critic: str = ACTION
    temperature: float = 0.7
    learn_actor: bool = True
    critic_rate: float = 3.0

    def __post_init__(self) -> None:
        require_choice("agent.critic", self.critic, CRITICS)
        for name in ("temperature", "critic_rate"):
            require_number(f"agent.{name}", getattr(self, name), above=0)
        super().__post_init__()
        require_number("agent.gae_lambda", self.gae_lambda, at_least=0, at_most=1)
        require_number("agent.clip", self.clip, above=0)
        require_number("agent.entropy", self.entropy, at_least=0)


@dataclass
class DDQNConfig(AgentConfig):
    """Double DQN: :mod:`fauno_flwr.learning.ddqn`; further parameters as of :class:`AgentConfig`.

    Parameters
    ----------
    replay : int
        Decisions in the replay buffer.
    target_period : int
        Gradient steps between two copies of the network to the target network.
    epsilon : float
        Final probability of a random action; it starts at 1.
    epsilon_steps : int
        Gradient steps of the linear decay of epsilon.
    """

    shares: ClassVar[tuple[str, ...]] = (MODEL, NOTHING)  # it has no critic

    algorithm: str = DDQN
    learning_rate: float = 1e-2
    prior: float = 0.0
    replay: int = 10_000
    target_period: int = 64
    epsilon: float = 0.05
    epsilon_steps: int = 40

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("target_period", "epsilon_steps"):
            require_number(f"agent.{name}", getattr(self, name), at_least=1)
        require_number("agent.epsilon", self.epsilon, at_least=0, at_most=1)
        require_number("agent.replay", self.replay, at_least=2)


CONFIGS: dict[str, type[AgentConfig]] = {PPO: PPOConfig, DDQN: DDQNConfig}


def config_class(algorithm: Any) -> type[AgentConfig]:
    """Return the dataclass of an algorithm's settings.

    An algorithm that is not built in has it as the class attribute ``Config``.

    Raises
    ------
    ConfigError
        If there is no such algorithm, or it cannot be imported.
    """
    try:
        found = plugins.find("agent.algorithm", algorithm, CONFIGS, ALGORITHM_GROUP)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if algorithm not in CONFIGS:
        found = getattr(found, "Config", None)
    if not isinstance(found, type) or not issubclass(found, AgentConfig):
        raise ConfigError(
            f"agent.algorithm is {algorithm!r}: must have a class attribute Config, a subclass of "
            f"{AgentConfig.__module__}.{AgentConfig.__name__}"
        )
    return found

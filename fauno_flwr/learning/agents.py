"""A agents side by side, each with its own parameters, optimiser state and gradient clipping.

A = 1 in a Flower client; A = all agents in co-simulation and in the joint evaluation.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from fauno_flwr.config.agent import AgentConfig
from fauno_flwr.learning.adam import StackedAdam
from fauno_flwr.learning.networks import (
    Actor,
    PaddedActor,
    Sizes,
    Widths,
    find_networks,
)
from fauno_flwr.learning.policy import ActionScores, ActorPolicy
from fauno_flwr.learning.rollout import Weights
from fauno_flwr.learning.transitions import Decisions
from sim_env.engine.features import find_encoding

Arrays = dict[str, np.ndarray]


class Learner(Protocol):
    """A copy of one agent that learns on its own, in a thread perhaps."""

    def learn(
        self, decisions: Decisions, rate: float, rng: np.random.Generator
    ) -> dict[str, float]:
        """Update the copy on these decisions; return the metrics of the update."""

    def write(self) -> None:
        """Replace the agent in the stack by this copy."""


class AgentStack(ABC):
    """A agents of one algorithm; all start with the same weights.

    A subclass is an algorithm; ``agent.algorithm`` may be its import path. It names its settings
    in ``Config`` and its trained networks in ``TRAINED``.

    Parameters
    ----------
    agents : int
        Number of agents A.
    config : AgentConfig
        Settings of the algorithm.
    seed : int
        Seed of the initial weights.
    observation : str or Widths, default "full"
        Observation by name, or the widths of its features; it sets the widths of the networks.
    slots : int, default 1
        Largest number of slots in the network of nodes; only padded networks depend on it.

    Attributes
    ----------
    actor : EquivariantActor or PaddedActor
        Scores the actions.
    networks : dict of str to nn.Module
        All networks, including the actor.
    optimizers : dict of str to StackedAdam
        Optimisers of the trained networks, by the same names.
    """

    Config: ClassVar[type[AgentConfig]] = AgentConfig
    TRAINED: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        agents: int,
        config: AgentConfig,
        seed: int,
        observation: str | Widths = "full",
        slots: int = 1,
    ) -> None:
        self.agents, self.config, self.observation, self.slots = agents, config, observation, slots
        self.encoding: Widths = (
            find_encoding(observation) if isinstance(observation, str) else observation
        )
        generator = torch.Generator().manual_seed(seed)
        self.actor = self._make_actor(generator)
        self.networks: dict[str, nn.Module] = {"actor": self.actor, **self._others(generator)}
        self.optimizers = {
            name: StackedAdam(self.networks[name], config.max_grad_norm) for name in self.TRAINED
        }

    @property
    def sizes(self) -> Sizes:
        """Sizes of the networks."""
        config = self.config
        return Sizes(self.agents, self.encoding, self.slots, config.hidden, config.prior)

    def _make_actor(self, generator: torch.Generator) -> Actor:
        return find_networks(self.config.network).actor(self.sizes, generator)

    @property
    def acting(self) -> dict[str, float]:
        """Names of the networks whose scores, with these weights, add up to those of actions."""
        return {"actor": 1.0}

    # ---- what an algorithm adds ----------------------------------------------------------------

    @abstractmethod
    def _others(self, generator: torch.Generator) -> dict[str, nn.Module]:
        """Make the networks other than the actor."""

    @abstractmethod
    def exploration(self) -> tuple[bool, np.ndarray]:
        """Return whether actions are sampled from the softmax, and epsilon per agent, (A,)."""

    @abstractmethod
    def learn(
        self,
        batches: list[Decisions],
        rate: float | np.ndarray,
        rngs: list[np.random.Generator],
    ) -> list[dict[str, float]]:
        """Update agents whose batches are of similar size; parameters: :meth:`update`."""

    @abstractmethod
    def get_shared(self, share: str, agent: int = 0) -> Arrays:
        """Return the parameters that an agent shares, by name; `share` is ``federation.share``."""

    @abstractmethod
    def set_shared(self, arrays: Mapping[str, np.ndarray], agent: int = 0) -> bool:
        """Replace the shared parameters; returns whether the agent acts differently now."""

    # ---- learning ------------------------------------------------------------------------------

    def update(
        self,
        batches: list[Decisions],
        rate: float | np.ndarray,
        rngs: list[np.random.Generator],
    ) -> list[dict[str, float]]:
        """Update every agent on its own decisions.

        Parameters
        ----------
        batches : list of Decisions
            One batch per agent.
        rate : float or array of float, shape (A,)
            Learning rate, common or per agent.
        rngs : list of Generator
            One generator per agent: an agent learns the same alone and beside others.

        Returns
        -------
        list of dict
            Per agent ``steps`` (decisions trained on) and the metrics of the algorithm.
        """
        groups = self.groups(batches)
        if len(groups) == 1:
            return self.learn(batches, rate, rngs)
        rates = np.broadcast_to(np.asarray(rate, np.float32), self.agents)
        metrics: dict[int, dict[str, float]] = {}
        for group in groups:
            some = self.select(group)
            learned = some.learn(
                [batches[a] for a in group], rates[group], [rngs[a] for a in group]
            )
            for place, agent in enumerate(group):
                self.put(agent, some, place)
                metrics[agent] = learned[place]
        return [metrics[agent] for agent in range(self.agents)]

    @property
    def learns_one_by_one(self) -> bool:
        """Whether agents learn as fast one by one, each by its :meth:`learner`."""
        return False

    def learner(self, agent: int) -> Learner:
        """Return a copy of an agent that learns on its own."""
        return StackOfOne(self, agent)

    def groups(self, batches: list[Decisions]) -> list[list[int]]:
        """Group agents to learn side by side, so that there is little padding."""
        return alike(batches)

    # ---- parameters ----------------------------------------------------------------------------

    def get_actor(self, agent: int = 0) -> Arrays:
        """Return the parameters that an agent acts with, by name.

        Where several networks act, a name begins with that of its network: ``critic.weights.0``.
        """
        if len(self.acting) == 1:
            return get(self.actor, agent)
        return get_all({name: self.networks[name] for name in self.acting}, agent)

    def set_actor(self, arrays: Mapping[str, np.ndarray], agent: int = 0) -> None:
        """Replace the parameters that an agent acts with."""
        if len(self.acting) == 1:
            put(self.actor, arrays, agent)
        else:
            put_all({name: self.networks[name] for name in self.acting}, arrays, agent)

    def select(self, agents: Sequence[int]) -> Self:
        """Copy some of the agents into a new stack."""
        some = type(self)(len(agents), self.config, 0, self.observation, self.slots)
        for place, agent in enumerate(agents):
            some.put(place, self, agent)
        return some

    @torch.no_grad()
    def put(self, agent: int, other: Self, place: int = 0) -> None:
        """Replace an agent by a copy of another stack's, with its optimiser."""
        for mine, theirs in zip(self._tensors(), other._tensors(), strict=True):
            mine[agent] = theirs[place]

    def _tensors(self) -> list[Tensor]:
        """Return everything that training changes, each with a leading agent axis."""
        tensors: list[Tensor] = [
            p for network in self.networks.values() for p in network.parameters()
        ]
        for optimizer in self.optimizers.values():
            tensors += optimizer.state().values()
        return tensors

    def save(self) -> bytes:
        """Serialise everything that training changes."""
        file = io.BytesIO()
        torch.save(self._state(), file)
        return file.getvalue()

    def load(self, data: bytes) -> None:
        """Restore what :meth:`save` returned."""
        self._take_state(torch.load(io.BytesIO(data), weights_only=True))

    def _state(self) -> dict[str, Any]:
        return {
            "networks": {name: each.state_dict() for name, each in self.networks.items()},
            "optimizers": {name: each.state() for name, each in self.optimizers.items()},
            "acting": self.acting,
        }

    def _take_state(self, state: dict[str, Any]) -> None:
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load(state["optimizers"][name])

    # ---- acting --------------------------------------------------------------------------------

    def weights(
        self,
        agent_of_node: np.ndarray,
        greedy: bool,
        acting: Mapping[str, float] | None = None,
    ) -> Weights:
        """Return what acts as compiled code reads it: :meth:`policy`; by default :attr:`acting`."""
        layers = self._layers(self.acting if acting is None else acting, np.arange(self.agents))
        softmax, epsilon = (False, np.zeros(self.agents)) if greedy else self.exploration()
        return Weights(
            padded=isinstance(self.actor, PaddedActor),
            **layers,
            agent_of_node=np.asarray(agent_of_node, np.int32),
            softmax=softmax,
            epsilon=epsilon,
        )

    def refresh(self, weights: Weights, agents: Iterable[int]) -> None:
        """Update what :meth:`weights` has returned for :attr:`acting` to what some agents are now.

        Parameters
        ----------
        weights : Weights
            Not greedy.
        agents : iterable of int
        """
        chosen = np.array(list(agents), int)
        for name, layer in self._layers(self.acting, chosen).items():
            getattr(weights, name)[chosen] = layer
        weights.epsilon[chosen] = self.exploration()[1][chosen]

    def _layers(self, acting: Mapping[str, float], agents: np.ndarray) -> dict[str, Any]:
        """Return copies of the layers of some agents, by their names in :class:`Weights`."""
        networks = [(self.networks[name], weight) for name, weight in acting.items()]
        (first, middle, last), biases = side_by_side(networks, agents)
        width, features = self.encoding.local, self.encoding.destinations
        rest = first[:, width:]
        if isinstance(self.actor, PaddedActor):
            rest = rest.reshape(len(agents), self.slots, features + 1, -1)
            slot, present = rest[:, :, :features], rest[:, :, features]
            best = np.zeros_like(slot[:, 0])
        else:
            best = rest[:, features:]
            slot = (rest[:, :features] + best)[:, None]
            present = np.zeros_like(slot[:, :, 0])
        return {
            "local": first[:, :width].copy(),
            "slot": slot.copy(),
            "best": best.copy(),
            "present": present.copy(),
            "bias": biases[0],
            "middle": middle,
            "middle_bias": biases[1],
            "last": last.transpose(0, 2, 1).copy(),
            "last_bias": biases[2],
        }

    def policy(self, agent_of_node: np.ndarray | None = None, greedy: bool = False) -> ActorPolicy:
        """Return the current actors as a policy for a world.

        Parameters
        ----------
        agent_of_node : array of int, shape (N,), optional
            Actor of each node; default: the first actor for all.
        greedy : bool, default False
            Whether to take the best action instead of exploring as in training.
        """
        nodes = np.zeros(0) if agent_of_node is None else agent_of_node
        return ActorPolicy(self.weights(nodes, greedy))

    def scores(self, agent_of_node: np.ndarray) -> ActionScores:
        """Return how the agents weigh actions: the probabilities as in training, and values.

        Parameters
        ----------
        agent_of_node : array of int, shape (N,)
            Agent of each node.
        """
        acting, critic = ActorPolicy(self.weights(agent_of_node, greedy=False)), None
        if "critic" in self.acting:
            weights = self.weights(agent_of_node, greedy=True, acting={"critic": 1.0})
            critic = ActorPolicy(weights)
        return ActionScores(acting, critic)


class StackOfOne:
    """A copy of one agent of a stack, which learns as the stack does."""

    def __init__(self, stack: AgentStack, agent: int) -> None:
        self._stack, self._agent, self._copy = stack, agent, stack.select([agent])

    def learn(
        self, decisions: Decisions, rate: float, rng: np.random.Generator
    ) -> dict[str, float]:
        """Update the copy on these decisions; return the metrics of the update."""
        return self._copy.update([decisions], rate, [rng])[0]

    def write(self) -> None:
        """Replace the agent in the stack by this copy."""
        self._stack.put(self._agent, self._copy)


def side_by_side(
    networks: Sequence[tuple[nn.Module, float]], agents: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return copies of networks of equal sizes as one, whose output is their weighted sum.

    Parameters
    ----------
    networks : sequence of (StackedMLP, float)
        G networks of H hidden units, with their weights.
    agents : array of int, shape (A,)
        Of the stacks.

    Returns
    -------
    weights : list of array
        (A, inputs, G H), (A, G H, H): row g is for the H units of its own network, and
        (A, G H, outputs).
    biases : list of array
        (A, G H), (A, G H), (A, outputs).
    """

    def arrays(kind: str, layer: int) -> list[np.ndarray]:
        stacks = [getattr(network, kind)[layer].detach().numpy() for network, _ in networks]
        return [stack[agents] for stack in stacks]

    scales = [np.float32(scale) for _, scale in networks]
    last = [w * scale for w, scale in zip(arrays("weights", 2), scales, strict=True)]
    bias = [b * scale for b, scale in zip(arrays("biases", 2), scales, strict=True)]
    weights = [
        np.concatenate(arrays("weights", 0), axis=2),
        np.concatenate(arrays("weights", 1), axis=1),
        np.concatenate(last, axis=1),
    ]
    biases = [np.concatenate(arrays("biases", layer), axis=2)[:, 0] for layer in range(2)]
    return weights, [*biases, np.add.reduce(bias)[:, 0]]


def alike(batches: list[Decisions]) -> list[list[int]]:
    """Group agents by similar numbers of slots and decisions, so that there is little padding."""
    groups: dict[tuple[int, int], list[int]] = {}
    for agent, batch in enumerate(batches):
        size = max(8, batch.mask.shape[1] - 1).bit_length(), max(8, len(batch)).bit_length()
        groups.setdefault(size, []).append(agent)
    return [groups[size] for size in sorted(groups)]


def get_all(modules: Mapping[str, nn.Module], agent: int) -> Arrays:
    """Return the parameters of an agent in several networks: ``<network>.<name>``."""
    return {
        f"{part}.{name}": array
        for part, module in modules.items()
        for name, array in get(module, agent).items()
    }


def put_all(modules: Mapping[str, nn.Module], arrays: Mapping[str, np.ndarray], agent: int) -> None:
    """Replace what :func:`get_all` has returned; raise as :func:`put`."""
    for part, module in modules.items():
        prefix = f"{part}."
        own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        put(module, own, agent)


def get(module: nn.Module, agent: int) -> Arrays:
    """Return the parameters of an agent, by name."""
    return {name: p.detach()[agent].numpy().copy() for name, p in module.named_parameters()}


@torch.no_grad()
def put(module: nn.Module, arrays: Mapping[str, np.ndarray], agent: int) -> None:
    """Replace the parameters of an agent.

    Raises
    ------
    ValueError
        If their shapes are those of another network.
    """
    for name, p in module.named_parameters():
        if arrays[name].shape != p.shape[1:]:
            raise ValueError(
                f"{name} has the shape {arrays[name].shape}: must be {tuple(p.shape[1:])}; keep "
                f"the agent, the observation and, of padded networks, the largest number of slots "
                f"(agent.network=equivariant fits any)"
            )
        p[agent] = torch.from_numpy(np.array(arrays[name]))

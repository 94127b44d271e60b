"""A agents side by side: parameters, optimiser state and gradient clipping, each agent's own.

A = 1 in a Flower client; all agents of a network in the joint evaluation.
"""

import io
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fauno_flwr.config import MODEL, AgentConfig
from fauno_flwr.networks import EquivariantActor, PooledCritic
from fauno_flwr.rollout import LOOP, Weights, make_rows, make_scratch
from sim_env.features import OBSERVATIONS
from sim_env.observation import Observation
from sim_env.world import World

Arrays = dict[str, np.ndarray]


class StackedAdam:
    """Adam (Kingma and Ba 2015) on stacked parameters, with one step counter per agent.

    Parameters
    ----------
    module : nn.Module
        Parameters with a leading agent axis.
    max_norm : float
        The gradient of each agent is clipped to this norm.
    """

    BETAS, EPSILON = (0.9, 0.999), 1e-5  # the epsilon of the published PPO code, not of Adam

    def __init__(self, module: nn.Module, max_norm: float) -> None:
        self.parameters = list(module.parameters())
        self.max_norm = max_norm
        # One row per agent with all its parameters: a few large products instead of many small.
        agents = self.parameters[0].shape[0]
        self.first = torch.zeros(agents, sum(p[0].numel() for p in self.parameters))
        self.second = torch.zeros_like(self.first)
        self.steps = torch.zeros(agents)

    @torch.no_grad()
    def step(self, rate: Tensor, active: Tensor) -> None:
        """Step the agents for which `active` (A,) is true by `rate` (A,); the others keep all."""
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        g = torch.cat([gradient.flatten(1) for gradient in gradients], dim=1)
        g *= (self.max_norm / (g.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1.0)
        self.steps += active
        on = active.unsqueeze(1).to(g.dtype)  # 0 or 1: the others move by nothing
        steps = self.steps.clamp(min=1).unsqueeze(1)
        self.first.add_((g - self.first) * ((1 - self.BETAS[0]) * on))
        self.second.add_((g * g - self.second) * ((1 - self.BETAS[1]) * on))
        spread = (self.second / (1 - self.BETAS[1] ** steps)).sqrt_().add_(self.EPSILON)
        change = self.first / (1 - self.BETAS[0] ** steps) / spread * (on * rate.unsqueeze(1))
        sizes = [p[0].numel() for p in self.parameters]
        for p, part in zip(self.parameters, torch.split(change, sizes, dim=1), strict=True):
            p.sub_(part.reshape(p.shape))
            p.grad = None

    def state(self) -> dict[str, Tensor]:
        """Moments and counters."""
        return {"first": self.first, "second": self.second, "steps": self.steps}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


class Population:
    """Actors and critics of A agents; all agents start with the same weights.

    Parameters
    ----------
    agents : int
        A.
    config : AgentConfig
    seed : int
        Of the start.
    observation : str, default "full"
        What the agents see; it sets the widths of the networks.
    """

    def __init__(
        self, agents: int, config: AgentConfig, seed: int, observation: str = "full"
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.agents, self.config, self.observation = agents, config, observation
        encoding = OBSERVATIONS[observation]
        self.actor = EquivariantActor(agents, encoding, config.hidden, generator)
        self.critic = PooledCritic(agents, encoding, config.hidden, generator)
        self.actor_optimizer = StackedAdam(self.actor, config.max_grad_norm)
        self.critic_optimizer = StackedAdam(self.critic, config.max_grad_norm)

    def get_critic(self, agent: int = 0) -> Arrays:
        """Critic parameters of an agent, by name; this is what travels."""
        return _get(self.critic, agent)

    def set_critic(self, arrays: Mapping[str, np.ndarray], agent: int = 0) -> None:
        """Replace the critic parameters of an agent."""
        _set(self.critic, arrays, agent)

    def get_actor(self, agent: int = 0) -> Arrays:
        """Actor parameters of an agent, by name."""
        return _get(self.actor, agent)

    def set_actor(self, arrays: Mapping[str, np.ndarray], agent: int = 0) -> None:
        """Replace the actor parameters of an agent."""
        _set(self.actor, arrays, agent)

    def get_shared(self, share: str, agent: int = 0) -> Arrays:
        """What travels: the critic, or with ``share="model"`` the actor as well."""
        if share != MODEL:
            return self.get_critic(agent)
        parts = {"actor": self.get_actor(agent), "critic": self.get_critic(agent)}
        return {f"{part}.{name}": a for part, arrays in parts.items() for name, a in arrays.items()}

    def set_shared(self, arrays: Mapping[str, np.ndarray], agent: int = 0) -> None:
        """Take back what :meth:`get_shared` gave."""
        if not any(name.startswith("actor.") for name in arrays):
            self.set_critic(arrays, agent)
            return
        for part, module in (("actor.", self.actor), ("critic.", self.critic)):
            own = {n.removeprefix(part): a for n, a in arrays.items() if n.startswith(part)}
            _set(module, own, agent)

    def select(self, agents: Sequence[int]) -> "Population":
        """A population of copies of some of the agents."""
        some = Population(len(agents), self.config, 0, self.observation)
        for place, agent in enumerate(agents):
            some.put(place, self, agent)
        return some

    @torch.no_grad()
    def put(self, agent: int, other: "Population", place: int = 0) -> None:
        """Replace an agent by a copy of another population's, with its optimiser."""
        for mine, theirs in zip(self._tensors(), other._tensors(), strict=True):
            mine[agent] = theirs[place]

    def _tensors(self) -> list[Tensor]:
        """Everything that training changes, each with a leading agent axis."""
        tensors: list[Tensor] = [*self.actor.parameters(), *self.critic.parameters()]
        for optimizer in (self.actor_optimizer, self.critic_optimizer):
            tensors += optimizer.state().values()
        return tensors

    def weights(self, agent_of_node: np.ndarray, greedy: bool) -> Weights:
        """The actors as compiled code reads them; parameters as of :meth:`policy`."""
        first, middle, last = (weight.detach().numpy() for weight in self.actor.weights)
        biases = [bias.detach().numpy()[:, 0] for bias in self.actor.biases]
        width = OBSERVATIONS[self.observation].local
        slots = OBSERVATIONS[self.observation].destinations
        relative = first[:, width + slots :]
        return Weights(
            local=first[:, :width].copy(),
            slot=first[:, width : width + slots] + relative,
            best=relative.copy(),
            bias=biases[0].copy(),
            middle=middle.copy(),
            middle_bias=biases[1].copy(),
            last=last[:, :, 0].copy(),
            last_bias=biases[2][:, 0].copy(),
            agent_of_node=np.asarray(agent_of_node, np.int32),
            greedy=greedy,
        )

    def save(self) -> bytes:
        """Everything that training changes."""
        file = io.BytesIO()
        torch.save(
            {
                "actor": self.actor.state_dict(),
                "critic": self.critic.state_dict(),
                "actor_optimizer": self.actor_optimizer.state(),
                "critic_optimizer": self.critic_optimizer.state(),
            },
            file,
        )
        return file.getvalue()

    def load(self, data: bytes) -> None:
        """Take back what :meth:`save` gave."""
        state = torch.load(io.BytesIO(data), weights_only=True)
        self.actor.load_state_dict(state["actor"])
        self.critic.load_state_dict(state["critic"])
        self.actor_optimizer.load(state["actor_optimizer"])
        self.critic_optimizer.load(state["critic_optimizer"])

    def policy(
        self, agent_of_node: np.ndarray | None = None, greedy: bool = False
    ) -> "ActorPolicy":
        """The actors as they are now, as a policy for a world.

        Parameters
        ----------
        agent_of_node : array of int, shape (N,), optional
            Which actor decides for each node; default: the first one for all.
        greedy : bool, default False
            Take the most probable action instead of a sampled one.
        """
        nodes = np.zeros(0) if agent_of_node is None else agent_of_node
        return ActorPolicy(self.weights(nodes, greedy))


class ActorPolicy:
    """Stacked actors as a policy: in numpy tick by tick, compiled where a world runs by itself.

    Parameters
    ----------
    weights : Weights
        With an empty ``agent_of_node`` the first actor decides for all.
    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def drive(self, world: World, ticks: int) -> None:
        """Let a world run; the actions are drawn from streams of its own."""
        weights, encoding = self.weights, world.scenario.encoding
        if len(weights.agent_of_node) == 0:
            weights = weights._replace(agent_of_node=np.zeros(world.num_nodes, np.int32))
        scratch = make_scratch(encoding, int(world.net.slots.max()), weights.bias.shape[1])
        nothing = make_rows(encoding, 0, 0, 0, 0)
        world.drive(LOOP, ticks, weights, world.scenario.observation_number, scratch, nothing)

    def __call__(self, observation: Observation, rng: np.random.Generator) -> np.ndarray:
        """Actions, shape (R,)."""
        local, destination = observation.features()
        mask = observation.mask
        if len(self.weights.agent_of_node) == 0:
            scores = self.scores(0, local, destination, mask)
        else:
            scores = np.empty(mask.shape, np.float32)
            agents = self.weights.agent_of_node[observation.node]
            for agent in np.unique(agents):
                mine = agents == agent
                scores[mine] = self.scores(agent, local[mine], destination[mine], mask[mine])
        if not self.weights.greedy:
            # The largest of the scores plus Gumbel noise is a sample of the softmax.
            scores = scores + rng.gumbel(size=scores.shape)
        return np.asarray(scores.argmax(axis=1))

    def scores(
        self, agent: int, local: np.ndarray, destination: np.ndarray, mask: np.ndarray
    ) -> np.ndarray:
        """Logits of one agent, minus infinity where illegal, shape (R, K)."""
        rows, slots = np.nonzero(mask)
        legal = destination[rows, slots]
        first = np.flatnonzero(slots == 0)  # slot 0 is always legal, so it begins each row
        best = np.minimum.reduceat(legal, first, axis=0)
        w = self.weights
        base = local @ w.local[agent] - best @ w.best[agent] + w.bias[agent]
        x = np.tanh(legal @ w.slot[agent] + base[rows])
        x = np.tanh(x @ w.middle[agent] + w.middle_bias[agent])
        scores = np.full(mask.shape, -np.inf, np.float32)
        scores[rows, slots] = x @ w.last[agent] + w.last_bias[agent]
        return scores


def _get(module: nn.Module, agent: int) -> Arrays:
    return {name: p.detach()[agent].numpy().copy() for name, p in module.named_parameters()}


@torch.no_grad()
def _set(module: nn.Module, arrays: Mapping[str, np.ndarray], agent: int) -> None:
    for name, p in module.named_parameters():
        p[agent] = torch.from_numpy(np.array(arrays[name]))

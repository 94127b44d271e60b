"""Use of trained actors: the policies of a run in Python."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import GYM, RunConfig
from fauno_flwr.learning.agents import AgentStack, Arrays
from fauno_flwr.learning.policy import ActorPolicy
from fauno_flwr.tasks.registry import make_task
from fauno_flwr.tasks.transfer import make_trained, transfer
from sim_env.network.topology import build_topology
from sim_env.scenario import Scenario, as_scenario

BEST = "best"  # folder of the best actors, among the checkpoints


class Agents:
    """The trained agents of a network, as :func:`load_agents` returns them.

    Parameters
    ----------
    names : list of str
        Names of the nodes that act.
    population : AgentStack
        Their agents, in this order.
    policy : ActorPolicy
        All agents as one policy ``(observation, rng) -> actions``, for
        :func:`sim_env.run_policies`, :meth:`sim_env.World.run` and ``set_actor`` of the
        environments.
    scenario : Scenario or None
        The network in which they act; None for an environment of gymnasium.
    seed : int, default 0
        Of sampled actions.
    """

    def __init__(
        self,
        names: list[str],
        population: AgentStack,
        policy: ActorPolicy,
        scenario: Scenario | None,
        seed: int = 0,
    ) -> None:
        self.names, self.population = names, population
        self.policy, self.scenario = policy, scenario
        self._rng = np.random.default_rng(seed)

    def act(self, node: str, observation: Any, mask: np.ndarray | None = None) -> int | np.ndarray:
        """Choose the action of a node.

        Parameters
        ----------
        node : str
            One of :attr:`names`.
        observation : dict of str to array, or array
            As the environment returns it: of :class:`sim_env.EdgeEnv`, of
            :class:`sim_env.EdgeVectorEnv` (B worlds at once), of an agent of
            :class:`sim_env.EdgeParallelEnv`, or, after training in an environment of gymnasium, of
            that.
        mask : array of bool, shape (actions,), optional
            Legal actions, where the observation does not contain them; default: all.

        Returns
        -------
        int or array of int, shape (B,)
            Numbered from 0.

        Raises
        ------
        ConfigError
            For a node that has no agent.
        """
        if node not in self.names:
            raise ConfigError(f"node is {node!r}: must be one of {', '.join(self.names)}")
        if isinstance(observation, Mapping):
            local, destinations = observation["local"], observation["destinations"]
            legal = np.asarray(observation["action_mask"]) > 0
        else:
            local = np.asarray(observation, np.float32).ravel()
            legal = np.ones(self.population.slots, bool) if mask is None else np.asarray(mask, bool)
            destinations = np.zeros((len(legal), 0), np.float32)
        single = legal.ndim == 1
        if single:
            local, destinations, legal = local[None], destinations[None], legal[None]
        agent = self.names.index(node)
        chosen = self.policy.choose(agent, local, destinations, legal, self._rng)
        return int(chosen[0]) if single else chosen

    def act_all(self, observations: Mapping[str, Any]) -> dict[str, int]:
        """Choose the actions of several nodes: :meth:`act` for each, by name."""
        return {node: int(self.act(node, seen)) for node, seen in observations.items()}


def load_agents(
    run: str | Path,
    scenario: Scenario | str | None = None,
    *,
    best: bool = False,
    greedy: bool = True,
    seed: int = 0,
    any_role: bool = False,
) -> Agents:
    """Load the trained agents of a run, for its own network or another one.

    In another network, a node of a name and role that were trained keeps its own actor; any other
    node gets that of a random trained node of its role. Equivariant actors fit networks of any
    size.

    Parameters
    ----------
    run : str or Path
        Folder of the results of ``fauno train``, ``fauno simulate`` or a deployment whose actors
        were collected.
    scenario : Scenario or str, optional
        The network in which they are to act; default: that of the run.
    best : bool, default False
        The agents of the best evaluation during training instead of the last ones.
    greedy : bool, default True
        Take the best action instead of sampling one as in training.
    seed : int, default 0
        Of sampled actions, and of the draws among the nodes of a role.
    any_role : bool, default False
        Let a node whose role was not trained draw from all trained nodes, instead of an error.

    Returns
    -------
    Agents

    Raises
    ------
    ConfigError
        If the folder holds no run or no such actors, or if these do not fit the network.

    Examples
    --------
    ::

        import gymnasium
        import fauno_flwr, sim_env

        agents = fauno_flwr.load_agents("results/cosim")
        env = gymnasium.make("fauno/Ether2-v0", node=0, peers="self", horizon=200)
        env.unwrapped.set_actor(agents.policy)  # the peers
        observation, info = env.reset(seed=1)
        truncated = False
        while not truncated:
            action = agents.act(agents.names[0], observation)
            observation, reward, terminated, truncated, info = env.step(action)
    """
    folder = Path(run).expanduser()
    config = read_settings(folder)
    actors = read_actors(folder, best=best)
    if config.world.kind == GYM:
        if scenario is not None:
            raise ConfigError(f"the nodes of {str(folder)!r} learned {config.world.env_id!r}")
        return _in_gym(config, actors, greedy, seed)
    target = config.build_scenario() if scenario is None else as_scenario(scenario)
    population = transferred(config, actors, config, target, seed, any_role=any_role)
    policy = population.policy(target.agent_of_node, greedy)
    names = [target.topology.names[node] for node in target.agents]
    return Agents(names, population, policy, target, seed)


def read_settings(run: Path) -> RunConfig:
    """Return the settings of a run; raise ``ConfigError`` if the folder holds none."""
    path = run / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"{str(run)!r} holds no config.yaml: must be the folder of a run")
    return load_config(str(path))


def read_actors(run: Path, *, best: bool = False) -> dict[str, Arrays]:
    """Read the actors of a run, by node in the order of names; raise ``ConfigError`` if none."""
    last = run / "checkpoints" / "actors.safetensors"
    kept = run / "checkpoints" / BEST / "actors.safetensors"
    path = kept if best else last
    if not path.is_file():
        if best:
            raise ConfigError(f"{str(run)!r} holds no best actors: train with evaluation.every=N")
        if kept.is_file():
            raise ConfigError(
                f"{str(run)!r} holds no final actors, as it was not finished: the best so far can "
                f"be had with --best (best=True)"
            )
        raise ConfigError(
            f"{str(run)!r} holds no actors: train with federation.collect_actors=true"
        )
    try:
        arrays = load_file(path)
    except Exception as error:  # of safetensors, of several classes
        raise ConfigError(f"{str(path)!r} cannot be read: {error}") from error
    if not arrays:
        raise ConfigError(f"{str(run)!r} holds no actors: no node has sent its own")
    actors: dict[str, Arrays] = {}
    for key, array in arrays.items():
        node, layer, number = key.rsplit(".", 2)
        actors.setdefault(node, {})[f"{layer}.{number}"] = array
    return dict(sorted(actors.items()))


def transferred(
    source: RunConfig,
    actors: Mapping[str, Arrays],
    config: RunConfig,
    scenario: Scenario,
    seed: int,
    *,
    any_role: bool = False,
) -> AgentStack:
    """Make the agents of a network of the actors of a run: :func:`transfer`.

    Parameters
    ----------
    source : RunConfig
        Settings of the run.
    actors : mapping of str to dict of str to array
        Its actors, by node.
    config : RunConfig
        Settings of the agents in the network.
    scenario : Scenario
        The network.
    seed : int
        Of the draws.
    any_role : bool, default False
        See :func:`load_agents`.

    Raises
    ------
    ConfigError
        If the actors do not fit, or if no node of a role has one.
    """
    try:
        trained = build_topology(source.topology)
        role_of = dict(zip(trained.names, trained.roles, strict=True))
        found = transfer(actors, role_of, scenario, seed, any_role=any_role)
        return make_trained(found, config, scenario)
    except ValueError as error:
        raise ConfigError(f"the actors of the run do not fit: {error}") from error


def _in_gym(config: RunConfig, actors: Mapping[str, Arrays], greedy: bool, seed: int) -> Agents:
    population = make_task(config).make_population(len(actors))
    for agent, actor in enumerate(actors.values()):
        population.set_actor(actor, agent)
    return Agents(list(actors), population, population.policy(greedy=greedy), None, seed)

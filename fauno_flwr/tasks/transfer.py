"""Trained actors in another network."""

from collections.abc import Mapping, Sequence

import numpy as np

from fauno_flwr.config.settings import RunConfig
from fauno_flwr.learning.agents import AgentStack, Arrays
from fauno_flwr.learning.registry import make_population
from sim_env.scenario import Scenario


def transfer(
    actors: Mapping[str, Arrays],
    role_of: Mapping[str, str],
    target: Scenario,
    seed: int,
    *,
    keep_own: bool = True,
    any_role: bool = False,
) -> list[Arrays]:
    """Give each agent of a network the actor of its own name, or of a node with its role.

    Parameters
    ----------
    actors : mapping of str to dict of str to array
        Trained actors by node.
    role_of : mapping of str to str
        Role of each node of the network of the training.
    target : Scenario
        The network in which the actors are to act.
    seed : int
        Of the draws among the nodes of a role, which are drawn in the order of `actors`.
    keep_own : bool, default True
        Whether a node of the target that was trained too, in the same role, keeps its own actor.
        Otherwise all actors are drawn.
    any_role : bool, default False
        Whether a node whose role was not trained gets the actor of any trained node.

    Returns
    -------
    list of dict of str to array
        By agent of the target.

    Raises
    ------
    ValueError
        If no trained node has a role of the target, unless `any_role`.
    """
    rng, topology = np.random.default_rng(seed), target.topology
    found = []
    for node in target.agents:
        name, role = topology.names[node], topology.roles[node]
        candidates = [trained for trained in actors if role_of.get(trained) == role]
        if not candidates and any_role:
            candidates = list(actors)
        if not candidates:
            roles = sorted({role_of[trained] for trained in actors if trained in role_of})
            raise ValueError(
                f"role of {name} is {role!r}: must be a role of a trained node "
                f"({', '.join(roles) or 'there is none'}) without any_role (--any-role)"
            )
        own = keep_own and name in candidates
        chosen = name if own else candidates[int(rng.choice(len(candidates)))]
        found.append(actors[chosen])
    return found


def make_trained(actors: Sequence[Arrays], config: RunConfig, scenario: Scenario) -> AgentStack:
    """Build agents with given actors; raise ``ValueError`` if these do not fit the settings."""
    population = make_population(len(actors), config, scenario)
    for agent, actor in enumerate(actors):
        try:
            population.set_actor(actor, agent)
        except KeyError as error:
            raise ValueError(f"an actor has no array {error}, as its network must") from error
    return population

"""Collection of the actors, for a joint evaluation."""

from collections.abc import Iterable, Mapping
from logging import WARNING

from flwr.app import Message
from flwr.common.logger import log

from fauno_flwr.federation.context import RunContext
from fauno_flwr.federation.members import Members
from fauno_flwr.federation.protocol import ACTOR, QUERY_ACTOR
from fauno_flwr.learning.agents import AgentStack
from strategies import Guard
from strategies.arrays import Arrays, Layout
from strategies.failures import readable
from strategies.guard import RejectedError


def collect_actors(run: RunContext, members: Members) -> AgentStack | None:
    """Query the nodes for their actors and write ``actors.safetensors``.

    Returns
    -------
    AgentStack or None
        All agents with the actors of their nodes; None unless every node has sent a valid one.
    """
    members(run.grid)
    queried = sorted(members.among(run.node_ids()).values())
    replies = run.query(QUERY_ACTOR, queried)
    actors = read_actors(
        run, [r for r in replies if r.has_error() or r.metadata.src_node_id in queried]
    )
    save_actors(run, actors, "actors.safetensors")
    return make_trained_agents(run, actors)


def read_actors(run: RunContext, replies: Iterable[Message]) -> dict[int, Arrays]:
    """Return the valid actors in replies to queries, by agent."""
    untrained = run.task.make_population(1).get_actor()
    layout, guard = Layout(untrained), Guard()
    guard.begin(layout, ACTOR, None)
    actors: dict[int, Arrays] = {}
    for reply in replies:
        if reply.has_error():
            log(WARNING, "a node did not send its actor: %s", readable(reply.error.reason))
            continue
        node_id = reply.metadata.src_node_id
        try:
            actor = guard.decode(reply.content.array_records[ACTOR])
            guard.check_arrays(actor, layout.flatten(untrained))
        except (RejectedError, KeyError) as error:
            log(WARNING, "the actor of %s is rejected: %s", run.name_of(node_id), error)
        else:
            actors[run.agent_of[node_id]] = actor
    return actors


def save_actors(run: RunContext, actors: Mapping[int, Arrays], name: str) -> None:
    """Write actors as safetensors; each array is named by its node and its own name."""
    run.out.write_arrays(
        name,
        {
            f"{run.task.names[agent]}.{parameter}": array
            for agent, actor in sorted(actors.items())
            for parameter, array in actor.items()
        },
    )


def make_trained_agents(run: RunContext, actors: Mapping[int, Arrays]) -> AgentStack | None:
    """Make all agents with these actors; None, with a warning, if some are missing."""
    agents = len(run.task.names)
    if len(actors) < agents:
        if actors:
            log(WARNING, "%s of %s actors: no joint evaluation", len(actors), agents)
        return None
    population = run.task.make_population(agents)
    for agent, actor in actors.items():
        population.set_actor(actor, agent)
    return population

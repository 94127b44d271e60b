"""The handshake: which node is which agent, before any training."""

from collections.abc import Mapping
from logging import INFO, WARNING
from typing import Any

from flwr.app import Message
from flwr.common.logger import log

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.federation.context import RunContext
from fauno_flwr.federation.failures import RunFailedError, kind
from fauno_flwr.federation.protocol import MESSAGES, NODE, NODES, QUERY, read
from strategies.failures import readable
from strategies.flower_internals import ErrorCode
from strategies.grid_protocols import Resumable

PAUSE = 1.0  # seconds between two rounds of queries
# Errors of a node's app; all others are of the engine, which may not have reached the node.
BY_NODE = (ErrorCode.LOAD_CLIENT_APP_EXCEPTION, ErrorCode.CLIENT_APP_RAISED_EXCEPTION)


def handshake(run: RunContext) -> None:
    """Fill ``run.agent_of``: every agent has exactly one node.

    Raises
    ------
    ConfigError
        If nodes do not fit the run, or too few answer within ``federation.wait_for_nodes``.
    RunFailedError
        If there are enough nodes and all of them answer with an error.
    """
    needed, wait = len(run.task.names), run.config.federation.wait_for_nodes
    refusal, kinds, messages = "", set[str](), dict[int, int]()
    end = run.clock.monotonic() + wait
    while len(run.agent_of) < needed:
        new = [node_id for node_id in run.node_ids() if node_id not in run.agent_of]
        raised = 0
        for reply in run.query(QUERY, new):
            try:
                _admit(run, reply, needed, messages)
            except ConfigError:
                raise
            except (ValueError, KeyError) as error:
                node_id, reason = reply.metadata.src_node_id, str(error)
                raised += not reply.has_error() or reply.error.code in BY_NODE
                event: dict[str, Any] = {"event": "refused", "node": node_id}
                # A node that knows its agent begins with its name.
                name, _, rest = reason.partition(": ")
                if name in run.task.names:
                    reason, event["name"] = rest, name
                refusal = f"{event.get('name', f'node {node_id}')}: {reason}"
                if kind(reason) not in kinds:
                    kinds.add(kind(reason))
                    log(WARNING, "a node does not take part: %s", refusal)
                    run.write({**event, "reason": reason})
        if raised >= needed and not run.agent_of:
            raise RunFailedError(f"all {raised} nodes answer with an error; {refusal}")
        if len(run.agent_of) < needed:
            if run.clock.monotonic() > end:
                raise ConfigError(
                    f"{len(run.agent_of)} of {needed} SuperNodes answered within "
                    f"federation.wait_for_nodes = {wait:g} s: "
                    f"start one for each node that learns, with partition-id 0 to {needed - 1}"
                    + (f" (the last refusal: {refusal})" if refusal else "")
                )
            run.clock.sleep(PAUSE)
    _require_saved_agents(run, messages)
    log(INFO, "%s nodes take part: %s", needed, ", ".join(run.task.names))


def _require_saved_agents(run: RunContext, messages: Mapping[int, int]) -> None:
    """Check that every node that has trained still has its agent, if the training is resumed.

    Parameters
    ----------
    run : RunContext
    messages : mapping of int to int
        Train messages that each agent has answered.

    Raises
    ------
    ConfigError
        If a node has a new agent instead, unless ``federation.replace_lost_agents`` is on.
    """
    # A resumable grid restores its agents itself.
    if run.journal is None or isinstance(run.grid, Resumable):
        return
    lost = [
        name
        for agent, name in enumerate(run.task.names)
        if name in run.journal.names_with_replies and messages[agent] == 0
    ]
    if not lost:
        return
    said = f"{len(lost)} of {len(run.task.names)} agents are lost ({', '.join(lost)})"
    if not run.config.federation.replace_lost_agents:
        raise ConfigError(
            f"the training cannot be resumed: {said}; start their SuperNodes with the state-dir "
            f"that they had, or let new agents take their places "
            f"(federation.replace_lost_agents=true), or train anew in another folder"
        )
    log(WARNING, "%s: new ones take their places", said)


def _admit(run: RunContext, reply: Message, needed: int, messages: dict[int, int]) -> None:
    """Take a node in; ``ValueError`` if it cannot take part, `ConfigError` if the run cannot.

    The train messages that its agent has answered are added to `messages`.
    """
    if reply.has_error():
        raise ValueError(readable(reply.error.reason))
    agent = run.identify(reply)
    nodes = read(reply.content.config_records[NODE], NODES, int)
    if agent in run.agent_of.values():
        raise ConfigError(f"two nodes have the partition-id {agent}: must be different")
    run.agent_of[reply.metadata.src_node_id] = agent
    messages[agent] = read(reply.content.config_records[NODE], MESSAGES, int)
    if 0 < nodes < needed:
        raise ConfigError(
            f"num-supernodes is {nodes}: must be at least {needed}, one for "
            f"each node that learns in this network (--federation-config "
            f'"num-supernodes={needed} client-resources-num-cpus=1")'
        )

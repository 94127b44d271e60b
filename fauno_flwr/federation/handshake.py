"""The handshake: which node is which agent, before any training."""

from logging import INFO, WARNING

from flwr.app import Message
from flwr.common.logger import log

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.federation.context import RunContext
from fauno_flwr.federation.failures import RunFailedError, kind
from fauno_flwr.federation.protocol import NODE, NODES, QUERY, read
from strategies.failures import readable
from strategies.flower_internals import ErrorCode

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
    refusal, kinds = "", set[str]()
    end = run.clock.monotonic() + wait
    while len(run.agent_of) < needed:
        new = [node_id for node_id in run.node_ids() if node_id not in run.agent_of]
        raised = 0
        for reply in run.query(QUERY, new):
            try:
                _admit(run, reply, needed)
            except ConfigError:
                raise
            except (ValueError, KeyError) as error:
                node_id, reason = reply.metadata.src_node_id, str(error)
                raised += not reply.has_error() or reply.error.code in BY_NODE
                refusal = f"node {node_id}: {reason}"
                if kind(reason) not in kinds:
                    kinds.add(kind(reason))
                    log(WARNING, "a node does not take part: %s", refusal)
                    run.write({"event": "refused", "node": node_id, "reason": reason})
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
    log(INFO, "%s nodes take part: %s", needed, ", ".join(run.task.names))


def _admit(run: RunContext, reply: Message, needed: int) -> None:
    """Take a node in; ``ValueError`` if it cannot take part, `ConfigError` if the run cannot."""
    if reply.has_error():
        raise ValueError(readable(reply.error.reason))
    agent = run.identify(reply)
    nodes = read(reply.content.config_records[NODE], NODES, int)
    if agent in run.agent_of.values():
        raise ConfigError(f"two nodes have the partition-id {agent}: must be different")
    run.agent_of[reply.metadata.src_node_id] = agent
    if 0 < nodes < needed:
        raise ConfigError(
            f"num-supernodes is {nodes}: must be at least {needed}, one for "
            f"each node that learns in this network (--federation-config "
            f'"num-supernodes={needed} client-resources-num-cpus=1")'
        )

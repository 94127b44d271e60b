"""The handshake: which node is which agent, before any training."""

from logging import INFO, WARNING

from flwr.common.logger import log

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.federation.context import QUERY_TIMEOUT, RunContext
from fauno_flwr.federation.failures import RunFailedError
from fauno_flwr.federation.members import Members
from strategies.grid_protocols import Resumable

PAUSE = 0.5  # seconds between two polls for answers


def handshake(run: RunContext, members: Members) -> None:
    """Wait until every agent has a node.

    A node that does not fit costs nobody else anything: it is refused, and the run begins as soon
    as the others are there.

    Raises
    ------
    ConfigError
        If too few nodes that fit answer within ``federation.wait_for_nodes``.
    RunFailedError
        If there are enough nodes, and every one of them answers with an error.
    """
    needed, wait = len(run.task.names), run.config.federation.wait_for_nodes
    end, hinted = run.clock.monotonic() + wait, False
    while True:
        node_ids = run.node_ids()
        held = members.update(run.grid, node_ids)
        if len(held) == needed:
            break
        if needed <= len(node_ids) == len(members.failed):
            raise RunFailedError(
                f"all {len(node_ids)} nodes answer with an error; {run.last_refusal}"
            )
        hint = _few(run, held, needed)
        # Whoever has been asked in time may answer.
        if run.clock.monotonic() > end + (QUERY_TIMEOUT if members.is_asking else 0.0):
            raise ConfigError(
                hint
                or f"{len(held)} of {needed} SuperNodes answered within "
                f"federation.wait_for_nodes = {wait:g} s: "
                f"start one for each node that learns, with partition-id 0 to {needed - 1}"
                + (f" (the last refusal: {run.last_refusal})" if run.last_refusal else "")
            )
        if hint and not hinted:
            hinted = True
            log(WARNING, "%s", hint)
        run.clock.sleep(PAUSE)
    _require_saved_agents(run, members)
    log(INFO, "%s nodes take part: %s", needed, ", ".join(run.task.names))


def _few(run: RunContext, held: list[int], needed: int) -> str:
    """Return a sentence if all members say that they are fewer than the run needs."""
    said = {run.introduced[node_id].nodes for node_id in held}
    if len(said) != 1 or not 0 < (nodes := said.pop()) < needed:
        return ""
    return (
        f"num-supernodes is {nodes}: must be at least {needed}, one for "
        f"each node that learns in this network (--federation-config "
        f'"num-supernodes={needed} client-resources-num-cpus=1")'
    )


def _require_saved_agents(run: RunContext, members: Members) -> None:
    """Check that every node that has trained still has its agent, if the training is resumed.

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
        if name in run.journal.names_with_replies
        and run.introduced[members.held[agent]].messages == 0
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

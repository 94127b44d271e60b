"""Members of the federation: which node has the place of which agent, also when nodes restart."""

import time
from collections.abc import Callable, Iterable
from logging import INFO

from flwr.app import Message
from flwr.common.logger import log
from flwr.serverapp import Grid

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.federation.failures import printable
from fauno_flwr.federation.keys import NodeKeys
from strategies.clock import Clock
from strategies.failures import readable
from strategies.flower_internals import ErrorCode

# Errors of a node's app; all others are of the engine, which may not have reached the node.
BY_NODE = (ErrorCode.LOAD_CLIENT_APP_EXCEPTION, ErrorCode.CLIENT_APP_RAISED_EXCEPTION)


class Members:
    """The nodes that take part; a node with an unknown id is queried for its agent.

    An agent has one place. Of all ids that have held it, it belongs to the one that held it first
    and is online: a SuperNode that restarts without a key has a new id, which gets the place when
    the heartbeat of the old one has lapsed; if the old one returns after all, the new one is
    dropped at once. With keys (:class:`NodeKeys`) the place belongs to the key that held it first,
    and nobody else ever gets it. Queries do not block; a node that does not answer, or does not
    fit, is queried again after a back-off that doubles.

    Parameters
    ----------
    agent_of : dict of int to int
        Agent of each node id that has held a place; later ids are added.
    make_query : callable
        ``make_query(node_id)`` makes the query of a node.
    identify : callable
        ``identify(reply)`` returns the agent; ``ValueError`` if the node does not fit.
    clock : Clock, default time
    keys : NodeKeys, optional
        Keys that the places are bound to; None: places are not bound.
    refuse : callable, optional
        ``refuse(node_id, reason)`` is called for every node that is not let in.

    Attributes
    ----------
    held : dict of int to int
        Node id that has the place of each agent now; agents without a node are left out.
    failed : set of int
        Nodes that are online, have answered, and were refused.
    """

    BACKOFF, LONGEST_BACKOFF = 5.0, 300.0

    def __init__(
        self,
        agent_of: dict[int, int],
        make_query: Callable[[int], Message],
        identify: Callable[[Message], int],
        clock: Clock = time,
        *,
        keys: NodeKeys | None = None,
        refuse: Callable[[int, str], None] = lambda node_id, reason: None,
    ) -> None:
        self.agent_of, self.make_query, self.identify = agent_of, make_query, identify
        self.clock, self.keys, self.refuse = clock, keys, refuse
        self.held: dict[int, int] = {}
        self.failed: set[int] = set()
        self._ranks: dict[int, list[int]] = {}  # ids that have held the place of an agent, in order
        for node_id, agent in agent_of.items():
            self._ranks.setdefault(agent, []).append(node_id)
        self._queries: dict[str, int] = {}
        self._identified: dict[int, int] = {}  # those that have no place, and what they say
        self._waiting = set[int]()  # those of them that have been told so
        self._backoffs: dict[int, tuple[float, float]] = {}  # end, and duration

    def __call__(self, grid: Grid) -> list[int]:
        """Return the ids of the members that are online."""
        return self.update(grid, grid.get_node_ids())

    def update(self, grid: Grid, node_ids: Iterable[int]) -> list[int]:
        """Query those among some nodes that are unknown, and return the ids of the members."""
        present = set(node_ids)
        self.failed &= present
        self._waiting &= present
        self._identified = {i: a for i, a in self._identified.items() if i in present}
        self._query_unknown(grid, present)
        self._receive(grid)
        self._let_in(grid, present)
        now = self.among(present)
        for agent, node_id in now.items():
            before = self.held.get(agent)
            if before is not None and before != node_id:
                log(INFO, "agent %s is now node %s, no longer node %s", agent, node_id, before)
        self.held = now
        return sorted(self.held.values())

    @property
    def is_asking(self) -> bool:
        """Whether some node has been queried and has not answered yet."""
        return bool(self._queries)

    def among(self, node_ids: Iterable[int]) -> dict[int, int]:
        """Return which of some nodes each agent's place belongs to."""
        present = set(node_ids)
        owners = {
            agent: next((i for i in ranks if i in present), None)
            for agent, ranks in self._ranks.items()
        }
        return {agent: owner for agent, owner in owners.items() if owner is not None}

    def is_replaced(self, node_id: int) -> bool:
        """Return whether a node has lost its place to one that has the better claim."""
        agent = self.agent_of[node_id]
        ranks, holder = self._ranks[agent], self.held.get(agent, node_id)
        return ranks.index(holder) < ranks.index(node_id)

    def _let_in(self, grid: Grid, present: set[int]) -> None:
        """Give the places without a node to nodes that say that they are these agents."""
        taken = self.among(present) if self._identified else {}
        for node_id, agent in sorted(self._identified.items()):
            if agent in taken:
                if node_id not in self._waiting:
                    self._waiting.add(node_id)
                    reason = f"agent {agent} is node {taken[agent]}, which is online"
                    self.refuse(node_id, f"{reason}: must have another partition-id")
                continue
            if self.keys is not None and not self.keys.fits(agent, node_id, grid):
                del self._identified[node_id]
                self._fail(node_id, f"the place of agent {agent} is bound to another node's key")
                continue
            taken[agent] = node_id
            self.agent_of[node_id] = agent
            self._ranks.setdefault(agent, []).append(node_id)
            del self._identified[node_id]
            log(INFO, "agent %s is node %s", agent, node_id)

    def _query_unknown(self, grid: Grid, present: set[int]) -> None:
        now = self.clock.monotonic()
        self._backoffs = {i: backoff for i, backoff in self._backoffs.items() if i in present}
        known = self.agent_of.keys() | self._identified.keys() | set(self._queries.values())
        for node_id in sorted(present - known):
            if node_id in self._backoffs and now < self._backoffs[node_id][0]:
                continue
            for message_id in grid.push_messages([self.make_query(node_id)]):
                if message_id:
                    self._queries[message_id] = node_id

    def _receive(self, grid: Grid) -> None:
        for reply in grid.pull_messages(list(self._queries)) if self._queries else []:
            # By message: the source that a reply names may be another node, or the SuperLink.
            node_id = self._queries.pop(reply.metadata.reply_to_message_id, None)
            if node_id is None:
                continue
            try:
                if reply.has_error():
                    raise ConfigError(readable(reply.error.reason))
                if reply.metadata.src_node_id != node_id:
                    raise ConfigError("an answer in the name of another node: must be in its own")
                agent = self.identify(reply)
            except (ValueError, KeyError) as error:
                by_node = not reply.has_error() or reply.error.code in BY_NODE
                self._fail(node_id, str(error), by_node=by_node)
                continue
            self._identified[node_id] = agent
            self.failed.discard(node_id)

    def _fail(self, node_id: int, reason: str, *, by_node: bool = True) -> None:
        if by_node:
            self.failed.add(node_id)
        self.refuse(node_id, printable(reason))
        _, backoff = self._backoffs.get(node_id, (0.0, self.BACKOFF / 2))
        backoff = min(2 * backoff, self.LONGEST_BACKOFF)
        self._backoffs[node_id] = self.clock.monotonic() + backoff, backoff

"""Members of the federation: which node is which agent, also when nodes restart."""

import time
from collections.abc import Callable
from logging import INFO, WARNING

from flwr.app import Message
from flwr.common.logger import log
from flwr.serverapp import Grid

from fauno_flwr.config.errors import ConfigError
from strategies.clock import Clock


class Members:
    """The nodes that take part; a node with an unknown id is queried for its agent.

    A SuperNode that restarts without a key has a new id, and its old id stays online until its
    heartbeat lapses: only then does the new one take its place. Queries do not block; a node that
    does not answer, or does not fit, is queried again after a back-off that doubles.

    Parameters
    ----------
    agent_of : dict of int to int
        Agent of each node id of the handshake; later ids are added.
    make_query : callable
        ``make_query(node_id)`` makes the query of a node.
    identify : callable
        ``identify(reply)`` returns the agent; ``ConfigError`` if the node does not fit.
    clock : Clock, default time
    """

    BACKOFF, LONGEST_BACKOFF = 5.0, 300.0

    def __init__(
        self,
        agent_of: dict[int, int],
        make_query: Callable[[int], Message],
        identify: Callable[[Message], int],
        clock: Clock = time,
    ) -> None:
        self.agent_of, self.make_query, self.identify = agent_of, make_query, identify
        self.clock = clock
        self._queries: dict[str, int] = {}
        self._identified: dict[int, int] = {}
        self._backoffs: dict[int, tuple[float, float]] = {}  # end, and duration

    def __call__(self, grid: Grid) -> list[int]:
        """Return the ids of the members that are online."""
        online = set(grid.get_node_ids())
        self._receive(grid)
        self._query_unknown(grid, online)
        for node_id, agent in sorted(self._identified.items()):
            if agent not in {self.agent_of[i] for i in online if i in self.agent_of}:
                self.agent_of[node_id] = agent
                log(INFO, "agent %s is back, as node %s", agent, node_id)
        self._identified = {
            i: agent
            for i, agent in self._identified.items()
            if i in online and i not in self.agent_of
        }
        return sorted(online & self.agent_of.keys())

    def _query_unknown(self, grid: Grid, online: set[int]) -> None:
        now = self.clock.monotonic()
        self._backoffs = {i: backoff for i, backoff in self._backoffs.items() if i in online}
        known = self.agent_of.keys() | self._identified.keys() | set(self._queries.values())
        for node_id in sorted(online - known):
            if node_id in self._backoffs and now < self._backoffs[node_id][0]:
                continue
            for message_id in grid.push_messages([self.make_query(node_id)]):
                if message_id:
                    self._queries[message_id] = node_id

    def _receive(self, grid: Grid) -> None:
        for reply in grid.pull_messages(list(self._queries)) if self._queries else []:
            node_id = self._queries.pop(reply.metadata.reply_to_message_id)
            try:
                if reply.has_error():
                    raise ConfigError(str(reply.error.reason))
                self._identified[node_id] = self.identify(reply)
            except (ValueError, KeyError) as error:
                log(WARNING, "node %s does not take part: %s", node_id, error)
                _, backoff = self._backoffs.get(node_id, (0.0, self.BACKOFF / 2))
                backoff = min(2 * backoff, self.LONGEST_BACKOFF)
                self._backoffs[node_id] = self.clock.monotonic() + backoff, backoff

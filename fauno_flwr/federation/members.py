"""Which node is which agent, also when nodes come and go."""

import time
from collections.abc import Callable
from logging import INFO, WARNING

from flwr.app import Message
from flwr.common.logger import log
from flwr.serverapp import Grid

from fauno_flwr.config.settings import ConfigError
from strategies.clock import Clock


class Members:
    """The nodes that take part; one that comes back under a new id is asked who it is.

    A SuperNode that restarts without a key has a new id, and its old one stays online until its
    heartbeat lapses: only then does the new one take its place. Nobody waits for an answer; a node
    that gave none, or one that does not fit, is asked again after a pause that doubles.

    Parameters
    ----------
    agent_of : dict of int to int
        Agent of each node id of the handshake; later ones are added.
    ask : callable
        The message that asks a node who it is.
    identify : callable
        The agent that an answer names; ``ConfigError`` if the node does not fit.
    clock : Clock, default time
    """

    PAUSE, LONGEST_PAUSE = 5.0, 300.0

    def __init__(
        self,
        agent_of: dict[int, int],
        ask: Callable[[int], Message],
        identify: Callable[[Message], int],
        clock: Clock = time,
    ) -> None:
        self.agent_of, self.ask, self.identify = agent_of, ask, identify
        self.clock = clock
        self._asked: dict[str, int] = {}
        self._newcomers: dict[int, int] = {}
        self._pauses: dict[int, tuple[float, float]] = {}  # until when, and for how long

    def __call__(self, grid: Grid) -> list[int]:
        """Ids of the members that are online."""
        online = set(grid.get_node_ids())
        self._hear(grid)
        self._ask_strangers(grid, online)
        for node_id, agent in sorted(self._newcomers.items()):
            if agent not in {self.agent_of[i] for i in online if i in self.agent_of}:
                self.agent_of[node_id] = agent
                log(INFO, "agent %s is back, as node %s", agent, node_id)
        self._newcomers = {
            i: agent
            for i, agent in self._newcomers.items()
            if i in online and i not in self.agent_of
        }
        return sorted(online & self.agent_of.keys())

    def _ask_strangers(self, grid: Grid, online: set[int]) -> None:
        now = self.clock.monotonic()
        self._pauses = {i: pause for i, pause in self._pauses.items() if i in online}
        known = self.agent_of.keys() | self._newcomers.keys() | set(self._asked.values())
        for node_id in sorted(online - known):
            if node_id in self._pauses and now < self._pauses[node_id][0]:
                continue
            for message_id in grid.push_messages([self.ask(node_id)]):
                if message_id:
                    self._asked[message_id] = node_id

    def _hear(self, grid: Grid) -> None:
        for reply in grid.pull_messages(list(self._asked)) if self._asked else []:
            node_id = self._asked.pop(reply.metadata.reply_to_message_id)
            try:
                if reply.has_error():
                    raise ConfigError(str(reply.error.reason))
                self._newcomers[node_id] = self.identify(reply)
            except (ValueError, KeyError) as error:
                log(WARNING, "node %s does not take part: %s", node_id, error)
                _, pause = self._pauses.get(node_id, (0.0, self.PAUSE / 2))
                pause = min(2 * pause, self.LONGEST_PAUSE)
                self._pauses[node_id] = self.clock.monotonic() + pause, pause

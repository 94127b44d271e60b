"""Which node is which agent, also when nodes come and go."""

from collections.abc import Callable
from logging import INFO, WARNING

from flwr.app import Message
from flwr.common.logger import log
from flwr.serverapp import Grid

from fauno_flwr.config import ConfigError


class Members:
    """The nodes that take part; one that comes back under a new id is asked who it is.

    A SuperNode that restarts without a key has a new id, and its old one stays online until its
    heartbeat lapses: only then does the new one take its place. Nobody waits for an answer.

    Parameters
    ----------
    agent_of : dict of int to int
        Agent of each node id of the handshake; later ones are added.
    ask : callable
        The message that asks a node who it is.
    identify : callable
        The agent that an answer names; ``ConfigError`` if the node does not fit.
    """

    def __init__(
        self,
        agent_of: dict[int, int],
        ask: Callable[[int], Message],
        identify: Callable[[Message], int],
    ) -> None:
        self.agent_of, self.ask, self.identify = agent_of, ask, identify
        self._asked: dict[str, int] = {}
        self._known: set[int] = set(agent_of)
        self._newcomers: dict[int, int] = {}

    def __call__(self, grid: Grid) -> list[int]:
        """Ids of the members that are online."""
        online = set(grid.get_node_ids())
        self._hear(grid)
        for node_id in sorted(online - self._known):
            self._known.add(node_id)
            for message_id in grid.push_messages([self.ask(node_id)]):
                self._asked[message_id] = node_id
        for node_id, agent in sorted(self._newcomers.items()):
            if agent not in {self.agent_of[i] for i in online if i in self.agent_of}:
                self.agent_of[node_id] = agent
                log(INFO, "agent %s is back, as node %s", agent, node_id)
        self._newcomers = {
            i: agent for i, agent in self._newcomers.items() if i not in self.agent_of
        }
        return sorted(online & self.agent_of.keys())

    def _hear(self, grid: Grid) -> None:
        for reply in grid.pull_messages(list(self._asked)) if self._asked else []:
            node_id = self._asked.pop(reply.metadata.reply_to_message_id)
            try:
                if reply.has_error():
                    raise ConfigError(str(reply.error.reason))
                self._newcomers[node_id] = self.identify(reply)
            except (ValueError, KeyError) as error:
                log(WARNING, "node %s does not take part: %s", node_id, error)

"""Messages as long as the engine's fixed cost asks for, and how long to wait for an answer."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from fauno_flwr.config.settings import TrainingConfig
from fauno_flwr.federation.protocol import ROLLOUTS
from strategies import BufferedAsync, Guard
from strategies.buffer import Update
from strategies.buffered_async import Event
from strategies.flights import Flight
from strategies.guard import RejectedError


class Sizer:
    """How many rollouts to ask of each node, and how long to wait, learned from its last answers.

    A message may get lost on its way to a node that stays online (its SuperLink is killed in that
    moment), and Flower tells nobody: the node is sent another one when it has been silent for
    several times as long as it usually is.

    Parameters
    ----------
    training : TrainingConfig
        With ``seconds_per_message`` 0 every message has ``rollouts`` rollouts; otherwise only the
        first of each agent has.
    agent_of : callable
        Agent of a node id: a SuperNode that comes back under a new id is as fast as before.
    longest_wait : float, default 600.0
        Seconds to wait for an answer at most; of a node that has not answered yet, and of all if
        messages are not sized by time, the only wait.
    """

    GROWTH = 8  # from message to message, at most: the first one may have been an exception
    WAITS, SHORTEST_WAIT = 4.0, 60.0  # usual times of a message to wait for an answer, and seconds

    def __init__(
        self, training: TrainingConfig, agent_of: Callable[[int], int], longest_wait: float = 600.0
    ) -> None:
        self.training, self.agent_of, self.longest_wait = training, agent_of, longest_wait
        self._asked: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self._took: dict[int, float] = {}
        self._silent: dict[int, int] = {}

    def ask(self, node_id: int) -> int:
        """Rollouts of the next message of a node; it is taken down as asked."""
        agent = self.agent_of(node_id)
        self._asked[agent] = self._next.get(agent, self.training.rollouts)
        return self._asked[agent]

    def asked(self, node_id: int) -> int:
        """Rollouts of the last message of a node."""
        return self._asked.get(self.agent_of(node_id), self.training.rollouts)

    def most_steps(self, node_id: int) -> int:
        """Decisions behind the message that a node was sent last, at most."""
        return self.training.worlds * self.training.ticks * self.asked(node_id)

    def hear(self, node_id: int, seconds: Any) -> None:
        """Learn from a reply; a time that cannot be is no news.

        Parameters
        ----------
        node_id : int
        seconds : float
            That the node says the message took it.
        """
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not self.training.seconds_per_message or not number or not 0 < seconds < math.inf:
            return
        asked = self.asked(node_id)
        wanted = min(asked * self.training.seconds_per_message / seconds, asked * self.GROWTH)
        self._next[self.agent_of(node_id)] = max(1, min(round(wanted), self.training.most_rollouts))

    def wait(self, node_id: int) -> float:
        """Seconds to wait for the answer to the next message of a node."""
        agent, usual = self.agent_of(node_id), self.training.seconds_per_message
        if not usual or agent not in self._took:
            return self.longest_wait
        patience = max(self.WAITS * max(usual, self._took[agent]), self.SHORTEST_WAIT)
        # A node that has become much slower must be heard in the end.
        return min(patience * 2.0 ** min(self._silent.get(agent, 0), 60), self.longest_wait)

    def answered(self, node_id: int, latency: float) -> None:
        """A node has answered so many seconds after its message was sent."""
        agent = self.agent_of(node_id)
        self._took[agent] = latency
        self._silent.pop(agent, None)

    def gave_up(self, node_id: int, latency: float) -> None:
        """A message has failed after so many seconds; it counts if its time was over."""
        agent = self.agent_of(node_id)
        if latency >= self.wait(node_id):
            self._silent[agent] = self._silent.get(agent, 0) + 1


class SizedAsync(BufferedAsync):
    """:class:`BufferedAsync` that tells every node how many rollouts its message is worth.

    Parameters
    ----------
    sizer : Sizer
    buffer_size : float
    **settings
        Of :class:`BufferedAsync`.
    """

    def __init__(self, sizer: Sizer, buffer_size: float, **settings: Any) -> None:
        super().__init__(buffer_size, ttl=sizer.wait, **settings)
        self.sizer, self.listener = sizer, self.on_event
        self.on_event = self._hear

    def _hear(self, event: Event) -> None:
        """Learn from each reply, and write down how many rollouts it was asked for."""
        if event["event"] == "reply":
            event = {**event, "rollouts": self.sizer.asked(event["node"])}
            self.sizer.hear(event["node"], event["metrics"].get("seconds"))
            self.sizer.answered(event["node"], event["latency"])
        elif event["event"] == "error" and "latency" in event:
            self.sizer.gave_up(event["node"], event["latency"])
        self.listener(event)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One train message for every node that is to start now, with its number of rollouts."""
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message in messages:
            rollouts = self.sizer.ask(message.metadata.dst_node_id)
            message.content.config_records[self.configrecord_key][ROLLOUTS] = rollouts
        return messages


class SizedGuard(Guard):
    """A guard that knows how many steps each node was asked for: none may claim more.

    Parameters
    ----------
    sizer : Sizer
    """

    def __init__(self, sizer: Sizer) -> None:
        super().__init__(max_weight=sizer.training.most_steps)
        self.sizer = sizer

    def check(self, reply: Message, flight: Flight, base: np.ndarray, now: float) -> Update:
        """The update that a reply carries; raises as :meth:`Guard.check` does."""
        update = super().check(reply, flight, base, now)
        most = self.sizer.most_steps(flight.node_id)
        if update.steps > most:
            raise RejectedError(
                "weight",
                f"metric {self.weighted_by_key!r} is {update.steps:g}: must be at most {most}, "
                f"the steps that were asked for",
            )
        return update

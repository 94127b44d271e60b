"""Messages as long as the engine's fixed cost asks for: rollouts are counted out by time."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from fauno_flwr.protocol import ROLLOUTS
from fauno_flwr.settings import TrainingConfig
from strategies import BufferedAsync, Guard
from strategies.buffer import Update
from strategies.buffered_async import Event
from strategies.flights import Flight
from strategies.guard import RejectedError


class Sizer:
    """How many rollouts to ask of each node, learned from how long it took for the last ones.

    Parameters
    ----------
    training : TrainingConfig
        With ``seconds_per_message`` 0 every message has ``rollouts`` rollouts; otherwise only the
        first of each agent has.
    agent_of : callable
        Agent of a node id: a SuperNode that comes back under a new id is as fast as before.
    """

    GROWTH = 8  # from message to message, at most: the first one may have been an exception

    def __init__(self, training: TrainingConfig, agent_of: Callable[[int], int]) -> None:
        self.training, self.agent_of = training, agent_of
        self._asked: dict[int, int] = {}
        self._next: dict[int, int] = {}

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
        super().__init__(buffer_size, **settings)
        self.sizer, self.listener = sizer, self.on_event
        self.on_event = self._hear

    def _hear(self, event: Event) -> None:
        """Learn from each reply, and write down how many rollouts it was asked for."""
        if event["event"] == "reply":
            event = {**event, "rollouts": self.sizer.asked(event["node"])}
            self.sizer.hear(event["node"], event["metrics"].get("seconds"))
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

"""Adaptive message sizes: rollouts per message and time-to-live, by the server's own clock."""

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

OWN_COLUMNS = ("eval/", "federation/", "privacy/", "time/", "version")


class Sizer:
    """Number of rollouts and time-to-live of each node's messages, from its last latencies.

    A latency is the time from a message to its reply, as the server measures it. What a node says
    about its time is not used: one that claims to be fast would be asked for ever more, and more
    steps weigh more.

    A message can get lost on its way to a node that stays online (if its SuperLink is killed at
    that moment), and Flower does not report it: the node is sent another one after several times
    its usual duration.

    Parameters
    ----------
    training : TrainingConfig
        With ``seconds_per_message`` 0 every message requests ``rollouts`` rollouts; otherwise only
        the first one of each agent does.
    agent_of : callable
        Agent of a node id: a SuperNode that comes back under a new id is as fast as before.
    longest_wait : float, default 600.0
        Largest time-to-live in seconds. It is that of nodes that have not replied yet, and of all
        nodes if messages are not sized by time.
    """

    GROWTH = 8  # largest factor between two messages: the first duration may be an outlier
    WAITS, SHORTEST_WAIT = 4.0, 60.0  # usual durations until a message is given up, and seconds

    def __init__(
        self, training: TrainingConfig, agent_of: Callable[[int], int], longest_wait: float = 600.0
    ) -> None:
        self.training, self.agent_of, self.longest_wait = training, agent_of, longest_wait
        self._requested: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self._latency: dict[int, float] = {}
        self._timeouts: dict[int, int] = {}

    def request(self, node_id: int) -> int:
        """Return the rollouts to request with the next message of a node, and remember them."""
        agent = self.agent_of(node_id)
        self._requested[agent] = self._next.get(agent, self.training.rollouts)
        return self._requested[agent]

    def requested(self, node_id: int) -> int:
        """Return the rollouts requested with the last message of a node."""
        return self._requested.get(self.agent_of(node_id), self.training.rollouts)

    def state(self) -> dict[str, list[tuple[int, float]]]:
        """Return what has been learned of each agent."""
        return {
            "requested": list(self._requested.items()),
            "next": list(self._next.items()),
            "latency": list(self._latency.items()),
            "timeouts": list(self._timeouts.items()),
        }

    def load(self, state: dict[str, list[tuple[int, Any]]]) -> None:
        """Restore what :meth:`state` has returned."""
        self._requested, self._next = dict(state["requested"]), dict(state["next"])
        self._latency, self._timeouts = dict(state["latency"]), dict(state["timeouts"])

    def most_steps(self, node_id: int) -> int:
        """Return the largest number of decisions behind the reply to a node's last message."""
        return self.training.worlds * self.training.ticks * self.requested(node_id)

    def wait(self, node_id: int) -> float:
        """Return the time-to-live of the next message of a node, in seconds."""
        agent, usual = self.agent_of(node_id), self.training.seconds_per_message
        if not usual or agent not in self._latency:
            return self.longest_wait
        patience = max(self.WAITS * max(usual, self._latency[agent]), self.SHORTEST_WAIT)
        # Doubled per timeout: a node that has become much slower still replies in time at last.
        return min(patience * 2.0 ** min(self._timeouts.get(agent, 0), 60), self.longest_wait)

    def observe_reply(self, node_id: int, latency: float) -> None:
        """Adapt the next message of a node to the seconds between its last one and the reply."""
        agent, wanted = self.agent_of(node_id), self.training.seconds_per_message
        self._latency[agent] = latency
        self._timeouts.pop(agent, None)
        if wanted:
            last = self.requested(node_id)
            rollouts = last * min(wanted / latency if latency > 0 else math.inf, self.GROWTH)
            self._next[agent] = max(1, min(round(rollouts), self.training.most_rollouts))

    def observe_failure(self, node_id: int, latency: float) -> None:
        """Record the seconds after which a message failed; only a timeout counts."""
        agent = self.agent_of(node_id)
        if latency >= self.wait(node_id):
            self._timeouts[agent] = self._timeouts.get(agent, 0) + 1


class SizedAsync(BufferedAsync):
    """:class:`BufferedAsync` whose messages request a number of rollouts of each node.

    Parameters
    ----------
    sizer : Sizer
    buffer_size : int or float
    **settings
        Further parameters of :class:`BufferedAsync`.
    """

    def __init__(self, sizer: Sizer, buffer_size: int | float, **settings: Any) -> None:
        super().__init__(buffer_size, ttl=sizer.wait, **settings)
        self.sizer, self.listener = sizer, self.on_event
        self.on_event = self._observe

    def _observe(self, event: Event) -> None:
        """Adapt to each reply, and add the number of requested rollouts to its event."""
        if event["event"] == "reply":
            event = {**event, "rollouts": self.sizer.requested(event["node"])}
            self.sizer.observe_reply(event["node"], event["latency"])
        elif event["event"] == "error" and "latency" in event:
            self.sizer.observe_failure(event["node"], event["latency"])
        self.listener(event)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Make a train message, with its number of rollouts, for every node that starts now."""
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message in messages:
            rollouts = self.sizer.request(message.metadata.dst_node_id)
            message.content.config_records[self.configrecord_key][ROLLOUTS] = rollouts
        return messages


class SizedGuard(Guard):
    """A guard that rejects a reply with more steps than were requested of its node.

    Of its metrics it keeps few, and only numbers whose names are not those of the server's own
    columns in ``metrics.jsonl``.

    Parameters
    ----------
    sizer : Sizer
    **bounds
        Further parameters of :class:`Guard`.
    """

    most_metrics, most_metric_bytes, longest_metric = 64, 4096, -1

    def __init__(self, sizer: Sizer, **bounds: Any) -> None:
        super().__init__(max_weight=sizer.training.most_steps, **bounds)
        self.sizer = sizer

    def is_name(self, name: str) -> bool:
        """Return whether a node's metric may have this name."""
        return super().is_name(name) and not name.startswith(OWN_COLUMNS)

    def check(self, reply: Message, flight: Flight, base: np.ndarray, now: float) -> Update:
        """Return the update of a reply; raises as :meth:`Guard.check` does."""
        update = super().check(reply, flight, base, now)
        most = self.sizer.most_steps(flight.node_id)
        if update.steps > most:
            raise RejectedError(
                "weight",
                f"metric {self.weighted_by_key!r} is {update.steps:g}: must be at most {most}, "
                f"the steps that were requested",
            )
        return update

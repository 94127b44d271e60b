"""The hooks of a strategy that is not running: one synchronous round after another.

So a wrapper such as Flower's ``DifferentialPrivacyServerSideFixedClipping``, or a ``start`` of
one's own, uses the strategy as it would use FedAvg: what comes back in a round is merged.
"""

from collections.abc import Iterable
from logging import INFO, WARNING

import numpy as np
from flwr.app import ArrayRecord, Message
from flwr.common.logger import log
from flwr.serverapp import Grid

from strategies.buffer import Buffer, Update
from strategies.failures import readable
from strategies.flights import Flight
from strategies.grid_protocols import clock_of
from strategies.guard import RejectedError
from strategies.hooks import SessionStrategy
from strategies.merge import MergeRule
from strategies.sampling import sample_size
from strategies.versions import Versions


class Rounds:
    """Synchronous rounds, with the guard, merge rule and optimiser of a strategy.

    Parameters
    ----------
    strategy : SessionStrategy

    Attributes
    ----------
    versions : Versions
        The arrays that were sent in this round.
    share : float
        Always 1: see :attr:`strategies.session.Session.share`.
    """

    share = 1.0
    versions: Versions

    def __init__(self, strategy: SessionStrategy) -> None:
        self.strategy = strategy
        self._rng = np.random.default_rng(strategy.seed)
        self._begun = False

    @property
    def rule(self) -> MergeRule:
        """Rule that merges the updates."""
        return self.strategy.merge

    def to_train(self, server_round: int, arrays: ArrayRecord, grid: Grid) -> list[int]:
        """Begin a round with these arrays; return the nodes that are to train."""
        strategy = self.strategy
        if strategy.privacy is not None:
            raise RuntimeError("privacy is accounted for by start() alone, not in single rounds")
        self.versions = Versions(arrays, server_round - 1)
        settings = (strategy.arrayrecord_key, strategy.weighted_by_key, strategy.compression)
        if server_round <= 1 or not self._begun:
            strategy.guard.begin(self.versions.layout, *settings)
            strategy.server_optimizer.state.clear()
        else:
            strategy.guard.expect(self.versions.layout, *settings)
        self._begun = True
        nodes = self._online(grid, strategy.nodes_to_begin)
        return self._draw("train", nodes, strategy.nodes_at_once(len(nodes)))

    def to_evaluate(self, grid: Grid) -> list[int]:
        """Return the nodes that are to evaluate."""
        strategy = self.strategy
        if strategy.fraction_evaluate == 0:
            return []
        nodes = self._online(grid, strategy.nodes_to_begin)
        least = strategy.min_evaluate_nodes
        size = sample_size(strategy.fraction_evaluate, least, len(nodes))
        return self._draw("evaluate", nodes, size)

    def _online(self, grid: Grid, least: int) -> list[int]:
        """Wait until enough nodes are online; return those that are not banned."""
        while len(online := sorted(self.strategy.nodes(grid))) < least:
            text = "Waiting for nodes to connect: %d connected (minimum required: %d)."
            log(INFO, text, len(online), least)
            clock_of(grid).sleep(1.0)
        return [i for i in online if not self.strategy.guard.is_banned(i)]

    def _draw(self, kind: str, nodes: list[int], size: int) -> list[int]:
        drawn = sorted(nodes[i] for i in self._rng.permutation(len(nodes))[:size])
        log(INFO, "configure_%s: Sampled %s nodes (out of %s)", kind, len(drawn), len(nodes))
        return drawn

    def updates(self, server_round: int, replies: Iterable[Message]) -> list[Update]:
        """Return the updates in the replies of a round, bounded, in the order of their nodes.

        Replies that are errors or do not pass the guard are left out.
        """
        strategy, buffer, replies, used = self.strategy, Buffer(), list(replies), 0
        if not self._begun:
            raise RuntimeError(
                "no round has begun: call configure_train() before aggregate_train()"
            )
        (base,) = self.versions.bases.values()
        for reply in replies:
            source = reply.metadata.src_node_id
            if reply.has_error():
                continue
            message_id, member = reply.metadata.reply_to_message_id, strategy.member_of(source)
            flight = Flight(message_id, source, member, server_round - 1, 0.0, 0.0)
            try:
                buffer.put(strategy.guard.check(reply, flight, base, 0.0))
            except RejectedError as error:
                strategy.guard.reject(error.check, source)
                log(WARNING, "node %s: reject (%s)", source, error)
            else:
                strategy.guard.accepted[source] += 1
                used += 1
        buffer.bound(strategy.weight_factor, strategy.guard.most_norm)
        self.report("train", replies, used)
        return buffer.in_order()

    def report(self, kind: str, replies: list[Message], used: int) -> None:
        """Log how many replies of a round are used, and the errors, in the words of FedAvg."""
        if not replies:
            return
        failures = len(replies) - used
        log(INFO, "aggregate_%s: Received %s results and %s failures", kind, used, failures)
        for reply in replies:
            if reply.has_error():
                source, reason = reply.metadata.src_node_id, readable(reply.error.reason)
                log(INFO, "\t> Received error in reply from node %d: %s", source, reason)

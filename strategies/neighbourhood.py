"""Who takes part in a gossip, who is whose neighbour, and what each has merged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from logging import WARNING

from flwr.app import ArrayRecord
from flwr.common.logger import log

from strategies.buffer import updates_needed
from strategies.gossip import Neighbours, both_ways

MOST_GONE = 10  # members that have left and whose models are kept, beside twice the most at once


@dataclass
class Member:
    """What the server knows of a place in the graph.

    Parameters
    ----------
    model : ArrayRecord
        Its newest model.

    Attributes
    ----------
    node_id : int
        The node that had the place last.
    trainings : int
        Trainings so far.
    number : int
        Number of its model, among those of all members; 0: none has arrived.
    steps : float
        Steps of its last training.
    merged : dict of int to int
        Number of the model of each neighbour that it has merged last.
    sent : dict of int to int
        Those in the message that it was sent last.
    """

    model: ArrayRecord
    node_id: int = -1
    trainings: int = 0
    number: int = 0
    steps: float = 0.0
    merged: dict[int, int] = field(default_factory=dict)
    sent: dict[int, int] = field(default_factory=dict)


class Neighbourhood:
    """The members of a graph and the nodes that take their places.

    Parameters
    ----------
    graph : mapping or callable
    identify : callable, optional
        ``member_of`` of :class:`strategies.Gossip`.
    initial : ArrayRecord
        The model from which every node starts.

    Attributes
    ----------
    members : dict of int to Member
        Also those that have left, the one that was seen least recently first.
    online : dict of int to int
        The node of each member that is online.
    member_at : dict of int to int
        The member that each of these nodes is.
    neighbours : dict of int to set of int
        Of each member, also those that have left.
    """

    def __init__(
        self,
        graph: Neighbours | Callable[[list[int]], Neighbours],
        identify: Callable[[int], int] | None,
        initial: ArrayRecord,
    ) -> None:
        self.graph, self.identify, self.initial = graph, identify, initial
        self.members: dict[int, Member] = {}
        self.online: dict[int, int] = {}
        self.member_at: dict[int, int] = {}
        self.neighbours: dict[int, set[int]] = {}
        self._homeless = self._most = self._models = 0

    def update(self, present: Sequence[int]) -> None:
        """Give the nodes that are present their places, and find the neighbours of each."""
        given = None if callable(self.graph) else both_ways(self.graph)
        self.online = self._assign(present, given)
        self.member_at = {node_id: member for member, node_id in self.online.items()}
        homeless = len(present) - len(self.online)
        if homeless > self._homeless:
            log(WARNING, "%s nodes have no place in the graph and do not take part", homeless)
        self._homeless = homeless
        for member, node_id in self.online.items():
            state = self.members.pop(member, None) or Member(self.initial)
            state.node_id = node_id
            self.members[member] = state
        self._forget()
        if callable(self.graph):
            given = both_ways(self.graph(sorted(self.online)))
        known = self.members.keys()
        self.neighbours = {member: (given or {}).get(member, set()) & known for member in known}

    def _assign(self, present: Sequence[int], given: dict[int, set[int]] | None) -> dict[int, int]:
        """Return the node of each member, for the nodes that are present."""
        if self.identify is not None:
            online = {self.identify(node_id): node_id for node_id in present}
            return {m: i for m, i in online.items() if given is None or m in given}
        if given is None:
            return {node_id: node_id for node_id in present}
        before = {state.node_id: member for member, state in self.members.items()}
        online = {before[node_id]: node_id for node_id in present if node_id in before}
        # First the places that nobody has had: who is offline may return.
        free = [member for member in sorted(given) if member not in online]
        free.sort(key=lambda member: member in self.members)
        newcomers = [node_id for node_id in present if node_id not in before]
        return {**online, **dict(zip(free, newcomers, strict=False))}

    def _forget(self) -> None:
        """Forget those that left first, once they are many: without a key they return as others.

        Not by how many are online now: for a moment that may be nobody.
        """
        self._most = max(self._most, len(self.online))
        excess = max(len(self.members) - 2 * self._most - MOST_GONE, 0)
        for member in list(self.members)[:excess]:
            del self.members[member]
        if excess:
            for state in self.members.values():
                state.merged = {m: n for m, n in state.merged.items() if m in self.members}

    def news(self, member: int) -> list[int]:
        """Return the neighbours whose newest model a member has not merged."""
        merged = self.members[member].merged
        return sorted(
            other
            for other in self.neighbours[member]
            if self.members[other].number > merged.get(other, 0)
        )

    def may_train(self, member: int, buffer_size: float, failing: Callable[[int], bool]) -> bool:
        """Return whether a member has news of K neighbours; for its first training of none.

        Parameters
        ----------
        member : int
        buffer_size : int or float
        failing : callable
            ``failing(node_id)``: whether a node is not to be waited for.
        """
        online = self.neighbours[member] & self.online.keys()
        awaited = {other for other in online if not failing(self.online[other])}
        if self.members[member].trainings == 0 or not awaited:
            return True
        needed = min(updates_needed(buffer_size, len(awaited)), len(awaited))
        return len(awaited.intersection(self.news(member))) >= needed

    def receive(self, member: int, model: ArrayRecord, steps: float) -> None:
        """Replace the model of a member by the one that it has trained."""
        state = self.members[member]
        # Counted over all: a member that was forgotten and returns must not begin at 1.
        self._models += 1
        state.model, state.number, state.steps = model, self._models, steps
        state.trainings += 1
        state.merged.update(state.sent)  # not before: a training that fails has merged nothing

    def trained(self) -> list[Member]:
        """Return the members that have trained, in order."""
        return [state for _, state in sorted(self.members.items()) if state.trainings]

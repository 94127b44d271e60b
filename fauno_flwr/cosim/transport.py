"""Transport of messages through the simulated network, hop by hop on shared links.

A fluid model: the messages on a link share its capacity equally, and a node forwards a message
once it has received all of it (store and forward).
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import networkx as nx
import numpy as np

from fauno_flwr.cosim.links import progress
from sim_env.scenario import Net


@dataclass
class Journey:
    """A message in transit; :class:`Transport` knows how far it is on the present link.

    Parameters
    ----------
    key : str
        Name of the message.
    rows : list of int
        Remaining links, the present one first, as rows of ``net.rate``.
    bits : float
        Size.
    """

    key: str
    rows: list[int]
    bits: float


@dataclass
class Transport:
    """Transport of messages over the links of a network.

    Parameters
    ----------
    net : Net
        Its array ``rate`` is overwritten with the rates that messages leave for tasks.
    hub : int, optional
        Node that most messages come from or go to: their routes are computed all at once, so that
        the cost of one does not grow with the network.

    Attributes
    ----------
    journeys : list of Journey
        The messages in transit.
    source : array of int, shape (L,)
        Node at which each link starts.
    carried : array of float, shape (L,)
        Bits of the messages that each link has transferred in full since the object was made.
    busy : array of float, shape (L,)
        Ticks in which each link had a message to transfer.
    """

    net: Net
    hub: int | None = None
    journeys: list[Journey] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._capacity = self.net.rate.copy()
        self._routes: dict[tuple[int, int, float, frozenset[int]], list[int]] = {}
        # Of each journey: its present link, -1 at its target; the bits that this link has yet to
        # transfer; the ticks of latency that follow.
        self._row, self._left, self._wait = np.zeros(0, int), np.zeros(0), np.zeros(0)
        self._messages = np.zeros(len(self._capacity), int)  # that each link is transferring
        self.carried, self.busy = np.zeros(len(self._capacity)), np.zeros(len(self._capacity))
        self._is_noted = np.zeros(len(self._capacity), np.bool_)  # scratch space
        nodes = len(self.net.slots)
        self.source = np.repeat(np.arange(nodes), self.net.slots)
        self._graph: nx.DiGraph = nx.DiGraph()
        self._graph.add_nodes_from(range(len(self.net.slots)))
        for node in range(len(self.net.slots)):
            for slot, other in enumerate(self.net.destinations(node).tolist()):
                if slot:
                    self._graph.add_edge(node, other, row=int(self.net.first[node]) + slot)

    @property
    def capacity(self) -> np.ndarray:
        """Rate of each link without messages, in bits per tick, shape (L,)."""
        return self._capacity

    def transferred(self) -> np.ndarray:
        """Return the bits that each link has transferred: `carried`, and messages in part."""
        bits = self.carried.copy()
        sizes = np.array([journey.bits for journey in self.journeys])
        on_links = self._row >= 0
        np.add.at(bits, self._row[on_links], (sizes - self._left)[on_links])
        return bits

    def route(self, source: int, target: int, bits: float, down: Iterable[int] = ()) -> list[int]:
        """Return the links of the route with the fewest ticks on an idle network.

        Parameters
        ----------
        source, target : int
            Nodes.
        bits : float
        down : iterable of int, default empty
            Nodes to go around, if there is a way.
        """
        avoided = frozenset(down) - {source, target}
        key = (source, target, bits, avoided)
        if key not in self._routes:
            if avoided and target not in self.reachable(source, avoided):
                return self.route(source, target, bits)
            self._find_routes(source, target, bits, avoided)
        return self._routes[key]

    def _find_routes(self, source: int, target: int, bits: float, avoided: frozenset[int]) -> None:
        """Find the route between two nodes.

        If one is the hub, also those of all others, unless nodes are avoided: which ones are
        depends on both ends.
        """

        def ticks(a: int, b: int, data: dict[str, int]) -> float:
            return float(bits / self._capacity[data["row"]] + self.net.latency[data["row"]])

        if avoided or self.hub not in (source, target):
            graph = nx.restricted_view(self._graph, avoided, []) if avoided else self._graph
            paths = {target: nx.dijkstra_path(graph, source, target, ticks)}
        elif source == self.hub:
            paths = nx.single_source_dijkstra_path(self._graph, source, weight=ticks)
        else:
            backwards = self._graph.reverse(copy=False)
            found = nx.single_source_dijkstra_path(backwards, target, weight=ticks)
            paths = {node: path[::-1] for node, path in found.items()}
        for path in paths.values():
            rows = [self._graph.edges[hop]["row"] for hop in pairwise(path)]
            self._routes[path[0], path[-1], bits, avoided] = rows

    def reachable(self, source: int, down: Iterable[int]) -> set[int]:
        """Return the nodes to which there is a way that goes around others, `source` included."""
        graph = nx.restricted_view(self._graph, set(down) - {source}, [])
        return {source, *nx.descendants(graph, source)}

    def forget(self, key: str) -> None:
        """Remove a message from the network."""
        self._remove([i for i, journey in enumerate(self.journeys) if journey.key == key])
        self._update_rates()

    def send(
        self, key: str, source: int, target: int, num_bytes: int, down: Iterable[int] = ()
    ) -> None:
        """Send a message, around nodes that are down."""
        bits = 8.0 * num_bytes
        rows = self.route(source, target, bits, down)
        latency = float(self.net.latency[rows[0]]) if rows else 0.0
        self._add(Journey(key, rows, bits), bits, latency)
        if rows:
            first = rows[0]
            self.net.rate[first] = self._capacity[first] / (1 + self._messages[first])

    def is_held(self, key: str, open_links: np.ndarray) -> bool:
        """Return whether a message waits for a link that is down."""
        rows = next((journey.rows for journey in self.journeys if journey.key == key), [])
        return bool(rows) and not open_links[rows[0]]

    def advance(self, ticks: float, open_links: np.ndarray, tasks: np.ndarray) -> list[str]:
        """Advance time; returns the keys of the messages that arrived, in that order.

        Parameters
        ----------
        ticks : float
        open_links : array of bool, shape (L,)
            Whether a link is up; on the others, messages wait.
        tasks : array of float, shape (L,)
            Number of tasks that share each link.
        """
        arrived: list[str] = []
        now = 0.0
        while self.journeys:
            if (here := np.flatnonzero(self._row < 0)).size:
                arrived += [self.journeys[i].key for i in here]
                self._remove(here.tolist())
                continue
            now = progress(
                now,
                float(ticks),
                (self._capacity, open_links, tasks),
                (self._row, self._left, self._wait),
                (self._messages, self.busy, self._is_noted),
            )
            for i in np.flatnonzero((self._left == 0) & (self._wait == 0)).tolist():
                self._go_on(i)
            if now >= ticks and (self._row >= 0).all():
                break
        self._update_rates()
        return arrived

    def _go_on(self, i: int) -> None:
        """Put a message that a link has transferred on its next one."""
        journey = self.journeys[i]
        self.carried[journey.rows[0]] += journey.bits
        journey.rows = journey.rows[1:]
        self._row[i] = journey.rows[0] if journey.rows else -1
        if journey.rows:
            self._left[i] = journey.bits
            self._wait[i] = self.net.latency[self._row[i]]
            self._messages[self._row[i]] += journey.bits > 0

    def _add(self, journey: Journey, left: float, wait: float) -> None:
        row = journey.rows[0] if journey.rows else -1
        self.journeys.append(journey)
        self._row = np.append(self._row, row)
        self._left, self._wait = np.append(self._left, left), np.append(self._wait, wait)
        if row >= 0:
            self._messages[row] += left > 0

    def _remove(self, places: list[int]) -> None:
        for i in reversed(places):
            if self._row[i] >= 0:
                self._messages[self._row[i]] -= self._left[i] > 0
            del self.journeys[i]
        self._row = np.delete(self._row, places)
        self._left, self._wait = np.delete(self._left, places), np.delete(self._wait, places)

    def snapshot(self) -> list[dict[str, Any]]:
        """Return the messages in transit, as JSON can hold them."""
        progress = zip(self._left.tolist(), self._wait.tolist(), strict=True)
        return [
            {**asdict(journey), "left": left, "wait": wait}
            for journey, (left, wait) in zip(self.journeys, progress, strict=True)
        ]

    def restore(self, snapshot: list[dict[str, Any]]) -> None:
        """Restore what :meth:`snapshot` has returned."""
        self._remove(list(range(len(self.journeys))))
        for message in snapshot:
            journey = Journey(message["key"], message["rows"], message["bits"])
            self._add(journey, message["left"], message["wait"])
        self._update_rates()

    def _update_rates(self) -> None:
        """Reduce the rates for tasks by the shares of the messages on each link."""
        self.net.rate[:] = self._capacity / (1 + self._messages)

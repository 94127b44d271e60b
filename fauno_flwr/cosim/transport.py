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

from sim_env.scenario import Net


@dataclass
class Journey:
    """A message in transit.

    Parameters
    ----------
    key : str
        Name of the message.
    rows : list of int
        Remaining links, the present one first, as rows of ``net.rate``.
    bits : float
        Size.
    left : float
        Bits that the present link has yet to transfer.
    wait : float
        Ticks of latency that follow.
    """

    key: str
    rows: list[int]
    bits: float
    left: float
    wait: float


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
    source : array of int, shape (L,)
        Node at which each link starts.
    carried : array of float, shape (L,)
        Bits of the messages that each link has transferred in full since the object was made.
    busy : array of float, shape (L,)
        Ticks in which each link had a message to transfer.
    """

    net: Net
    hub: int | None = None
    journeys: list[Journey] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._capacity = self.net.rate.copy()
        self._routes: dict[tuple[int, int, float, frozenset[int]], list[int]] = {}
        self._messages = np.zeros(len(self._capacity), int)  # on each link
        self.carried, self.busy = np.zeros(len(self._capacity)), np.zeros(len(self._capacity))
        nodes = len(self.net.slots)
        self.source = np.repeat(np.arange(nodes), self.net.slots)
        pairs = self.source * nodes + self.net.neighbour
        self._order = np.argsort(pairs)
        self._pairs = pairs[self._order]
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
        for journey in self.journeys:
            if journey.rows:
                bits[journey.rows[0]] += journey.bits - journey.left
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

    def rows_between(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Return the links between neighbours, as rows of ``net.rate``."""
        place = np.searchsorted(self._pairs, source * len(self.net.slots) + target)
        return np.asarray(self._order[place])

    def forget(self, key: str) -> None:
        """Remove a message from the network."""
        self.journeys = [journey for journey in self.journeys if journey.key != key]
        self._update_rates()

    def send(
        self, key: str, source: int, target: int, num_bytes: int, down: Iterable[int] = ()
    ) -> None:
        """Send a message, around nodes that are down."""
        bits = 8.0 * num_bytes
        rows = self.route(source, target, bits, down)
        latency = float(self.net.latency[rows[0]]) if rows else 0.0
        self.journeys.append(Journey(key, rows, bits, bits, latency))
        if rows and bits > 0:
            first = rows[0]
            self._messages[first] += 1
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
            here = [journey for journey in self.journeys if not journey.rows]
            if here:
                arrived += [journey.key for journey in here]
                self.journeys = [journey for journey in self.journeys if journey.rows]
                continue
            busy = np.bincount(
                [journey.rows[0] for journey in self.journeys if journey.left > 0],
                minlength=len(self._capacity),
            )
            rates = [
                self._capacity[j.rows[0]] / (busy[j.rows[0]] + tasks[j.rows[0]])
                if j.left > 0 and open_links[j.rows[0]]
                else 0.0
                for j in self.journeys
            ]
            spans = [
                (j.left / rate if rate > 0 else np.inf) if j.left > 0 else j.wait
                for j, rate in zip(self.journeys, rates, strict=True)
            ]
            step = min(min(spans), ticks - now)
            self.busy[busy > 0] += step
            for journey, rate, span in zip(self.journeys, rates, spans, strict=True):
                if journey.left > 0:
                    journey.left = 0.0 if span <= step else max(journey.left - rate * step, 0.0)
                else:
                    journey.wait = 0.0 if span <= step else journey.wait - step
                if journey.left == 0 and journey.wait == 0:
                    self.carried[journey.rows[0]] += journey.bits
                    journey.rows = journey.rows[1:]
                    if journey.rows:
                        journey.left = journey.bits
                        journey.wait = float(self.net.latency[journey.rows[0]])
            now += step
            if now >= ticks and all(journey.rows for journey in self.journeys):
                break
        self._update_rates()
        return arrived

    def snapshot(self) -> list[dict[str, Any]]:
        """Return the messages in transit, as JSON can hold them."""
        return [asdict(journey) for journey in self.journeys]

    def restore(self, snapshot: list[dict[str, Any]]) -> None:
        """Restore what :meth:`snapshot` has returned."""
        self.journeys = [Journey(**values) for values in snapshot]
        self._update_rates()

    def _update_rates(self) -> None:
        """Reduce the rates for tasks by the shares of the messages on each link."""
        rows = np.array(
            [journey.rows[0] for journey in self.journeys if journey.rows and journey.left > 0], int
        )
        self._messages = np.bincount(rows, minlength=len(self._capacity))
        self.net.rate[:] = self._capacity / (1 + self._messages)

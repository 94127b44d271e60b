"""A co-simulation that is watched while it runs: curves, traffic, and how far the nodes agree."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Message

from fauno_flwr.config.settings import RunConfig
from fauno_flwr.cosim.agents import RETURNING, Agent, RoundTrip
from fauno_flwr.cosim.gossip import GossipGrid
from fauno_flwr.cosim.grid import CosimGrid
from fauno_flwr.experiments.load import Delays, load_of
from fauno_flwr.federation.gossip_training import consensus_distance
from fauno_flwr.learning.agents import AgentStack, Arrays
from fauno_flwr.learning.registry import make_population
from fauno_flwr.tasks.start import start_agents
from sim_env.engine.state import FINISHED, LOSSES, RESPONSE
from sim_env.scenario import Scenario

CURVE_POINTS = 60
DISTANCE_INTERVAL = 10.0  # virtual seconds between two measurements of how far the nodes agree


@dataclass(frozen=True)
class Traffic:
    """What a training has cost the network, and how far the nodes have agreed.

    Parameters
    ----------
    distance : list of float
        Root of the mean squared distance of the agents' shared parameters to their mean, at the
        moments of the curve.
    busiest : float
        Bytes of messages on the most loaded link, in one direction.
    total : float
        The same over all links.
    server : float
        On the most loaded link of the node that would be the server.
    """

    distance: list[float]
    busiest: float
    total: float
    server: float


class WatchedGrid(CosimGrid):
    """A co-simulation that counts the tasks that have ended, and keeps earlier actors.

    It also measures how far the agents' shared parameters are apart.

    Parameters
    ----------
    config, scenario
        As of :class:`CosimGrid`.
    decisions : collection of int, default empty
        Numbers of decisions per node after which the actors are kept.
    """

    def __init__(
        self, config: RunConfig, scenario: Scenario, decisions: Collection[int] = ()
    ) -> None:
        super().__init__(config, scenario)
        self._delays = Delays(self.tick)
        self.moments: list[int] = []
        self.totals: list[np.ndarray] = []
        self.distances: list[tuple[int, float]] = []
        self.earlier: dict[int, list[Arrays]] = {}
        self._due, self._decisions = sorted(decisions), 0
        if 0 in self._due:
            untrained = make_population(self.population.agents, config, scenario)
            self._keep(start_agents(config, untrained))
        self._count()

    def run_until(self, end: int) -> None:
        """Run as the co-simulation does."""
        super().run_until(end)
        self._count()

    def _send(self, agent: Agent, message: Message) -> None:
        super()._send(agent, message)
        self._delays.sent(str(agent.index), self.world.now)

    def _arrive(self, agent: Agent) -> None:
        if agent.trip is not None:
            self._delays.arrived(str(agent.index), self.world.now)
        super()._arrive(agent)

    def _finish_update(self, agent: Agent, trip: RoundTrip) -> None:
        self._decisions += 0 if trip.rollout is None else len(trip.rollout)
        super()._finish_update(agent, trip)
        if trip.phase == RETURNING:
            self._delays.sent(str(agent.index), self.world.now)
        while self._due and self._decisions >= self._due[0] * self.population.agents:
            self._keep(self.population)

    def _keep(self, population: AgentStack) -> None:
        self.earlier[self._due.pop(0)] = actors_of(population)

    def require_kept(self) -> None:
        """Raise ``ValueError`` if the training was too short to keep all that was asked for."""
        if self._due:
            mean = self._decisions / self.population.agents
            raise ValueError(f"decisions is {self._due[0]}: must be at most {mean:.0f} here")

    def _count(self) -> None:
        total = self.world.state.total.sum(axis=0)
        lost = sum(total[column] for column in LOSSES.values())
        self.moments.append(self.world.now)
        self.totals.append(np.array([total[FINISHED], lost, total[RESPONSE]], float))
        last = self.distances[-1][0] if self.distances else -math.inf
        if (self.world.now - last) * self.tick >= DISTANCE_INTERVAL:
            self._measure()

    def _measure(self) -> None:
        share = self.config.federation.share
        models = [self.population.get_shared(share, a) for a in range(self.population.agents)]
        self.distances.append((self.world.now, consensus_distance(models)))

    def traffic(self) -> Traffic:
        """Return how the nodes agree and what the links have carried."""
        self._measure()
        ticks, distances = np.array(self.distances).T
        edges = np.linspace(self.moments[0], self.moments[-1], CURVE_POINTS + 1)[1:]
        transport = self._transport
        carried = transport.carried / 8
        ends = np.stack([transport.source, self.world.net.neighbour])
        return Traffic(
            np.interp(edges, ticks, distances).tolist(),
            float(carried.max()),
            float(carried.sum()),
            float(carried[(ends == self._server).any(axis=0)].max()),
        )

    def load(self) -> dict[str, Any]:
        """Return the load of the links and the delay of the messages."""
        found = load_of(self._transport, self._server, self.world.now - self.moments[0], self.tick)
        return {**found, "delay": self._delays.quantiles()}

    def curve(self) -> dict[str, list[float]]:
        """Return ``seconds``, ``finished`` and ``response``; NaN where no task has ended."""
        edges = np.linspace(self.moments[0], self.moments[-1], CURVE_POINTS + 1)
        totals = np.array(self.totals)
        finished, lost, response = (
            np.diff(np.interp(edges, self.moments, column)) for column in totals.T
        )
        with np.errstate(invalid="ignore"):
            return {
                "seconds": (edges[1:] * self.tick).tolist(),
                "finished": (finished / (finished + lost)).tolist(),
                "response": (response * self.tick / finished).tolist(),
            }


class WatchedGossip(WatchedGrid, GossipGrid):
    """A co-simulation without a server that is watched in the same way."""

    def _receivers(self, agent: int) -> list[int]:
        receivers = super()._receivers(agent)
        for receiver in receivers:
            self._delays.sent(f"{agent}-{receiver}", self.world.now)
        return receivers

    def _deliver(self, key: str) -> None:
        self._delays.arrived(key, self.world.now)
        super()._deliver(key)


def actors_of(population: AgentStack) -> list[Arrays]:
    """Return what each agent acts with."""
    return [population.get_actor(agent) for agent in range(population.agents)]

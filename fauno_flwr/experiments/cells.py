"""The work of one cell: train in co-simulation, evaluate on worlds never used in training."""

import hashlib
import inspect
import logging
import math
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Message
from safetensors.numpy import save_file

from fauno_flwr.config.settings import GOSSIP, RunConfig
from fauno_flwr.cosim.agents import RETURNING, Agent, RoundTrip
from fauno_flwr.cosim.gossip import GossipGrid
from fauno_flwr.cosim.grid import CosimGrid
from fauno_flwr.experiments.design import BASELINES, Cell
from fauno_flwr.experiments.load import Delays, Memory, load_of, quantiles
from fauno_flwr.federation.context import RunContext
from fauno_flwr.federation.gossip_training import consensus_distance, make_training
from fauno_flwr.federation.handshake import handshake
from fauno_flwr.federation.logs import quiet_flower
from fauno_flwr.federation.run import make_members
from fauno_flwr.learning.agents import AgentStack, Arrays
from fauno_flwr.learning.registry import make_population
from fauno_flwr.results.directory import RunDirectory, read_lines
from fauno_flwr.tasks.edge import EdgeTask
from fauno_flwr.tasks.heuristics import find_heuristic, find_heuristics
from fauno_flwr.tasks.start import start_agents
from fauno_flwr.tasks.transfer import make_trained, transfer
from sim_env.engine.state import FINISHED, LOSSES, RESPONSE
from sim_env.evaluation import run_policy
from sim_env.policies.heuristics import POLICIES, Policy
from sim_env.scenario import Scenario
from sim_env.world import Metrics

SCHEMA_VERSION = 1
GREEDY, SAMPLED = "greedy", "sampled"
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


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    Parameters
    ----------
    actors : list of dict of str to array
        By agent, at the end.
    earlier : dict of int to list of dict
        The same after so many decisions per node, on average.
    shared : dict of str to array
        The last version.
    curve : dict of str to list of float
        Of all tasks that ended in the network between two moments of virtual time: ``seconds``
        (the later moment), ``finished`` (ratio) and ``response`` (s); ``versions`` made until then.
    staleness : list of float
        Of the merged updates, in versions; in a gossip, of what each training began with.
    versions : int
    seconds : float
        Virtual.
    messages : float
        Train messages that a node has answered, on average.
    traffic : Traffic
    flushes : list of float
        Virtual seconds at which each version was made.
    privacy : dict, optional
        ``epsilon`` in the end, and ``signal_to_noise_power``, the mean over the versions of what
        :func:`strategies.privacy.signal_to_noise` estimates, squared, negative by chance if there
        is none; None without privacy.
    load : dict
        Of the links, see :func:`fauno_flwr.experiments.load.load_of`; also the ``delay`` of the
        messages between the nodes and a manager, or between neighbours.
    """

    actors: list[Arrays]
    earlier: dict[int, list[Arrays]]
    shared: Arrays
    curve: dict[str, list[float]]
    staleness: list[float]
    versions: int
    seconds: float
    messages: float
    traffic: Traffic
    flushes: list[float]
    privacy: dict[str, float] | None
    load: dict[str, Any]


class WatchedGrid(CosimGrid):
    """A co-simulation that counts the tasks that have ended, and keeps earlier actors.

    It also measures how far the agents' shared parameters are apart.

    Parameters
    ----------
    config, scenario
        As of :class:`CosimGrid`.
    decisions : collection of int, default empty
        See :attr:`Trained.earlier`.
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
        """Return the load of :class:`Trained`."""
        found = load_of(self._transport, self._server, self.world.now - self.moments[0], self.tick)
        return {**found, "delay": self._delays.quantiles()}

    def curve(self) -> dict[str, list[float]]:
        """Return the curve of :class:`Trained`; NaN where no task has ended."""
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


def train(
    config: RunConfig, start: RunConfig | None = None, decisions: Collection[int] = ()
) -> Trained:
    """Train one federation in co-simulation, as ``fauno train`` does.

    Parameters
    ----------
    config : RunConfig
    start : RunConfig, optional
        Train there first: what is shared in the end is version 0 here.
    decisions : collection of int, default empty
        Numbers of decisions per node after which the actors are kept, too.

    Raises
    ------
    ValueError
        If it takes fewer decisions than that.
    """
    scenario = config.build_scenario()
    with tempfile.TemporaryDirectory() as folder:
        if start is not None:
            path = Path(folder) / "start.safetensors"
            save_file(train(start).shared, path)
            federation = replace(config.federation, start=str(path))
            config = replace(config, federation=federation)
        out = RunDirectory(Path(folder) / "run")
        watched = WatchedGossip if config.federation.merging == GOSSIP else WatchedGrid
        grid = watched(config, scenario, decisions)
        # The phases of a run without its files, whose figures take as long as a small training.
        run = RunContext(grid, config, EdgeTask(config, scenario), out)
        members = make_members(run)
        handshake(run, members)
        shared = make_training(run, members).execute().shared
        grid.require_kept()
        events = read_lines(out.path / "events.jsonl")
    flushes = [event for event in events if event["event"] == "flush"]
    staleness = [tau for flush in flushes for tau in flush["staleness"]]
    curve, times = grid.curve(), [flush["t"] for flush in flushes]
    curve["versions"] = np.searchsorted(times, curve["seconds"], side="right").tolist()
    return Trained(
        actors_of(grid.population),
        grid.earlier,
        shared,
        curve,
        staleness,
        len(flushes),
        float(flushes[-1]["t"]),
        len(staleness) / grid.population.agents,
        grid.traffic(),
        [float(flush["t"]) for flush in flushes],
        _spent(flushes),
        grid.load(),
    )


def _spent(flushes: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    if "epsilon" not in flushes[-1]:
        return None
    powers = [(flush["merged_norm"] / flush["noise_norm"]) ** 2 - 1 for flush in flushes]
    return {
        "epsilon": flushes[-1]["epsilon"],
        "signal_to_noise_power": float(np.mean(powers)),
    }


def trained_policies(
    training: RunConfig, trained: Sequence[Arrays], scenario: Scenario
) -> dict[str, Policy]:
    """Make policies of trained actors, greedy and sampled, for a world.

    In the network of the training every node has its own actor. In another one, every node gets
    that of a random trained node of its role.
    """
    source = training.build_scenario()
    names, roles = source.topology.names, source.topology.roles
    agents = zip(source.agents, trained, strict=True)
    actors = {names[node]: actor for node, actor in agents}
    role_of = dict(zip(names, roles, strict=True))
    same = names == scenario.topology.names
    found = transfer(actors, role_of, scenario, training.seed, keep_own=same)
    population = make_trained(found, training, scenario)
    return {
        GREEDY: population.policy(scenario.agent_of_node, greedy=True),
        SAMPLED: population.policy(scenario.agent_of_node, greedy=False),
    }


def evaluate(
    config: RunConfig, policies: Mapping[str, Policy], origins: Sequence[str] = ()
) -> dict[str, Any]:
    """Evaluate policies on the same worlds; numbers by world, so that they can be paired.

    With `origins`, the finished ratio is that of the tasks of these nodes.
    """
    scenario, evaluation = config.build_scenario(), config.evaluation
    nodes = [scenario.topology.names.index(name) for name in origins]
    found = {}
    for name, policy in policies.items():
        metrics = run_policy(
            scenario,
            policy,
            evaluation.seeds,
            warmup=evaluation.warmup,
            window=evaluation.window,
        )
        found[name] = _plain(metrics)
        if nodes:
            born, finished = (
                counts[:, nodes].sum(axis=1) for counts in (metrics.born_at, metrics.finished_at)
            )
            found[name] |= {
                "created": born.tolist(),
                "finished_ratio": (finished / np.maximum(born, 1)).tolist(),
            }
    return found


def run_cell(cell: Cell) -> dict[str, Any]:
    """Train and evaluate, or evaluate heuristics; return plain values for JSON."""
    torch.set_num_threads(1)
    begin, cpu = time.monotonic(), time.process_time()
    found: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "key": cell.key,
        "method": cell.method,
        "seed": cell.seed,
        "settings": fingerprint(cell),
        "worlds": {},
    }
    with quiet_flower(logging.ERROR):
        trained = None
        if cell.training:
            memory, before = Memory(), time.process_time()
            decisions = {cell.decisions[name] for name in cell.worlds if name in cell.decisions}
            trained = train(cell.training, cell.start, decisions)
            cost = {"cpu_seconds": time.process_time() - before, "megabytes": memory.megabytes()}
    if trained:
        found["training"] = {
            "versions": trained.versions,
            "virtual_seconds": trained.seconds,
            "staleness": float(np.mean(trained.staleness)),
            "staleness_quantiles": quantiles(trained.staleness),
            "messages_per_node": trained.messages,
            "load": trained.load,
            **cost,
            "curve": trained.curve,
            "traffic": asdict(trained.traffic),
            "flushes": trained.flushes,
            **({"privacy": trained.privacy} if trained.privacy else {}),
        }
    policies = find_heuristics("heuristics", cell.policies)
    for name, world in cell.worlds.items():
        # The agents observe as they did in training; the arrivals are the same for all.
        observation = (cell.training or world).observation
        config = replace(world, observation=observation)
        scenario = config.build_scenario()
        if trained and cell.training:
            after = cell.decisions.get(name)
            actors = trained.actors if after is None else trained.earlier[after]
            policies = trained_policies(cell.training, actors, scenario)
        found["worlds"][name] = {
            "rho": scenario.rho,
            "agents": len(scenario.agents),
            "seeds": list(config.evaluation.seeds),
            "policies": evaluate(config, policies, cell.origins.get(name, ())),
        }
    spent = {"wall": time.monotonic() - begin, "cpu": time.process_time() - cpu}
    return {**found, "seconds": spent}


def fingerprint(cell: Cell) -> str:
    """Compute a digest of whatever a cell depends on: its settings, and heuristics of one's own."""
    configs = [*filter(None, [cell.training, cell.start]), *cell.worlds.values()]
    parts = [config.to_yaml() for config in configs]
    parts += [f"{name}: {cell.decisions[name]}" for name in cell.worlds if name in cell.decisions]
    parts += [f"{name}: {cell.origins[name]}" for name in cell.worlds if name in cell.origins]
    for name in cell.policies:
        if name not in BASELINES:
            parts += [name, _source(name)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _source(name: str) -> str:
    """Return the source of the module of a heuristic; empty if built in or compiled."""
    if name in POLICIES:
        return ""
    policy = find_heuristic("heuristics", name)
    try:
        module = inspect.getmodule(policy) or inspect.getmodule(type(policy))
        return inspect.getsource(module) if module else ""
    except (OSError, TypeError):
        return ""


def _plain(metrics: Metrics) -> dict[str, Any]:
    return {
        "created": metrics.created.tolist(),
        "finished_ratio": metrics.finished_ratio.tolist(),
        "response_mean": metrics.mean_response.tolist(),
        "response_p95": metrics.response_quantile(0.95),
        "lost": {kind: getattr(metrics, kind).tolist() for kind in LOSSES},
    }

"""The work of one cell: train in co-simulation, evaluate on worlds never used in training."""

import hashlib
import inspect
import logging
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from fauno_flwr.config.federation import GOSSIP
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.experiments.design import BASELINES, Cell
from fauno_flwr.experiments.load import Memory, quantiles
from fauno_flwr.experiments.watched import Traffic, WatchedGossip, WatchedGrid, actors_of
from fauno_flwr.federation.context import RunContext
from fauno_flwr.federation.gossip_training import make_training
from fauno_flwr.federation.handshake import handshake
from fauno_flwr.federation.logs import quiet_flower
from fauno_flwr.federation.run import make_members
from fauno_flwr.learning.agents import Arrays
from fauno_flwr.results.directory import RunDirectory, read_lines
from fauno_flwr.tasks.edge import EdgeTask
from fauno_flwr.tasks.heuristics import find_heuristic, find_heuristics
from fauno_flwr.tasks.transfer import make_trained, transfer
from sim_env.engine.state import LOSSES
from sim_env.evaluation import run_policy
from sim_env.policies.heuristics import BUILT_IN, Policy
from sim_env.scenario import Scenario
from sim_env.world import Metrics

SCHEMA_VERSION = 1
GREEDY, SAMPLED = "greedy", "sampled"


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
    if name in BUILT_IN:
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

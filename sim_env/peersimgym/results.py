"""Physics, topologies and metrics of the original simulator, for comparison with it.

PeersimGym (arXiv 2403.17637) is the Java simulator of the paper. :data:`PHYSICS` has all its known
:class:`sim_env.scenario.Quirks`.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sim_env.engine.state import CREATED, FINISHED, RESPONSE
from sim_env.errors import require_number
from sim_env.network.files import read_ether_json
from sim_env.peersimgym.config import Configured, read_config
from sim_env.policies.heuristics import Policy
from sim_env.scenario import PhysicsSpec, Quirks, Scenario, ScenarioSpec
from sim_env.workload.workload import WorkloadSpec
from sim_env.world import World

__all__ = ["PHYSICS", "Configured", "load", "measure", "read_config", "run_worlds"]

PHYSICS = PhysicsSpec(
    latency_unit="second",
    noise_bandwidth="message",
    hop_cap=1_000_000,
    cancel_in_service=False,
    quirks=Quirks(
        queue_order="lifo",
        keep_marks="first",
        arrivals="one_per_tick",
        serve_neighbours=True,
        self_hop=1,
        intake_period=2,
        publish="arrival",
        home_shortcut=True,
        cancel_on_arrival=False,
        expiry_grace=6,  # 5 in the original, counted from the beginning of a tick
        late_results="finished",
        client_forgets=True,
        tick_order="random",
    ),
)


def load(
    topology: str | Path,
    jobs: str | Path,
    arrival_rate: float,
    scale: int = 10,
    *,
    min_deadline: float = 30.0,
    physics: PhysicsSpec = PHYSICS,
    undivided_frequencies: bool = True,
) -> Scenario:
    """Build a scenario of the original from an Ether topology and a list of jobs.

    Parameters
    ----------
    topology : str or Path
        Ether JSON.
    jobs : str or Path
        CSV with ``instructions,size_mb``, or ``batch_task.csv``; a truncated file is rejected.
    arrival_rate : float
        Tasks per second and stream.
    scale : int, default 10
        Ticks per second.
    min_deadline : float, default 30
        d, in seconds: deadlines are uniform in [d, 2 d).
    physics : PhysicsSpec, default PHYSICS
        Its ``tick`` is replaced by 1 / `scale`.
    undivided_frequencies : bool, default True
        Whether a node executes ``cpu_milis * 1000`` instructions per tick, whatever a tick is, as
        in the original; else per second.
    """
    require_number("scale", scale, at_least=1)
    spec = ScenarioSpec(
        workload=WorkloadSpec(
            jobs="file",
            path=str(jobs),
            rate=arrival_rate,
            deadline_min=min_deadline,
            deadline_max=2 * min_deadline,
        ),
        physics=replace(physics, tick=1 / scale),
    )
    per_second = 1000.0 * scale if undivided_frequencies else 1000.0
    return Scenario(spec, topology=read_ether_json(topology, speed_per_millicpu=per_second))


def run_worlds(
    scenario: Scenario, policy: Policy, seeds: Sequence[int], ticks: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run one world per seed from the start.

    Returns
    -------
    created, finished : array of int64, shape (B,)
    response : array of float64, shape (B,)
        Mean of the finished tasks, in ticks.
    """
    require_number("ticks", ticks, at_least=1)
    for seed in seeds:
        require_number("seed", seed, at_least=0)
    world = World(scenario, seeds)
    world.run(policy, ticks, np.random.default_rng(list(seeds)))
    total = world.state.total
    finished = total[:, FINISHED].copy()
    return total[:, CREATED].copy(), finished, total[:, RESPONSE] / np.maximum(finished, 1)


def measure(scenario: Scenario, policy: Policy, seed: int, ticks: int) -> dict[str, Any]:
    """Run one world and count as the original does: tasks in flight at the end are unfinished.

    Returns
    -------
    dict
        ``finished_ratio``, ``response_ticks`` (of finished tasks), ``total``, ``finished``,
        ``seconds`` (of wall time).
    """
    started = time.perf_counter()
    created, finished, response = run_worlds(scenario, policy, [seed], ticks)
    return {
        "finished_ratio": float(finished[0] / max(created[0], 1)),
        "response_ticks": float(response[0]),
        "total": int(created[0]),
        "finished": int(finished[0]),
        "seconds": time.perf_counter() - started,
    }

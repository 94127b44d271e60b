"""Scenarios from the original simulator's configuration dictionaries.

The reader takes the output of its ``generate_config_dict``: manual networks and layered ones, task
types and traces, rates and schedules. It rejects what changes the physics and is not known here.
"""

import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sim_env.network.graph import Topology
from sim_env.peersimgym.network import add_links, build_network
from sim_env.peersimgym.values import Values, read_dictionary
from sim_env.scenario import PhysicsSpec, Scenario, ScenarioSpec
from sim_env.workload.jobs import MEGABYTE, JobTable, TaskType
from sim_env.workload.schedule import Schedule, Step, require_steps
from sim_env.workload.workload import WorkloadSpec

SIMULATIONS = ("basic", "basic-workload")
TASKS = "protocol.clt"
NO_TRACE = ("", "null", "none")
READ = """
    SIZE SCALE CYCLE CYCLES MINDELAY MAXDELAY CONTROLLERS CLOUD_EXISTS CLOUD_ACCESS NO_LAYERS
    NO_NODES_PER_LAYERS FREQS NO_CORES Q_MAX VARIATIONS MANUAL_CONFIG MANUAL_FREQS MANUAL_CORES
    MANUAL_QMAX RANDOMIZEPOSITIONS RANDOMIZETOPOLOGY init.Net0.POSITIONS init.Net1.TOPOLOGY
    init.Net1.r random.seed clientLayers layersThatGetTasks clientIsSelf schedules simtype
    protocol.clt.taskArrivalRate protocol.clt.numberOfTasks protocol.clt.weight protocol.clt.CPI
    protocol.clt.T protocol.clt.I protocol.clt.minDeadline protocol.clt.workloadPath
    protocol.clt.numberOfDAG protocol.clt.edges protocol.clt.vertices protocol.clt.clientClasses
    protocol.props.B protocol.props.P_ti protocol.urt.channelTypes
    protocol.urt.channelTypesBetweenLayers protocol.urt.SNR
""".split()  # noqa: SIM905
# Keys of rewards, energy, clouds and DAGs, and those that the original reads and does not use.
WITHOUT_EFFECT = """
    DROP CLOUD_POS protocol.cld.no_vms protocol.cld.VMProcessingPower protocol.mng.cycle
    protocol.mng.r_u protocol.mng.X_d protocol.mng.X_o utility_reward delay_weight overload_weight
    no_op_reward protocol.clt.dagWeights protocol.clt.defaultCPUWorkload
    protocol.clt.defaultMemoryWorkload protocol.props.Beta1 protocol.props.Beta2
    protocol.wrk.energyCostComm protocol.wrk.energyCostComp
""".split()  # noqa: SIM905


class Configured(NamedTuple):
    """A scenario of a configuration dictionary, and the ticks to run it."""

    scenario: Scenario
    ticks: int


def read_config(
    path: str | Path, physics: PhysicsSpec, *, undivided_frequencies: bool = True
) -> Configured:
    """Read a configuration dictionary of the original simulator.

    Parameters
    ----------
    path : str or Path
        JSON with the original's own keys (``SIZE``, ``init.Net1.TOPOLOGY``, ...); the values are
        text as there, or numbers, booleans and arrays.
    physics : PhysicsSpec
        The dictionary replaces its ``tick``, ``bandwidth``, ``power`` and kind of link.
    undivided_frequencies : bool, default True
        Whether the ``MANUAL_FREQS`` of a manual network are instructions per tick, as in the
        original, which divides only ``FREQS`` by ``SCALE``; else per second like these.

    Returns
    -------
    Configured
        Where the original draws the network at random, it is drawn from ``random.seed``.

    Warns
    -----
    UserWarning
        About keys that the original does not have; they have no effect.

    Raises
    ------
    ValueError
        For a file that is no such dictionary, a missing key, an impossible value, and features that
        this simulator lacks: clouds, DAGs, batches of decisions, additional delays, several kinds
        of channel, clients at other nodes than those that get their tasks.
    """
    values = read_dictionary(path)
    unknown = sorted(set(values.content) - {*READ, *WITHOUT_EFFECT})
    if unknown:
        warnings.warn(f"{values.where}: keys without effect: {', '.join(unknown)}", stacklevel=2)
    _refuse(values)
    scale = values.whole("SCALE", 1, at_least=1)
    topology, layer = build_network(values, scale, undivided=undivided_frequencies)
    physics = add_links(values, topology, layer, replace(physics, tick=1 / scale))
    workload = _workload(values, topology, layer)
    spec = ScenarioSpec(workload=workload, physics=physics)
    try:
        scenario = Scenario(spec, topology=topology, jobs=_jobs(values))
    except ValueError as error:
        raise ValueError(f"{values.where}: {error}") from error
    return Configured(scenario, values.whole("CYCLES", 1000, at_least=1) * scale)


def _refuse(values: Values) -> None:
    """Raise ``ValueError`` for keys that change the physics in a way that is not known here."""
    if values.text("simtype", SIMULATIONS[0]) not in SIMULATIONS:
        raise values.error("simtype", f"{' or '.join(SIMULATIONS)} (no batches, no DAGs)")
    if values.flag("CLOUD_EXISTS", False) and any(values.numbers("CLOUD_ACCESS")):
        raise values.error(
            "CLOUD_EXISTS", "0, or CLOUD_ACCESS 0 everywhere: there is no cloud here"
        )
    for key, allowed in (("numberOfDAG", "1"), ("vertices", "1"), ("edges", "")):
        if values.text(f"{TASKS}.{key}", allowed) != allowed:
            raise values.error(f"{TASKS}.{key}", f"{allowed!r}: there are no DAGs of tasks here")
    for key, only in (("MINDELAY", 0.0), ("MAXDELAY", 0.0), ("CYCLE", 1.0)):
        if values.number(key, only) != only:
            raise values.error(key, f"{only:g}")
    if f"{TASKS}.clientClasses" in values:
        raise values.error(f"{TASKS}.clientClasses", "left out: all clients draw from all types")


def _workload(values: Values, topology: Topology, layer: np.ndarray) -> WorkloadSpec:
    """Build rates, schedule and deadlines."""
    least = float(max(values.whole(f"{TASKS}.minDeadline"), 0))
    plans = _plans(values)
    first = next(iter(plans.values()))
    rate, rates, schedule = 1.0, {}, Schedule()
    if all(len({each for each, _ in plan}) == 1 for plan in plans.values()):
        rate = first[0][0]
        for node in np.flatnonzero(topology.is_source).tolist():
            own = plans[int(layer[node])][0][0]
            if own != rate:
                rates[topology.names[node]] = own
    elif any(plan != first for plan in plans.values()):
        raise values.error("schedules", "the same for all layers, or rates that do not change")
    else:
        steps = [Step(multiplier, seconds) for multiplier, seconds in first]
        schedule = Schedule(kind="steps", steps=steps)
    return WorkloadSpec(
        rate=rate,
        source_rates=rates,
        schedule=schedule,
        deadline_min=least,
        deadline_max=2 * least,
    )


def _plans(values: Values) -> dict[int, list[tuple[float, float]]]:
    """Read rate and seconds of each step, for each layer that gets tasks."""
    layers = values.wholes("layersThatGetTasks")
    if "schedules" not in values:
        rate = values.number(f"{TASKS}.taskArrivalRate", above=0)
        return {each: [(rate, 1.0)] for each in layers}
    written = values.raw("schedules")
    texts = written if isinstance(written, list) else str(written).strip().rstrip(";").split(";")
    if len(texts) != len(layers):
        raise values.error("schedules", f"{len(layers)} schedules, as layersThatGetTasks has")
    try:
        return {each: _steps(str(text)) for each, text in zip(layers, texts, strict=True)}
    except ValueError as error:
        raise values.error("schedules", "such as 1-100,2.5-50;1-150, rate-seconds") from error


def _steps(text: str) -> list[tuple[float, float]]:
    """Parse ``rate-seconds,rate-seconds,...``; ``ValueError`` for anything else."""
    pairs = []
    for part in text.split(","):
        rate, _, seconds = part.strip().rpartition("-")
        pairs.append((float(rate), float(seconds)))
    require_steps([Step(rate, seconds) for rate, seconds in pairs])
    return pairs


def _jobs(values: Values) -> JobTable:
    """Build task types with the original's probabilities, or equally likely jobs of a trace."""
    work = values.numbers(f"{TASKS}.I", at_least=0)
    count = values.whole(f"{TASKS}.numberOfTasks", len(work), at_least=1)
    columns = {"I": work, "T": values.numbers(f"{TASKS}.T", at_least=0)}
    for name in ("CPI", "weight"):
        known = f"{TASKS}.{name}" in values
        columns[name] = values.numbers(f"{TASKS}.{name}", at_least=0) if known else [1.0] * count
    for name, column in columns.items():
        if len(column) != count:
            raise values.error(f"{TASKS}.{name}", f"{count} numbers, not {len(column)}")
    instructions = np.array(work) * columns["CPI"]
    size, weight = np.array(columns["T"]), np.array(columns["weight"])
    if not weight.sum() > 0:
        raise values.error(f"{TASKS}.weight", "weights of which one at least is above 0")
    if _is_trace(values, weight):
        return JobTable(instructions, size * MEGABYTE, size * MEGABYTE)
    return JobTable.from_types(
        [
            TaskType(float(instructions[kind]), float(size[kind]), weight=share)
            for kind, share in enumerate(picked_shares(weight))
            if share > 0
        ]
    )


def _is_trace(values: Values, weight: np.ndarray) -> bool:
    if "simtype" in values:
        return values.text("simtype", "") == "basic-workload"
    return values.text(f"{TASKS}.workloadPath", "").lower() not in NO_TRACE and bool(
        np.all(weight == weight[0])
    )


def picked_shares(weights: np.ndarray) -> np.ndarray:
    """Compute the probabilities with which the original draws its task types.

    It draws from [0, n), where n is the number of types, and searches for the value among the
    cumulative probabilities, which end at 1: the last type gets the rest. Moreover its binary
    search returns the place of its last comparison, not always the first that is larger.

    Parameters
    ----------
    weights : array of float, shape (n,)
        Not all 0.

    Returns
    -------
    array of float, shape (n,)
    """
    ends = np.cumsum(np.asarray(weights, float) / np.sum(weights))
    shares = np.zeros(len(ends))
    edges = np.unique([0.0, *ends[ends < len(ends)], len(ends)])
    for low, high in pairwise(edges.tolist()):
        shares[_looked_last(ends, (low + high) / 2)] += (high - low) / len(ends)
    return shares


def _looked_last(ends: np.ndarray, drawn: float) -> int:
    left, right, place = 0, len(ends) - 1, -1
    while left <= right:
        place = (left + right) // 2
        if ends[place] > drawn:
            right = place - 1
        else:
            left = place + 1
    return place

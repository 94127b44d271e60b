"""Rules that tests name by import path: built-in ones re-implemented in numpy, and wrong ones."""

import networkx as nx
import numba
import numpy as np

from sim_env.engine import features as f
from sim_env.engine.features import Encoding
from sim_env.engine.observation import Observation
from sim_env.network.graph import Topology
from sim_env.network.topology import TopologySpec
from sim_env.workload.workload import JobTable, WorkloadSpec

PATH = __name__


def sed(observation: Observation, rng: np.random.Generator) -> np.ndarray:
    """Choose the shortest expected delay."""
    return np.where(observation.mask, observation.delay, np.inf).argmin(axis=1)


class Sed:
    """The same as a class."""

    def __call__(self, observation: Observation, rng: np.random.Generator) -> np.ndarray:
        """Choose the shortest expected delay."""
        return sed(observation, rng)


class NeedsArguments:
    """A policy that cannot be made without arguments."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold


def fast_sed(observation: Observation, rng: np.random.Generator) -> np.ndarray:
    """Fail if it is called: its compiled twin runs instead."""
    raise AssertionError("the compiled twin was not used")


@numba.njit
def _fast_sed(local, destination, mask):
    best, least = 0, np.inf
    for k in range(len(mask)):
        d = destination[k]
        delay = d[f.WAIT] + d[f.EXECUTE] + d[f.SEND] + d[f.BACK]
        if mask[k] and delay < least:
            best, least = k, delay
    return best


fast_sed.compiled = _fast_sed  # type: ignore[attr-defined]


def delay(observation: Observation) -> np.ndarray:
    """Compute the reward ``delay`` with the defaults of its parameters, for ticks of 0.1 s."""
    d = observation.destination
    capacity, queue = d[:, :, f.CAPACITY], d[:, :, f.QUEUE]
    sent = np.arange(capacity.shape[1]) > 0
    free = np.maximum((capacity - queue - sent) / capacity, 0.001)
    return 1.0 - np.minimum(observation.delay, 600.0) / 100.0 + 3.0 * np.log10(free)


def encode_paper(local, destination, mask, out_local, out_destination) -> None:
    """Encode as the observation ``paper``."""
    own = destination[:, 0]
    out_local[:, 0] = 1.0
    out_local[:, 1] = local[:, f.LOAD] / own[:, f.CAPACITY]
    out_local[:, 2] = np.log2(own[:, f.SPEED] / f.REFERENCE_SPEED) / 4
    out_local[:, 3] = np.minimum(mask.sum(axis=1) / 10, 10.0)
    out_local[:, 4] = np.log(1 + own[:, f.EXECUTE]) / 4
    out_local[:, 5] = np.log(1 + local[:, f.MEGABYTES]) / 4
    out_local[:, 6] = np.log(1 + local[:, f.OUTPUT_MEGABYTES]) / 4
    rows, slots = np.nonzero(mask)
    legal = destination[rows, slots]
    fill = legal[:, f.QUEUE] / legal[:, f.CAPACITY]
    free = (legal[:, f.CAPACITY] - legal[:, f.QUEUE]) / legal[:, f.CAPACITY]
    out_destination[rows, slots] = np.stack([fill, free, slots == 0], axis=1)


PAPER = Encoding(7, 3, encode_paper)
FULL = Encoding(12, 10, f.encode_full, delay=7)


def star(spec: TopologySpec) -> nx.Graph:
    """Build a star of ``spec.nodes`` Raspberry Pis around a NUC."""
    graph = nx.star_graph(spec.nodes - 1)
    for node in graph:
        graph.nodes[node].update(speed=1e8, capacity=20, pos=(node, node % 2))
        graph.nodes[node]["role"] = "rpi" if node else "nuc"
    return graph


def pair(spec: TopologySpec) -> Topology:
    """Build two linked nodes."""
    return Topology(
        names=["a", "b"],
        roles=["rpi", "rpi"],
        speed=np.full(2, 1e8),
        capacity=np.full(2, 10),
        position=np.eye(2),
        neighbours=[[1], [0]],
        is_agent=np.ones(2, bool),
        is_source=np.ones(2, bool),
    )


def equal_jobs(spec: WorkloadSpec) -> JobTable:
    """Make one kind of job."""
    return JobTable(np.array([1e7]), np.array([8e6]), np.array([8e6]))


def fails(*_: object) -> None:
    """Raise."""
    raise KeyError("no such thing")


def gives(value: object):
    """Return a function that ignores its arguments."""
    return lambda *_: value


three, words, infinite = gives(3), gives("words"), gives(np.inf)
empty_graph = gives(nx.Graph())
wrong_shape = gives(np.zeros(3))


def not_finite(observation: Observation) -> np.ndarray:
    """Return infinite rewards."""
    return np.full(observation.mask.shape, np.inf)


def texts(observation: Observation) -> np.ndarray:
    """Return text."""
    return np.full(observation.mask.shape, "much")


def _spoilt(local: float, destination: float, first: float):
    def encode(_local, _destination, mask, out_local, out_destination) -> None:
        out_local[:, 0], out_local[:, 1] = first, local
        out_destination[:] = destination

    return encode


NAN = Encoding(2, 1, _spoilt(np.nan, 0.0, 1.0))
NO_MARK = Encoding(2, 1, _spoilt(0.0, 0.0, 0.5))
UNMASKED = Encoding(2, 1, _spoilt(0.0, 1.0, 1.0))

"""Recordings in one file, with all that drawing them needs."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sim_env.engine.observation import Observation
from sim_env.engine.state import LOSSES, SENT_ON, SERVED
from sim_env.envs.places import MARGIN, beside, places, radii
from sim_env.policies.heuristics import Policy
from sim_env.replay.recording import LONGEST, Decisions, Recording, Scores, record
from sim_env.scenario import Scenario

SCHEMA_VERSION = 1
MOST_TASKS = 300_000  # of all recordings together: about 4 MB in a page
MOST_NAMES = 60  # more are illegible
PAPER = np.array([560.0, 430.0])  # points


@dataclass(frozen=True)
class Replay:
    """Recordings of one network, each of another policy.

    Parameters
    ----------
    network : dict
        What is drawn, as JSON has it: ``tick`` (seconds), ``paper`` (its size, points); by node
        ``names``, ``roles``, ``x``, ``y``, ``radius`` (points), ``labels`` (middle of the name),
        ``capacity``, ``rate`` (births per second), ``slots`` (the node and its neighbours, by
        action); by job ``sizes`` (tenths of the edge of a cube of its work, where that of mean
        work is 10); ``losses`` (kinds and their counters).
    recordings : sequence of Recording
    """

    network: Mapping[str, Any]
    recordings: Sequence[Recording]


def describe_network(scenario: Scenario) -> dict[str, Any]:
    """Describe a network as :class:`Replay` has it."""
    topology, net = scenario.topology, scenario.net
    radius = radii(topology, PAPER)
    place, _ = places(topology, PAPER, radius)
    links = np.array([(a, b) for a, row in enumerate(topology.neighbours) for b in row if a < b])
    ends = place[links.astype(int).reshape(-1, 2)]
    labels = (
        place
        if topology.num_nodes > MOST_NAMES
        else beside(topology.names, place, radius, ends, PAPER[0])
    )
    # On paper up is up, on a screen it is down; blank margins are cut off.
    top = float(np.max(place[:, 1] + radius)) + MARGIN
    height = top - float(np.min(place[:, 1] - radius)) + MARGIN
    return {
        "tick": scenario.spec.physics.tick,
        "paper": [PAPER[0].item(), round(height, 1)],
        "names": list(topology.names),
        "roles": list(topology.roles),
        "x": place[:, 0].round(1).tolist(),
        "y": (top - place[:, 1]).round(1).tolist(),
        "labels": np.stack([labels[:, 0], top - labels[:, 1]], axis=1).round(1).tolist(),
        "radius": radius.round(2).tolist(),
        "capacity": net.capacity.tolist(),
        "rate": (net.arrivals / scenario.spec.physics.tick).tolist(),
        "slots": [net.destinations(node).tolist() for node in range(len(net.speed))],
        "sizes": np.rint(10 * np.cbrt(net.job_work / max(net.mean_work, 1e-9)))
        .astype(int)
        .tolist(),
        "losses": dict(LOSSES),
    }


def record_policies(
    scenario: Scenario,
    policies: Mapping[str, Policy],
    seed: int,
    *,
    warmup: int = 600,
    window: int = 2000,
    scores: Mapping[str, Callable[[Observation], Scores]] | None = None,
) -> Replay:
    """Record the same world under several policies: :func:`~sim_env.replay.recording.record`.

    Recordings of very many tasks end early.

    Parameters
    ----------
    scenario : Scenario
    policies : mapping of str to Policy
    seed : int
    warmup, window : int, default 600 and 2000
    scores : mapping of str to callable, optional
        By policy.
    """
    each_tick = max(scenario.net.births * len(policies), 1e-9)
    longest = int(min(LONGEST, max(MOST_TASKS / each_tick, 1)))
    recordings = [
        record(
            scenario,
            policy,
            seed,
            name=name,
            warmup=warmup,
            window=window,
            longest=longest,
            scores=(scores or {}).get(name),
        )
        for name, policy in policies.items()
    ]
    return Replay(describe_network(scenario), recordings)


def to_columns(events: np.ndarray) -> np.ndarray:
    """Return events as columns of small numbers, which compress well, shape (5, E).

    Task by task; ticks and serial numbers are differences to the row before, and the tick of an
    arrival is a difference to that of the departure.
    """
    rows = events[np.argsort(events[:, 2], kind="stable")]
    columns = rows.T.copy()
    columns[4] -= np.where(np.isin(rows[:, 1], (SENT_ON, SERVED)), rows[:, 0], 0)
    columns[[0, 2]] = np.diff(columns[[0, 2]], prepend=0)
    return columns


def from_columns(columns: np.ndarray) -> np.ndarray:
    """Return the events that :func:`to_columns` has packed, in the order of ticks."""
    rows = columns.T.copy()
    rows[:, [0, 2]] = rows[:, [0, 2]].cumsum(axis=0)
    rows[:, 4] += np.where(np.isin(rows[:, 1], (SENT_ON, SERVED)), rows[:, 0], 0)
    return np.asarray(rows[np.argsort(rows[:, 0], kind="stable")])


def save_replay(replay: Replay, path: Path) -> None:
    """Write a replay as compressed arrays (``.npz``)."""
    about: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    for number, recording in enumerate(replay.recordings):
        about.append(
            {
                "policy": recording.policy,
                "seed": recording.seed,
                "window": recording.window,
                "ticks": recording.ticks,
                "complete": recording.complete,
                "decisions": recording.decisions is not None,
            }
        )
        arrays[f"{number}.events"] = to_columns(recording.events)
        arrays |= {f"{number}.nodes": recording.nodes, f"{number}.links": recording.links}
        if recording.decisions is not None:
            for name, array in recording.decisions._asdict().items():
                arrays[f"{number}.decisions.{name}"] = array
    header = {"schema_version": SCHEMA_VERSION, "network": replay.network, "recordings": about}
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with path.open("wb") as file:
        np.savez_compressed(file, header=text, **arrays)  # type: ignore[arg-type]


def load_replay(path: Path) -> Replay:
    """Read a replay.

    Raises
    ------
    ValueError
        If the file is none, or of another version.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
            if header["schema_version"] != SCHEMA_VERSION:
                raise ValueError(
                    f"its schema_version is {header['schema_version']!r}: must be {SCHEMA_VERSION}"
                )
            recordings = [
                _recording(file, number, about) for number, about in enumerate(header["recordings"])
            ]
            return Replay(header["network"], recordings)
    except Exception as error:  # a damaged file raises errors of many classes
        raise ValueError(f"{str(path)!r} cannot be read as a replay: {error}") from error


def _recording(file: Any, number: int, about: Mapping[str, Any]) -> Recording:
    decisions = None
    if about["decisions"]:
        fields = {name: file[f"{number}.decisions.{name}"] for name in Decisions._fields}
        decisions = Decisions(**fields)
    return Recording(
        policy=about["policy"],
        seed=about["seed"],
        window=(about["window"][0], about["window"][1]),
        ticks=about["ticks"],
        complete=about["complete"],
        events=from_columns(file[f"{number}.events"]),
        nodes=file[f"{number}.nodes"],
        links=file[f"{number}.links"],
        decisions=decisions,
    )

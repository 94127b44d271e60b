"""What the nodes report while they learn, as curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fauno_flwr.results.report import is_number
from strategies.privacy import CLIP, NOISE_MULTIPLIER

# Metrics of the replies with a unit or a meaning of their own: scale and label, in their order.
LABELS = {
    "finished-of-ended": (100.0, "finished of the ended tasks, %"),
    "response": (1.0, "response of finished tasks, s"),
    "return": (1.0, "return per episode"),
    "reward": (1.0, "reward per decision"),
    "policy-loss": (1.0, "policy loss"),
    "value-loss": (1.0, "value loss"),
    "loss": (1.0, "loss"),
    "entropy": (1.0, "entropy of the policy"),
    "approx-kl": (1.0, "KL divergence, approximate"),
    "clip-fraction": (1.0, "clipped fraction"),
    "explained-variance": (1.0, "explained variance"),
    "value": (1.0, "mean action value"),
    "epsilon": (1.0, "exploration, epsilon"),
}
# Of the message, not of learning.
BOOKKEEPING = ("num-steps", "messages", "seconds", CLIP, NOISE_MULTIPLIER)
EVALUATED = {
    "eval/finished_ratio": (100.0, "evaluation: finished tasks, %"),
    "eval/response": (1.0, "evaluation: response of finished tasks, s"),
    "eval/return": (1.0, "evaluation: return per episode"),
}
VERSION, CLOCK, WALL, DECISIONS = AXES = ("version", "clock", "wall", "decisions")
LOW, HIGH = 0.1, 0.9  # quantiles of the band
Row = Mapping[str, Any]


@dataclass(frozen=True)
class NodeCurves:
    """Metrics of R replies, node by node and in the order of time.

    Parameters
    ----------
    names : list of str
        The nodes.
    first : array of int, shape (N + 1,)
        The replies of node i are ``first[i]`` to ``first[i + 1]``.
    axes : dict of str to array of float, shape (R,)
        By kind of time; see :func:`axes_of`.
    metrics : dict of str to array of float, shape (R,)
        NaN where a reply lacks it; scaled as their label says.
    """

    names: list[str]
    first: np.ndarray
    axes: dict[str, np.ndarray]
    metrics: dict[str, np.ndarray]


@dataclass(frozen=True)
class MeanCurves:
    """Metrics by the version that was trained from: V versions with a reply.

    Parameters
    ----------
    axes : dict of str to array of float, shape (V,)
        Means over the replies.
    replies : array of int, shape (V,)
    metrics : dict of str to tuple of three arrays of float, shape (V,)
        Mean over the replies, and the limits of the band.
    """

    axes: dict[str, np.ndarray]
    replies: np.ndarray
    metrics: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]


def label_of(metric: str) -> tuple[float, str]:
    """Return scale and label of a metric."""
    known = {**LABELS, **EVALUATED}
    return known.get(metric, (1.0, metric.partition("/")[2].replace("_", " ") or metric))


def axes_of(
    versions: np.ndarray, seconds: np.ndarray, rows: Sequence[Row]
) -> dict[str, np.ndarray]:
    """Return the times of replies, by kind.

    Parameters
    ----------
    versions : array of int, shape (R,)
        That they were trained from.
    seconds : array of float, shape (R,)
        At which they came.
    rows : sequence of dict
        One per version, with their times. Between two versions, wall-clock time and decisions are
        interpolated.

    Returns
    -------
    dict of str to array of float, shape (R,)
        ``version`` and ``clock``; where the rows have it, ``wall``, if the clock is another one,
        and ``decisions``.
    """
    axes = {VERSION: versions.astype(float), CLOCK: seconds}
    virtual = "time/virtual" if any("time/virtual" in row for row in rows) else "time/wall"
    for name, key in ((WALL, "time/wall"), (DECISIONS, "time/total_timesteps")):
        known = [(row[virtual], row[key]) for row in rows if virtual in row and key in row]
        if known and key != virtual:
            x, y = np.array([(0.0, 0.0), *known], float).T
            axes[name] = np.interp(seconds, x, y)
    return axes


def node_curves(events: Sequence[Row], rows: Sequence[Row]) -> NodeCurves:
    """Return the metrics of all replies to training messages that were accepted.

    Parameters
    ----------
    events : sequence of dict
    rows : sequence of dict
        One per version, for :func:`axes_of`.
    """
    replies = [event for event in events if event["event"] == "reply"]
    replies = [reply for reply in replies if "metrics" in reply]
    names = sorted({reply["name"] for reply in replies}, key=natural)
    place = {name: number for number, name in enumerate(names)}
    replies.sort(key=lambda reply: place[reply["name"]])
    owner = np.array([place[reply["name"]] for reply in replies], int)
    versions = np.array([reply["version"] for reply in replies], int)
    seconds = np.array([reply["t"] for reply in replies], float)
    found = {
        key
        for reply in replies
        for key, value in reply["metrics"].items()
        if is_number(value) and key not in BOOKKEEPING
    }
    ordered = [key for key in LABELS if key in found] + sorted(found - set(LABELS))
    metrics = {
        key: label_of(key)[0]
        * np.array(
            [
                value if is_number(value := reply["metrics"].get(key)) else np.nan
                for reply in replies
            ]
        )
        for key in ordered
    }
    first = np.searchsorted(owner, np.arange(len(names) + 1))
    return NodeCurves(names, first, axes_of(versions, seconds, rows), metrics)


def mean_curves(nodes: NodeCurves) -> MeanCurves:
    """Return the mean over the replies by version, and the band from 10 to 90 % of them."""
    versions, owner = np.unique(nodes.axes[VERSION], return_inverse=True)
    groups = [np.flatnonzero(owner == number) for number in range(len(versions))]
    axes = {
        name: np.array([values[group].mean() for group in groups])
        for name, values in nodes.axes.items()
    }
    metrics = {}
    for name, values in nodes.metrics.items():
        known = [values[group][np.isfinite(values[group])] for group in groups]
        lines = [
            np.array([measure(some) if some.size else np.nan for some in known])
            for measure in (np.mean, _low, _high)
        ]
        metrics[name] = (lines[0], lines[1], lines[2])
    return MeanCurves(axes, np.array([len(group) for group in groups], int), metrics)


def evaluations(rows: Sequence[Row]) -> dict[str, dict[str, np.ndarray]]:
    """Return the evaluations during training: by metric, its times by kind, and its ``value``."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for metric in dict.fromkeys(key for row in rows for key in row if key.startswith("eval/")):
        some = [row for row in rows if is_number(row.get(metric))]
        clock = "time/virtual" if any("time/virtual" in row for row in rows) else "time/wall"
        keys = {VERSION: "version", CLOCK: clock, DECISIONS: "time/total_timesteps"}
        if clock != "time/wall":
            keys[WALL] = "time/wall"
        columns = {
            name: np.array([row.get(key, np.nan) for row in some], float)
            for name, key in keys.items()
        }
        values = np.array([row[metric] for row in some], float)
        if some:
            found[metric] = {**columns, "value": label_of(metric)[0] * values}
    return found


def natural(name: str) -> tuple[str, int, str]:
    """Return a key that sorts ``rpi_2`` before ``rpi_10``."""
    stem, _, number = name.rpartition("_")
    return (stem, int(number), "") if number.isdecimal() else (name, 0, name)


def _low(values: np.ndarray) -> float:
    return float(np.quantile(values, LOW))


def _high(values: np.ndarray) -> float:
    return float(np.quantile(values, HIGH))

"""Time to target: when a network in training avoids half of LeastQueue's losses."""

from collections.abc import Mapping, Sequence

import numpy as np

from fauno_flwr.experiments.summary import Row, Summary
from fauno_flwr.results.statistics import mean

AVOIDED = 0.5  # of LeastQueue's losses, at the target
SMOOTHING = 3  # points of a curve


def times_to_target(summary: Summary) -> list[Row]:
    """Compute the virtual seconds until a network in training avoids half of LeastQueue's losses.

    The finished ratio of the curve is smoothed by a running mean over three points.

    Returns
    -------
    list of dict
        One row per condition and method: ``target`` (finished ratio), ``seconds`` and ``end`` (of
        the training) by seed, and the mean ``staleness``. A seed that never reaches the target for
        good has None. Where the curves tell, also the ``versions`` made until then.
    """
    rows = []
    for condition, methods in summary.curves.items():
        lost = 1 - float(mean(summary.samples[condition]["lq"].finished_ratio.ravel()))
        target = 1 - (1 - AVOIDED) * lost
        for method, runs in methods.items():
            times = [_reached(run["curve"], target) for run in runs]
            rows.append(
                {
                    "condition": condition,
                    "method": method,
                    "target": target,
                    "seconds": times,
                    "end": [run["virtual_seconds"] for run in runs],
                    "staleness": float(np.mean([run["staleness"] for run in runs])),
                }
            )
            if all("versions" in run["curve"] for run in runs):  # not so in older cells
                curves = [run["curve"] for run in runs]
                rows[-1]["versions"] = [_versions(c, t) for c, t in zip(curves, times, strict=True)]
    return rows


def _reached(curve: Mapping[str, Sequence[float | None]], target: float) -> float | None:
    finished = np.array(curve["finished"], float)
    # The first tenth is left out: a network that starts empty finishes nearly everything.
    begin = len(finished) // 10
    smooth = np.array(
        [mean(finished[i - SMOOTHING + 1 : i + 1]) for i in range(begin + SMOOTHING, len(finished))]
    )
    below = np.flatnonzero(~(smooth >= target))
    first = 0 if below.size == 0 else int(below[-1]) + 1
    if first >= len(smooth):
        return None
    return float(np.asarray(curve["seconds"], float)[begin + SMOOTHING + first])


def _versions(curve: Mapping[str, Sequence[float | None]], seconds: float | None) -> int | None:
    """Return the versions made by then; None for never."""
    if seconds is None:
        return None
    moments, versions = (np.array(curve[name], float) for name in ("seconds", "versions"))
    return int(np.interp(seconds, moments, versions))

"""What the cells say together: estimates, paired differences, verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fauno_flwr.experiments.cells import GREEDY, SAMPLED
from fauno_flwr.experiments.design import BASELINES, HEURISTICS, Experiment
from fauno_flwr.results.statistics import (
    BETTER,
    TIE,
    WORSE,
    Estimate,
    crossed,
    estimate,
    iqm,
    mean,
    probability_of_improvement,
)
from sim_env.policies.heuristics import TITLES

FINISHED, RESPONSE = "finished_ratio", "response_mean"
SIGN = {FINISHED: 1.0, RESPONSE: -1.0}  # what makes larger better
# Where LeastQueue loses more than this, tasks are lost that need not be: the ratio decides.
LOSSES_THAT_DECIDE = 0.01
AVOIDED = 0.5  # of LeastQueue's losses, at the target
SMOOTHING = 3  # points of a curve
Cells = Sequence[Mapping[str, Any]]
Row = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """One policy in one condition: a matrix of seeds x worlds for each measure.

    Parameters
    ----------
    finished_ratio, response_mean : array of float, shape (S, W)
        Response in seconds; NaN where it is not defined. S is 1 for a heuristic.
    lost : dict of str to float
        Fraction lost, by kind.
    """

    finished_ratio: np.ndarray
    response_mean: np.ndarray
    lost: dict[str, float]

    def measure(self, name: str) -> np.ndarray:
        """The matrix of a measure."""
        return np.asarray(getattr(self, name))


@dataclass(frozen=True)
class Summary:
    """All samples of an experiment, by condition and policy.

    Parameters
    ----------
    experiment : Experiment
    titles : dict of str to str
        Of the conditions, by name.
    samples : dict
        ``samples[condition][policy]``; policies are methods as they are compared, methods with
        ``-sampled`` (or ``-greedy``, where the method itself is sampled) and heuristics.
    rho : dict of str to float
        Offered load of each condition.
    curves : dict
        ``curves[condition][method]``: a list with what ``training`` says of each seed.
    """

    experiment: Experiment
    titles: dict[str, str]
    samples: dict[str, dict[str, Sample]]
    rho: dict[str, float]
    curves: dict[str, dict[str, list[Mapping[str, Any]]]]

    def title(self, policy: str) -> str:
        """Name of a policy in tables and figures."""
        if policy in TITLES:
            return TITLES[policy]
        methods = self.experiment.methods
        if policy in methods:
            return methods[policy].title
        method, _, actions = policy.rpartition("-")
        return f"{methods[method].title}, {actions}"

    def pairs(self, rival: str) -> dict[str, tuple[Sample, Sample]]:
        """The first method and a rival, by condition, where both are there."""
        ours = next(iter(self.experiment.methods))
        return {
            condition: (samples[ours], samples[rival])
            for condition, samples in self.samples.items()
            if ours in samples and rival in samples
        }


def summarise(experiment: Experiment, titles: dict[str, str], cells: Cells) -> Summary:
    """Put cells together."""
    samples: dict[str, dict[str, Sample]] = {}
    rho: dict[str, float] = {}
    curves: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {name: {} for name in titles}
    for cell in cells:
        for condition, world in cell["worlds"].items():
            rho[condition] = world["rho"]
            for policy, metrics in world["policies"].items():
                name = _name(experiment, cell["method"], policy)
                found[condition].setdefault(name, []).append(metrics)
        if "training" in cell:
            trained_in = cell["key"].partition(".")[0]
            runs = curves.setdefault(trained_in, {}).setdefault(cell["method"], [])
            runs.append(cell["training"])
    for condition, policies in found.items():
        samples[condition] = {name: _sample(runs) for name, runs in policies.items()}
    return Summary(experiment, titles, samples, rho, curves)


def _name(experiment: Experiment, method: str, policy: str) -> str:
    if method == HEURISTICS:
        return policy
    compared = GREEDY if experiment.methods[method].greedy else SAMPLED
    return method if policy == compared else f"{method}-{policy}"


def _sample(runs: Sequence[Mapping[str, Any]]) -> Sample:
    created = np.sum([run["created"] for run in runs])
    return Sample(
        np.array([run[FINISHED] for run in runs], float),
        np.array([run[RESPONSE] for run in runs], float),
        {
            kind: float(np.sum([run["lost"][kind] for run in runs]) / created)
            for kind in runs[0]["lost"]
        },
    )


def table(summary: Summary) -> list[Row]:
    """One row per condition and policy: mean (two-way Student) and IQM (bootstrap)."""
    return [
        {
            "condition": condition,
            "rho": summary.rho[condition],
            "policy": policy,
            "seeds": len(sample.finished_ratio),
            "worlds": sample.finished_ratio.shape[1],
            **{
                measure: {
                    "mean": asdict(crossed(sample.measure(measure))),
                    "iqm": asdict(estimate([sample.measure(measure)], iqm)),
                }
                for measure in SIGN
            },
            "lost": sample.lost,
        }
        for condition, samples in summary.samples.items()
        for policy, sample in samples.items()
    ]


def difference(ours: Sample, theirs: Sample, measure: str) -> Estimate:
    """Ours minus theirs, world by world and, between methods, seed by seed; larger is better.

    Response is turned around: it is by how much ours is shorter.
    """
    seeds = min(len(ours.finished_ratio), len(theirs.finished_ratio))
    a, b = ours.measure(measure), theirs.measure(measure)
    if len(b) > 1:
        a, b = a[:seeds], b[:seeds]
    return crossed(SIGN[measure] * (a - b))


def differences(summary: Summary) -> list[Row]:
    """One row per condition, rival of the first method, and measure."""
    return [
        {
            "condition": condition,
            "rival": rival,
            "measure": measure,
            "decides": measure == deciding(summary, condition),
            **asdict(found := difference(ours, theirs, measure)),
            "verdict": found.verdict,
        }
        for rival in _rivals(summary)
        for condition, (ours, theirs) in summary.pairs(rival).items()
        for measure in SIGN
    ]


def deciding(summary: Summary, condition: str) -> str:
    """The measure that decides: finished ratio where LeastQueue loses tasks, else response."""
    lost = 1 - float(mean(summary.samples[condition]["lq"].finished_ratio.ravel()))
    return FINISHED if lost > LOSSES_THAT_DECIDE else RESPONSE


def overall(summary: Summary) -> list[Row]:
    """Over all conditions: mean and IQM of the differences, probability of improvement."""
    rows = []
    for rival in _rivals(summary):
        pairs = list(summary.pairs(rival).values())
        for measure, sign in SIGN.items() if pairs else ():
            ours = [sign * a.measure(measure) for a, _ in pairs]
            theirs = [sign * b.measure(measure) for _, b in pairs]
            strata = [
                a[: len(b)] - b[: len(a)] if len(b) > 1 else a - b
                for a, b in zip(ours, theirs, strict=True)
            ]
            rows.append(
                {
                    "rival": rival,
                    "measure": measure,
                    "conditions": len(pairs),
                    "mean": asdict(estimate(strata, mean)),
                    "iqm": asdict(estimate(strata, iqm)),
                    "probability_of_improvement": asdict(probability_of_improvement(ours, theirs)),
                }
            )
    return rows


def _rivals(summary: Summary) -> list[str]:
    """Those asked for, then the other methods, then the other heuristics."""
    first, *others = summary.experiment.methods
    asked = [rival for rival in summary.experiment.rivals if rival != first]
    return list(dict.fromkeys([*asked, *others, *BASELINES]))


def not_better_than(summary: Summary, rival: str) -> list[str]:
    """Sentences on the conditions in which the first method does not beat a rival.

    That is: it is not better by the measure that decides, or is worse by the other one.
    """
    lines = []
    for condition, (ours, theirs) in summary.pairs(rival).items():
        measure = deciding(summary, condition)
        found = {m: difference(ours, theirs, m) for m in SIGN}
        verdicts = {m: found[m].verdict for m in SIGN}
        if verdicts[measure] == BETTER and WORSE not in verdicts.values():
            continue
        what = IN_WORDS[verdicts[measure]]
        lines.append(
            f"{summary.titles[condition]}: {what} (decided by {WORDS[measure]}): "
            f"finished {in_words(FINISHED, found[FINISHED])}, "
            f"response {in_words(RESPONSE, found[RESPONSE])}"
        )
    return lines


WORDS = {FINISHED: "the finished ratio", RESPONSE: "the response"}
IN_WORDS = {BETTER: "better, but worse in the other measure", TIE: "a tie", WORSE: "worse"}


def in_words(measure: str, found: Estimate) -> str:
    """A difference in points or seconds, with the sign of ours - theirs."""
    if measure == FINISHED:
        value, low, high = (100 * x for x in (found.value, found.low, found.high))
        return f"{value:+.2f} [{low:+.2f}, {high:+.2f}] points"
    return f"{-found.value:+.2f} [{-found.high:+.2f}, {-found.low:+.2f}] s"


def times_to_target(summary: Summary) -> list[Row]:
    """Virtual seconds until the network, while it trains, avoids half of LeastQueue's losses.

    One row per condition and method. The finished ratio of the curve is a running mean of three
    points; a seed that does not get there has null.
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
    return rows


def _reached(curve: Mapping[str, Sequence[float | None]], target: float) -> float | None:
    finished = np.array(curve["finished"], float)
    # The empty network at the beginning finishes what little there is.
    begin = len(finished) // 10
    smooth = np.array(
        [mean(finished[i - SMOOTHING + 1 : i + 1]) for i in range(begin + SMOOTHING, len(finished))]
    )
    below = np.flatnonzero(~(smooth >= target))
    first = 0 if below.size == 0 else int(below[-1]) + 1
    if first >= len(smooth):
        return None
    return float(np.asarray(curve["seconds"], float)[begin + SMOOTHING + first])

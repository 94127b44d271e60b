"""Cells put together: estimates and paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fauno_flwr.experiments.cells import GREEDY, SAMPLED
from fauno_flwr.experiments.design import BASELINES, HEURISTICS, Experiment
from fauno_flwr.results.statistics import (
    Estimate,
    crossed,
    estimate,
    iqm,
    mean,
    probability_of_improvement,
)
from sim_env.policies.heuristics import TITLES

FINISHED, RESPONSE = "finished_ratio", "response_mean"
SIGN = {FINISHED: 1.0, RESPONSE: -1.0}  # larger is better after multiplication
# If LeastQueue loses more than this fraction, losses are avoidable: the finished ratio decides.
LOSSES_THAT_DECIDE = 0.01
Cells = Sequence[Mapping[str, Any]]
Row = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """One policy in one condition: for each measure, a matrix of seeds x worlds.

    Parameters
    ----------
    finished_ratio, response_mean : array of float, shape (S, W)
        Response in seconds, NaN where undefined. S is 1 for a heuristic.
    lost : dict of str to float
        Fraction lost, by kind.
    """

    finished_ratio: np.ndarray
    response_mean: np.ndarray
    lost: dict[str, float]

    def measure(self, name: str) -> np.ndarray:
        """Return the matrix of a measure."""
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
        ``samples[condition][policy]``. Policies are heuristics, methods with the kind of actions
        they are compared by, and methods with the other kind: ``-sampled`` or ``-greedy`` appended.
    rho : dict of str to float
        Offered load of each condition.
    curves : dict
        ``curves[condition][method]``: a list with ``training`` of the cell of each seed.
    agents : dict of str to int
        Nodes that learn in each condition.
    """

    experiment: Experiment
    titles: dict[str, str]
    samples: dict[str, dict[str, Sample]]
    rho: dict[str, float]
    curves: dict[str, dict[str, list[Mapping[str, Any]]]]
    agents: dict[str, int]

    def title(self, policy: str) -> str:
        """Return the name of a policy in tables and figures."""
        if policy in TITLES or policy in self.experiment.heuristics:
            return TITLES.get(policy, policy)
        methods = self.experiment.methods
        if policy in methods:
            return methods[policy].title
        method, _, actions = policy.rpartition("-")
        return f"{methods[method].title}, {actions}"

    def pairs(self, rival: str) -> dict[str, tuple[Sample, Sample]]:
        """Return the first method and a rival by condition, where both were evaluated."""
        ours = next(iter(self.experiment.methods))
        return {
            condition: (samples[ours], samples[rival])
            for condition, samples in self.samples.items()
            if ours in samples and rival in samples
        }


def summarise(experiment: Experiment, titles: dict[str, str], cells: Cells) -> Summary:
    """Collect the samples of an experiment from its cells.

    Parameters
    ----------
    experiment : Experiment
    titles : dict of str to str
        Of all conditions that the cells have, by name.
    cells : sequence of dict
        From :func:`fauno_flwr.experiments.cells.run_cell`.
    """
    samples: dict[str, dict[str, Sample]] = {}
    rho: dict[str, float] = {}
    agents: dict[str, int] = {}
    curves: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {name: {} for name in titles}
    for cell in cells:
        for condition, world in cell["worlds"].items():
            rho[condition], agents[condition] = world["rho"], world["agents"]
            for policy, metrics in world["policies"].items():
                name = _name(experiment, cell["method"], policy)
                found[condition].setdefault(name, []).append(metrics)
        if "training" in cell:
            # The name of a condition may have dots, as rate0.5 has.
            trained_in = cell["key"].removesuffix(f".{cell['method']}.{cell['seed']}")
            runs = curves.setdefault(trained_in, {}).setdefault(cell["method"], [])
            runs.append(cell["training"])
    for condition, policies in found.items():
        samples[condition] = {name: _sample(runs) for name, runs in policies.items()}
    return Summary(experiment, titles, samples, rho, curves, agents)


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
    """Make a row per condition and policy.

    Returns
    -------
    list of dict
        ``condition``, ``rho``, ``policy``, the numbers of ``seeds`` and ``worlds``; for each
        measure the ``mean`` with its two-way Student interval and the ``iqm`` with that of the
        bootstrap, each ``value``, ``low`` and ``high``; and ``lost``, fractions by kind.
    """
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
    """Estimate ours - theirs, paired by world and, between methods, by seed.

    Larger is better: of the response, the difference is theirs - ours. Of two methods with unlike
    numbers of seeds, only the seeds that both have count; a heuristic as `theirs` is compared with
    every seed, as `ours` with the first only.
    """
    seeds = min(len(ours.finished_ratio), len(theirs.finished_ratio))
    a, b = ours.measure(measure), theirs.measure(measure)
    if len(b) > 1:
        a, b = a[:seeds], b[:seeds]
    return crossed(SIGN[measure] * (a - b))


def differences(summary: Summary) -> list[Row]:
    """Make a row per rival of the first method, condition, and measure.

    Returns
    -------
    list of dict
        ``rival``, ``condition``, ``measure``, whether that ``decides`` there, how far the first
        method is ahead (``value``, ``low``, ``high``), and the ``verdict``.
    """
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
    """Return the measure that decides: finished ratio if LeastQueue loses tasks, else response."""
    lost = 1 - float(mean(summary.samples[condition]["lq"].finished_ratio.ravel()))
    return FINISHED if lost > LOSSES_THAT_DECIDE else RESPONSE


def overall(summary: Summary) -> list[Row]:
    """Make a row per rival of the first method and measure, over all conditions that both have.

    Returns
    -------
    list of dict
        ``rival``, ``measure``, the number of ``conditions``; ``mean`` and ``iqm`` of how far the
        first method is ahead, and the ``probability_of_improvement``, each ``value``, ``low`` and
        ``high``, with bootstrap intervals.
    """
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
    """Return those compared in detail, then the other methods, then the other heuristics."""
    first, *others = summary.experiment.methods
    detailed = [rival for rival in summary.experiment.compared if rival != first]
    return list(dict.fromkeys([*detailed, *others, *BASELINES]))

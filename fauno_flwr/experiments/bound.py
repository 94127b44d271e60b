"""The part of a report about the distance to the clairvoyant: how much is left to gain."""

from collections.abc import Sequence
from pathlib import Path

from fauno_flwr.experiments.design import BASELINES
from fauno_flwr.experiments.figures import plot_distances
from fauno_flwr.experiments.summary import (
    FINISHED,
    RESPONSE,
    SIGN,
    Row,
    Summary,
    deciding,
    difference,
)
from fauno_flwr.experiments.verdicts import in_words
from fauno_flwr.results.report import plus_minus
from fauno_flwr.results.statistics import crossed, mean

BOUND = "clairvoyant"
BEST = "best heuristic"
NEAREST = "sed"  # what the first method's actors start from


def best_heuristic(summary: Summary, condition: str) -> str:
    """Return the heuristic with the best mean of the measure that decides in a condition.

    Of the experiment's further heuristics, too, except the bound itself.
    """
    measure, samples = deciding(summary, condition), summary.samples[condition]
    heuristics = (*BASELINES, *summary.experiment.heuristics)
    return max(
        (name for name in heuristics if name in samples and name != BOUND),
        key=lambda name: SIGN[measure] * float(mean(samples[name].measure(measure).ravel())),
    )


def distances(summary: Summary) -> list[Row]:
    """Make a row per condition and policy: its distance to the clairvoyant.

    Returns
    -------
    list of dict
        ``condition``, ``group`` (the title of the first method, of ShortestExpectedDelay, or
        ``best heuristic``), ``policy``, and for each measure an :class:`Estimate` of how far the
        policy is ahead of the clairvoyant, a fraction of the tasks and seconds: negative if behind.
        Conditions without the clairvoyant have no row.
    """
    first = next(iter(summary.experiment.methods))
    found = []
    for condition, samples in summary.samples.items():
        if BOUND not in samples:
            continue
        groups = {
            summary.title(first): first,
            summary.title(NEAREST): NEAREST,
            BEST: best_heuristic(summary, condition),
        }
        found += [
            {
                "condition": condition,
                "group": group,
                "policy": policy,
                **{m: difference(samples[policy], samples[BOUND], m) for m in SIGN},
            }
            for group, policy in groups.items()
            if policy in samples
        ]
    return found


def report(summary: Summary, figures: Path) -> list[str]:
    """Return the lines of the report, and draw its figure; nothing without the clairvoyant."""
    rows = distances(summary)
    if not rows:
        return []
    plot_distances(summary, rows, figures / "bound.png")
    return [
        "",
        "## Distance to the clairvoyant",
        "",
        "Policy - clairvoyant, paired by world, 95 % intervals. The clairvoyant decides for all "
        "nodes with all queues, sizes and tasks in flight in view, without delay: a bound by "
        "information, not a proven optimum. Best heuristic: that of the table with the best mean "
        "of the measure that decides, chosen on these same worlds.",
        "",
        "| condition | policy | finished | response |",
        "|---|---|---|---|",
        *_lines(summary, rows),
    ]


def _lines(summary: Summary, rows: Sequence[Row]) -> list[str]:
    lines = []
    for condition in dict.fromkeys(row["condition"] for row in rows):
        bound, title = summary.samples[condition][BOUND], summary.titles[condition]
        finished, response = (
            plus_minus(vars(found) | {"mean": found.value}, scale)
            for found, scale in (
                (crossed(bound.finished_ratio), 100),
                (crossed(bound.response_mean), 1),
            )
        )
        lines.append(f"| {title} | {summary.title(BOUND)} | {finished} % | {response} s |")
        for row in rows:
            if row["condition"] == condition:
                name = summary.title(row["policy"])
                name = f"best heuristic: {name}" if row["group"] == BEST else name
                words = " | ".join(in_words(m, row[m]) for m in (FINISHED, RESPONSE))
                lines.append(f"| {title} | {name} | {words} |")
    return lines

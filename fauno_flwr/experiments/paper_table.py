"""Tables in the paper's shape: a column per network, rows of policies by load."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fauno_flwr.experiments.bound import BOUND
from fauno_flwr.experiments.design import BASELINES
from fauno_flwr.experiments.summary import (
    FINISHED,
    LOSSES_THAT_DECIDE,
    RESPONSE,
    SIGN,
    Row,
    Sample,
    Summary,
    difference,
)
from fauno_flwr.results.statistics import TIE

READING = (
    "Means over training seeds and worlds (of heuristics, over worlds); ± is half of their 95 % "
    "interval. Bold: the best of its column and load, and all that tie with it, that is, the "
    "interval of the paired difference contains 0. The response counts finished tasks only, so a "
    "policy that loses the long ones looks fast: its bold numbers are the best of the policies "
    f"that finish at most {100 * LOSSES_THAT_DECIDE:g} percentage point less than the one that "
    "finishes most."
)


@dataclass(frozen=True)
class Number:
    """A number of a table.

    Parameters
    ----------
    value : str
        Formatted.
    half : str, default ""
        Half of its interval, formatted; empty if it is unbounded or unknown.
    best : bool, default False
        Whether it is bold.
    """

    value: str
    half: str = ""
    best: bool = False


Numbers = Mapping[str, Sequence[Number | None]]


@dataclass(frozen=True)
class PaperTable:
    """A table of one measure.

    Parameters
    ----------
    name : str
        For references to it: ``baseline-finished``.
    caption : str
        The measure and its unit.
    columns : tuple of str
        Networks.
    blocks : mapping of str to mapping of str to sequence of Number or None
        ``blocks[load][policy]``: a number per column, None where there is none.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    blocks: Mapping[str, Numbers]

    def with_block(self, title: str, rows: Numbers) -> "PaperTable":
        """Return the table with another block of rows at its end."""
        return replace(self, blocks={**self.blocks, title: rows})


def places(titles: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return column and block of each condition if the conditions are a grid; else an empty dict.

    Parameters
    ----------
    titles : mapping of str to str
        Of the conditions, by name. They are a grid if each title is ``A, B``, such as
        ``ether2, λ = 1/s``, and each A meets each B once.
    """
    found = {name: _split(title) for name, title in titles.items()}
    columns, blocks = ({place[i] for place in found.values()} for i in (0, 1))
    complete = len(found) == len(set(found.values())) == len(columns) * len(blocks)
    return found if complete and len(found) > 1 and "" not in columns else {}


def _split(title: str) -> tuple[str, str]:
    column, _, block = title.rpartition(", ")
    return column, block


def paper_tables(
    summary: Summary, rows: Sequence[Row], unit: str = "s", decimals: int = 2
) -> list[PaperTable]:
    """Put the means of the policies into the paper's shape: finished tasks, and response.

    A method is shown by the kind of actions that it is compared by.

    Parameters
    ----------
    summary : Summary
    rows : sequence of dict
        Of :func:`fauno_flwr.experiments.summary.table`.
    unit : str, default "s"
        Of the response.
    decimals : int, default 2
        Of the response.

    Returns
    -------
    list of PaperTable
        Empty if the conditions are no grid, see :func:`places`.
    """
    grid = places(summary.titles)
    if not grid:
        return []
    columns = tuple(dict.fromkeys(column for column, _ in grid.values()))
    conditions = {place: name for name, place in grid.items()}
    experiment = summary.experiment
    order = dict.fromkeys([*experiment.methods, *BASELINES, *experiment.heuristics])
    shown = [p for p in order if any(p in samples for samples in summary.samples.values())]
    means = {(row["condition"], row["policy"]): row for row in rows}
    tables = []
    for measure, name, caption, scale, digits in (
        (FINISHED, "finished", "Finished tasks, %", 100, 2),
        (RESPONSE, "response", f"Response, {unit}", 1, decimals),
    ):
        numbers: dict[str, dict[str, Number | None]] = {}
        for condition, samples in summary.samples.items():
            # The bound is shown, but no policy competes with it.
            rivals = {p: samples[p] for p in shown if p in samples and p != BOUND}
            best = best_policies(rivals, measure)
            numbers[condition] = {
                policy: _number(
                    means[condition, policy][measure]["mean"], scale, digits, policy in best
                )
                for policy in shown
                if policy in samples
            }
        blocks = {
            block: {
                summary.title(policy): [numbers[conditions[c, block]].get(policy) for c in columns]
                for policy in shown
            }
            for block in dict.fromkeys(block for _, block in grid.values())
        }
        tables.append(PaperTable(f"{experiment.name}-{name}", caption, columns, blocks))
    return tables


def _number(mean: Mapping[str, Any], scale: float, decimals: int, best: bool) -> Number | None:
    value, half = scale * mean["value"], scale * (mean["high"] - mean["value"])
    if not np.isfinite(value):
        return None
    return Number(
        f"{value:.{decimals}f}", f"{half:.{decimals}f}" if np.isfinite(half) else "", best
    )


def best_policies(samples: Mapping[str, Sample], measure: str) -> set[str]:
    """Return the best policy of a condition by a measure, and those that tie with it.

    By the response, only among policies that have one and whose finished ratio is at most
    :data:`LOSSES_THAT_DECIDE` below the highest; so there may be none.

    Parameters
    ----------
    samples : mapping of str to Sample
        By policy; at least one.
    measure : str
        ``finished_ratio`` or ``response_mean``.
    """
    finished = {p: float(np.nanmean(sample.finished_ratio)) for p, sample in samples.items()}
    least = max(finished.values()) - LOSSES_THAT_DECIDE if measure == RESPONSE else 0.0
    means = {
        policy: SIGN[measure] * float(np.nanmean(sample.measure(measure)))
        for policy, sample in samples.items()
        if finished[policy] >= least and np.isfinite(sample.measure(measure)).any()
    }
    if not means:
        return set()
    first = max(means, key=lambda policy: means[policy])
    return {first} | {policy for policy in means if _tie(samples[first], samples[policy], measure)}


def _tie(one: Sample, other: Sample, measure: str) -> bool:
    # The one with more seeds first, or all but one of them would be left out.
    most, least = sorted((one, other), key=lambda sample: -len(sample.finished_ratio))
    return difference(most, least, measure).verdict == TIE

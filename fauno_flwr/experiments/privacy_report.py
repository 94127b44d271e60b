"""The part of a report about privacy: against no federation, epsilon, noise, versions to target."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fauno_flwr.experiments.figures import plot_privacy
from fauno_flwr.experiments.summary import FINISHED, RESPONSE, Row, Summary, difference
from fauno_flwr.experiments.targets import times_to_target
from fauno_flwr.experiments.verdicts import in_words
from fauno_flwr.results.statistics import BETTER

ALONE, INDEPENDENT = "alone", "independent"
PAPERS = ", the paper's critic"


def floor_of(summary: Summary, method: str) -> str:
    """Return the method that shares nothing and has the same kind of critic."""
    return INDEPENDENT if PAPERS in summary.title(method) else ALONE


def rows(summary: Summary) -> list[Row]:
    """Make a row per condition and federation.

    Returns
    -------
    list of dict
        ``epsilon`` that was spent, the largest of the seeds, and ``signal_to_noise``, both None
        without privacy; ``versions`` and ``to_target`` (None if never) of each seed; and by how
        much it is ahead of its floor, an estimate for each measure.
    """
    found = []
    reached = {(row["condition"], row["method"]): row for row in times_to_target(summary)}
    for (condition, method), row in reached.items():
        samples, runs = summary.samples[condition], summary.curves[condition][method]
        floor = floor_of(summary, method)
        if method in (ALONE, INDEPENDENT) or floor not in samples:
            continue
        found.append(
            {
                "condition": condition,
                "method": method,
                "floor": floor,
                **_spent(runs),
                "versions": [run["versions"] for run in runs],
                "to_target": [
                    None if seconds is None else sum(t <= seconds for t in run["flushes"])
                    for seconds, run in zip(row["seconds"], runs, strict=True)
                ],
                **{m: difference(samples[method], samples[floor], m) for m in (FINISHED, RESPONSE)},
            }
        )
    return found


def _spent(runs: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    spent = [run["privacy"] for run in runs if run.get("privacy")]
    if not spent:
        return {"epsilon": None, "signal_to_noise": None}
    power = np.mean([each["signal_to_noise_power"] for each in spent])
    return {
        "epsilon": max(each["epsilon"] for each in spent),
        "signal_to_noise": float(np.sqrt(max(0.0, power))),
    }


def report(summary: Summary, figures: Path) -> list[str]:
    """Return the lines of the report, and draw its figure."""
    found = rows(summary)
    plot_privacy(summary, found, figures / "privacy.png")
    lines = [
        "",
        "## Privacy",
        "",
        "Epsilon at delta 1e-5, as spent in the end by the node that has spent most. Central: it "
        "protects all updates of a node, in the versions, against those who see these; the server "
        "is trusted. Local: all updates of a node, as they leave it, against the server too. "
        "Signal to noise: norm of a merged update without its noise, in units of the noise, over "
        "all versions and seeds; below 0.3 it is not told from 0. Versions to target: until half "
        "of LeastQueue's losses are avoided for good, of each seed, - if never. Ahead of the "
        "floor: of the same agents that share nothing (independent PPO with the paper's critic).",
    ]
    for condition, title in summary.titles.items():
        some = [row for row in found if row["condition"] == condition]
        if not some:
            continue
        lines += [
            "",
            f"### {title}",
            "",
            "| method | epsilon | signal to noise | versions | to target | ahead of the floor: "
            "finished | response | verdict |",
            "|---|---|---|---|---|---|---|---|",
            *(_line(summary, row) for row in some),
        ]
    return lines


def _line(summary: Summary, row: Row) -> str:
    epsilon, ratio = (
        "-" if row[name] is None else f"{row[name]:.{digits}g}"
        for name, digits in (("epsilon", 3), ("signal_to_noise", 2))
    )
    made = "/".join(str(versions) for versions in sorted(set(row["versions"])))
    target = ", ".join("-" if n is None else str(n) for n in row["to_target"])
    finished, response = (in_words(m, row[m]) for m in (FINISHED, RESPONSE))
    verdict = row[FINISHED].verdict
    pays = "the federation pays" if verdict == BETTER else verdict
    return (
        f"| {summary.title(row['method'])} | {epsilon} | {ratio} | {made} | {target} "
        f"| {finished} | {response} | {pays} |"
    )

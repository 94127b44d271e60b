"""What trainings have cost the links, and how far the nodes agree."""

from collections.abc import Sequence

import numpy as np

from fauno_flwr.experiments.summary import Row, Summary
from fauno_flwr.results.statistics import mean

PARTS = (0.25, 0.5, 1.0)  # of a training, at which the distance is in the table
MEGABYTE = 1e6


def traffic_rows(summary: Summary) -> list[Row]:
    """Make a row per condition and method: means over the seeds.

    Returns
    -------
    list of dict
        ``busiest``, ``server`` and ``total`` (MB: most loaded link, most loaded link of the node
        that would be the server, all links), and ``distance``: the root of the mean squared
        distance of the nodes to their mean, after each of :data:`PARTS` of the training.
    """
    rows = []
    for condition, methods in summary.curves.items():
        for method, runs in methods.items():
            found = [run["traffic"] for run in runs]
            distances = np.array([each["distance"] for each in found], float)
            last = distances.shape[1] - 1
            rows.append(
                {
                    "condition": condition,
                    "method": method,
                    **{
                        name: float(mean(np.array([each[name] for each in found]))) / MEGABYTE
                        for name in ("busiest", "server", "total")
                    },
                    "distance": [
                        float(mean(distances[:, min(round(part * last), last)])) for part in PARTS
                    ],
                }
            )
    return rows


def traffic_lines(summary: Summary, rows: Sequence[Row]) -> list[str]:
    """Make the section of the report; empty without rows."""
    if not rows:
        return []
    parts = " | ".join(f"after {100 * part:.0f} %" for part in PARTS)
    lines = [
        "",
        "## Load of the links, and agreement",
        "",
        "MB of messages in one direction of the most loaded link, of the most loaded link of the "
        "server's node, and of all links; distance: root of the mean squared distance of the "
        "nodes' shared parameters to their mean.",
        "",
        f"| condition | method | busiest | at the server | all | distance {parts} |",
        "|---|---|---|---|---|" + "---|" * len(PARTS),
    ]
    for row in rows:
        numbers = [f"{row[name]:.2f}" for name in ("busiest", "server", "total")]
        numbers += [f"{value:.3g}" for value in row["distance"]]
        lines.append(
            f"| {summary.titles[row['condition']]} | {summary.title(row['method'])} "
            f"| {' | '.join(numbers)} |"
        )
    return lines

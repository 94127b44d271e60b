"""The table of an experiment about size: load of the links, staleness, cost of a node."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fauno_flwr.experiments.summary import Row, Summary

WITHOUT_MANAGER = "federation.merging=gossip"
PROPORTIONAL = 0.5  # utilisation up to which it grows in proportion to the nodes


def load_rows(summary: Summary) -> list[Row]:
    """Make a row per condition and method, with means over the seeds.

    Returns
    -------
    list of dict
        ``condition``, ``method``, number of ``seeds``, and of each the mean over these: ``nodes``
        that learn; ``versions`` made and ``virtual_seconds`` until the last one; ``megabytes`` on
        the manager's links, ``utilisation`` (a fraction) of the busiest of them and of the busiest
        one ``elsewhere``; ``nodes_at_full``: how many nodes would fill the busiest link of the
        manager if its utilisation grew in proportion to them, None without a manager, and where it
        is half full or more (:data:`PROPORTIONAL`), as it no longer grows in proportion then;
        ``median`` and ``p95`` of the ``delay`` of messages in seconds and of the ``staleness`` of
        updates in versions; ``cpu_ms``, CPU milliseconds per node and message;
        ``peak_megabytes`` of the process and its ``growth_megabytes`` per node.
    """
    return [
        _row(summary, condition, method, runs)
        for condition, methods in summary.curves.items()
        for method, runs in methods.items()
    ]


def _row(summary: Summary, condition: str, method: str, runs: Sequence[Mapping[str, Any]]) -> Row:
    nodes = summary.agents[condition]

    def of(*path: str) -> float:
        return float(np.mean([_at(run, path) for run in runs]))

    used = of("load", "manager", "utilisation")
    managed = WITHOUT_MANAGER not in summary.experiment.methods[method].settings
    return {
        "condition": condition,
        "method": method,
        "nodes": nodes,
        "seeds": len(runs),
        "versions": of("versions"),
        "virtual_seconds": of("virtual_seconds"),
        "megabytes": of("load", "manager", "megabytes"),
        "utilisation": used,
        "elsewhere": of("load", "elsewhere"),
        "nodes_at_full": nodes / used if managed and 0 < used < PROPORTIONAL else None,
        "delay": {name: of("load", "delay", name) for name in ("median", "p95")},
        "staleness": {name: of("staleness_quantiles", name) for name in ("median", "p95")},
        "cpu_ms": 1000 * of("cpu_seconds") / (nodes * of("messages_per_node")),
        "peak_megabytes": of("megabytes", "peak"),
        "growth_megabytes": of("megabytes", "growth") / nodes,
    }


def _at(run: Mapping[str, Any], path: Sequence[str]) -> float:
    value: Any = run
    for key in path:
        value = value[key]
    return float(np.nan if value is None else value)


def load_table(summary: Summary, rows: Sequence[Row]) -> list[str]:
    """Format the rows of :func:`load_rows` as a section in Markdown; empty if there are none."""
    if not rows:
        return []
    lines = [
        "",
        "## Load, staleness and cost",
        "",
        "Of the manager's links: megabytes, utilisation of the busiest one, and the nodes that "
        "would fill it, in proportion (- where it is half full or more; in a gossip, which has no "
        "manager, the links are those of the node that would be it). Delay of a message and "
        "staleness of an update: median, 95 %. CPU and memory of the training.",
        "",
        "| condition | method | nodes | MB | utilisation % | elsewhere % | nodes at 100 % "
        "| delay s | staleness | CPU ms per message | peak MB |",
        "|---" * 11 + "|",
    ]
    for row in rows:
        full = row["nodes_at_full"]
        cells = (
            summary.titles[row["condition"]],
            summary.title(row["method"]),
            f"{row['nodes']:,}",
            f"{row['megabytes']:,.0f}",
            f"{100 * row['utilisation']:.3g}",
            f"{100 * row['elsewhere']:.3g}",
            "-" if full is None else f"{float(f'{full:.2g}'):,.0f}",
            f"{row['delay']['median']:.1f}, {row['delay']['p95']:.1f}",
            f"{row['staleness']['median']:.0f}, {row['staleness']['p95']:.0f}",
            f"{row['cpu_ms']:.1f}",
            f"{row['peak_megabytes']:,.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines

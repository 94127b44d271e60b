"""Runs side by side: their tables, their differences, and where their settings differ."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import combinations
from typing import Any

import numpy as np

from fauno_flwr.learning.policy import FAUNO
from fauno_flwr.results.html.charts import Chart, Section, capital, html_table
from fauno_flwr.results.html.files import RunFiles
from fauno_flwr.results.html.summary import UNITS, interval_chart, shown_setting
from fauno_flwr.results.report import is_number, plus_minus, title
from sim_env.evaluation import Interval, interval

# Settings that decide which tasks are born in a world, and what happens to them there.
WORLD = ("topology", "workload", "physics", "dynamics", "world.env_id")
MEASURED = ("evaluation.warmup", "evaluation.window")
MOST_PAIRS = 20
MEASURES = {
    "finished_ratio": (100.0, "finished tasks, %"),
    "response_mean": (1.0, "response of finished tasks, s"),
    "return": (1.0, "return per episode"),
}
Row = Mapping[str, Any]


def side_by_side(
    runs: Sequence[RunFiles], names: Sequence[str], links: Sequence[str | None]
) -> Section:
    """Return the comparison of runs.

    Parameters
    ----------
    runs : sequence of RunFiles
    names : sequence of str
        Of the runs.
    links : sequence of str or None
        Their own reports.
    """
    parts: list[str | Sequence[Chart]] = [_table_of(runs, names)]
    charts = _charts(runs, names)
    if charts:
        parts.insert(0, charts)
    parts += ["<h3>Differences</h3>", _differences(runs, names)]
    parts += ["<h3>Settings that differ</h3>", _settings(runs, names), linked(names, links)]
    return Section("summary", "Summary", parts)


def linked(names: Sequence[str], links: Sequence[str | None]) -> str:
    """Return a list of links; empty without any."""
    items = "".join(
        f'<li><a href="{escape(link)}">{escape(name)}</a></li>'
        for name, link in zip(names, links, strict=True)
        if link
    )
    return f"<h3>Reports of their own</h3><ul>{items}</ul>" if items else ""


def _trained(run: RunFiles) -> Row | None:
    return next((row for row in run.table if row["policy"] == FAUNO), None)


def _charts(runs: Sequence[RunFiles], names: Sequence[str]) -> list[Chart]:
    """Chart the measures of the trained agents of all runs that have them."""
    rows = [
        {**row, "policy": name}
        for run, name in zip(runs, names, strict=True)
        if (row := _trained(run))
    ]
    return [
        interval_chart([row for row in rows if key in row], key, scale, label)
        for key, (scale, label) in MEASURES.items()
        if any(key in row for row in rows)
    ]


def _table_of(runs: Sequence[RunFiles], names: Sequence[str]) -> str:
    """Return one table: a row per policy, a group of columns per measure, a column per run."""
    policies = list(dict.fromkeys(row["policy"] for run in runs for row in run.table))
    if not policies:
        return "<p>No run has an evaluation.</p>"
    found = [{row["policy"]: row for row in run.table} for run in runs]
    tables = []
    for key, (scale, label) in MEASURES.items():
        lines = [
            (
                title(policy),
                *(
                    plus_minus(rows[policy][key], scale) if key in rows.get(policy, {}) else "-"
                    for rows in found
                ),
            )
            for policy in policies
        ]
        if any(cell != "-" for line in lines for cell in line[1:]):
            tables.append(f"<h3>{escape(capital(label))}</h3>")
            tables.append(html_table(("policy", *names), lines, label=label))
    return "".join(tables)


def same_worlds(a: RunFiles, b: RunFiles) -> bool:
    """Return whether two runs were evaluated in the same worlds."""
    keys = [key for key in {**a.settings, **b.settings} if _is_of_world(key)]
    seeds = a.summary.get("evaluation_seeds")
    return seeds == b.summary.get("evaluation_seeds") and all(
        a.settings.get(key) == b.settings.get(key) for key in keys
    )


def _is_of_world(key: str) -> bool:
    return key in MEASURED or any(key == each or key.startswith(f"{each}.") for each in WORLD)


def paired(a: RunFiles, b: RunFiles) -> dict[str, Interval]:
    """Return the differences of the trained agents, `a` - `b`, paired by world.

    Returns
    -------
    dict of str to Interval
        By measure; empty if the worlds differ, or a run has no agents or no values by world.
    """
    ours, theirs = _trained(a), _trained(b)
    if ours is None or theirs is None or not same_worlds(a, b):
        return {}
    left, right = ours.get("by_world", {}), theirs.get("by_world", {})
    return {
        key: interval(_numbers(left[key]) - _numbers(right[key]))
        for key in MEASURES
        if key in left and key in right
    }


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], float)


def _differences(runs: Sequence[RunFiles], names: Sequence[str]) -> str:
    rows = []
    apart = False
    for (i, a), (j, b) in list(combinations(enumerate(runs), 2))[:MOST_PAIRS]:
        if _trained(a) is not None and _trained(b) is not None:
            apart |= not same_worlds(a, b)
        for key, found in paired(a, b).items():
            unit, scale = UNITS.get(key, ("return", 1.0))
            rows.append((f"{names[i]} - {names[j]}", unit, *_cells(found, scale)))
    text = []
    if rows:
        head = ("FAuNO of", "in", "mean", "95 % interval")
        text.append(html_table(head, rows, label="Paired differences of the runs"))
        text.append('<p class="quiet">Paired by world: their evaluations had the same tasks.</p>')
    if apart:
        text.append("<p>Runs whose worlds differ are not paired.</p>")
    return "".join(text) or "<p>None: fewer than two runs have trained agents in the table.</p>"


def _cells(found: Interval, scale: float) -> Iterator[str]:
    yield f"{scale * found.mean:+.2f}"
    bounded = all(map(is_number, (found.low, found.high)))
    yield f"{scale * found.low:+.2f} to {scale * found.high:+.2f}" if bounded else "-"


def _settings(runs: Sequence[RunFiles], names: Sequence[str]) -> str:
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    missing = object()
    rows = [
        (
            key,
            *(shown_setting(run.settings[key]) if key in run.settings else "-" for run in runs),
        )
        for key in keys
        if any(run.settings.get(key, missing) != runs[0].settings.get(key, missing) for run in runs)
    ]
    if not rows:
        return "<p>None.</p>"
    return html_table(("setting", *names), rows, label="Settings that differ", css="text")

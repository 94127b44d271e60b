"""The first section: the comparison, what was run, and with what."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource

from fauno_flwr.results.html.charts import (
    Chart,
    Section,
    add_hover,
    capital,
    html_table,
    make_rows,
    policy_colour,
    stack_losses,
)
from fauno_flwr.results.html.files import RunFiles, changed_settings
from fauno_flwr.results.report import LOSSES, is_number, plus_minus, tables, title
from fauno_flwr.results.status import newest_stage

OVERFLOW = "overflow"
UNITS = {"finished_ratio": ("finished, points", 100.0), "response_mean": ("response, s", 1.0)}
Row = Mapping[str, Any]


def summary_section(run: RunFiles) -> Section:
    """Return the summary of a run."""
    parts: list[str | Sequence[Chart]] = []
    if run.table:
        parts += comparison(run.table, run.summary.get("rho"))
        parts.append(_foot(run))
    else:
        parts.append(
            "<p>There is no evaluation: the newest stage of the run is "
            f"<em>{escape(newest_stage(run.events))}</em>.</p>"
        )
    parts += ["<h3>What was run</h3>", _facts(run), _settings(run)]
    return Section("summary", "Summary", parts)


def comparison(rows: Sequence[Row], rho: float | None) -> list[str | Sequence[Chart]]:
    """Return charts and numbers of a table: finished, response and losses, or returns."""
    if rho is None:
        return [[interval_chart(rows, "return", 1.0, "return per episode")], _returns(rows)]
    charts = [
        interval_chart(rows, "finished_ratio", 100.0, "finished tasks, %"),
        interval_chart(rows, "response_mean", 1.0, "response of finished tasks, s"),
        _losses(rows),
    ]
    return [charts, _numbers(rows), _differences(rows)]


def lost_kinds(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the kinds of losses that there are, at least one."""
    known = list(found)
    return [kind for kind in LOSSES if any(np.any(each[kind]) for each in known)] or [OVERFLOW]


def interval_chart(rows: Sequence[Row], key: str, scale: float, label: str) -> Chart:
    """Chart means with their 95 % intervals; an unbounded interval is left out."""
    names = [title(row["policy"]) for row in rows]
    mean, low, high = (
        scale * np.array([_number(row[key][end]) for row in rows])
        for end in ("mean", "low", "high")
    )
    source = ColumnDataSource(
        {
            "name": names,
            "mean": mean,
            "low": low,
            "high": high,
            "colour": [policy_colour(row["policy"], place) for place, row in enumerate(rows)],
            "text": [f"{value:.1f}" if np.isfinite(value) else "" for value in mean],
        }
    )
    plot = make_rows(names, label, height=110 + 26 * len(names))
    plot.segment("low", "name", "high", "name", source=source, line_color="colour", line_width=3)
    dots = plot.scatter("mean", "name", size=10, color="colour", source=source)
    plot.text(
        "mean",
        "name",
        "text",
        source=source,
        y_offset=-8,
        text_align="center",
        text_baseline="bottom",
        text_font_size="10px",
    )
    add_hover(
        plot,
        dots,
        [("", "@name"), (label, "@mean{0.00}"), ("95 % interval", "@low{0.00} to @high{0.00}")],
    )
    plot.y_range.range_padding, plot.y_range.range_padding_units = 0.35, "absolute"
    told = ", ".join(
        f"{name} {plus_minus(row[key], scale)}" for name, row in zip(names, rows, strict=True)
    )
    note = "" if np.isfinite(low).any() else "a single world, hence no intervals"
    return Chart(plot, capital(label), f"{label}, with 95 % intervals: {told}", note=note)


def _losses(rows: Sequence[Row]) -> Chart:
    names = [title(row["policy"]) for row in rows]
    kinds = lost_kinds([row["lost"] for row in rows])
    source = ColumnDataSource(
        {"name": names, **{k: [100 * row["lost"][k] for row in rows] for k in kinds}}
    )
    plot = make_rows(names, "lost tasks, %", height=110 + 26 * len(names))
    stack_losses(plot, kinds, source, [("", "@name"), ("$name", "@$name{0.00} %")])
    told = ", ".join(
        f"{name} {100 * sum(row['lost'].values()):.2f}"
        for name, row in zip(names, rows, strict=True)
    )
    return Chart(plot, "Lost tasks by reason", f"lost tasks in percent: {told}")


def _numbers(rows: Sequence[Row]) -> str:
    kinds = lost_kinds([row["lost"] for row in rows])
    head = ("policy", "finished %", "response s", "p95 s", "lost %", *kinds, "fairness")
    lines = [
        (
            title(row["policy"]),
            plus_minus(row["finished_ratio"], 100),
            plus_minus(row["response_mean"]),
            f"{row['response_p95']:.1f}" if is_number(row["response_p95"]) else "-",
            f"{100 * sum(row['lost'].values()):.2f}",
            *(f"{100 * row['lost'][kind]:.2f}" for kind in kinds),
            f"{row['fairness']:.4f}" if is_number(row.get("fairness")) else "-",
        )
        for row in rows
    ]
    return html_table(head, lines, label="The comparison in numbers")


def _returns(rows: Sequence[Row]) -> str:
    lines = [
        (
            title(row["policy"]),
            plus_minus(row["return"]),
            plus_minus(row["length"]),
            str(row["episodes"]),
        )
        for row in rows
    ]
    head = ("policy", "return per episode", "steps", "episodes")
    return html_table(head, lines, label="The comparison in numbers")


def _differences(rows: Sequence[Row]) -> str:
    _, pairs = tables(rows)
    found = [
        (
            f"{title(pair['policy'])} - {title(pair['other'])}",
            UNITS[pair["measure"]][0],
            f"{scale * pair['policy_minus_other']:+.2f}",
            f"{scale * pair['low']:+.2f} to {scale * pair['high']:+.2f}",
        )
        for pair in pairs
        if all(map(is_number, (pair["policy_minus_other"], pair["low"], pair["high"])))
        for scale in (UNITS[pair["measure"]][1],)
    ]
    if not found:
        return ""
    table = html_table(
        ("difference", "of", "mean", "95 % interval"), found, label="Paired differences"
    )
    return f"<details><summary>Differences, paired by world</summary>{table}</details>"


def _foot(run: RunFiles) -> str:
    worlds, rho = len(run.summary.get("evaluation_seeds", ())), run.summary.get("rho")
    same = f"{worlds} world{'' if worlds == 1 else 's'}"
    if rho is None:
        text = f"± is half of the 95 % interval over {worlds} starts, the same for every policy."
    else:
        text = (
            f"Offered load {rho:.3f}; {same} with the same arrivals for every policy, "
            f"{run.table[0]['created']:,} tasks in all. ± is half of the 95 % interval; response "
            f"of finished tasks only."
        )
    if all(row["policy"] != "fauno" for row in run.table):
        text += " The actors have stayed on their nodes: they are not in the table."
    return f'<p class="quiet">{escape(text)}</p>'


def _facts(run: RunFiles) -> str:
    known = run.summary
    seeds = known.get("evaluation_seeds", [])
    facts = {
        "state": str(run.state),
        "folder": run.name,
        "versions": f"{known['versions']} of {known['versions_wanted']}" if known else "",
        "updates in a version": _buffer(run.settings.get("federation.buffer_size")),
        "training seed": str(run.settings.get("seed", "")),
        "evaluation seeds": f"{seeds[0]} to {seeds[-1]}" if seeds else "",
        "best version": _best(known.get("best")),
        "time": _stages(known.get("seconds", {})),
        "software": ", ".join(f"{k} {v}" for k, v in known.get("software", {}).items()),
    }
    return "<dl>{}</dl>".format(
        "".join(f"<dt>{k}</dt><dd>{escape(v)}</dd>" for k, v in facts.items() if v)
    )


def _buffer(size: Any) -> str:
    if not is_number(size):
        return ""
    return f"K = {size:g}" if size >= 1 else f"K = {100 * size:g} % of the nodes"


def _best(best: Row | None) -> str:
    if not best:
        return ""
    return ", ".join(f"{k} {v:.4g}" for k, v in best.items() if is_number(v))


def _stages(seconds: Row) -> str:
    """Return how long each stage took."""
    begun = list(seconds.get("since_start", {}).items())
    lasted = [f"{name} {after - start:.0f} s" for (name, start), (_, after) in pairwise(begun)]
    return f"{', '.join(lasted)} ({seconds['clock']} clock)" if lasted else ""


def _settings(run: RunFiles) -> str:
    changed = changed_settings(run.settings)
    if not changed:
        return "<p>All settings have their defaults.</p>"
    rows = [
        (key, shown_setting(value), "-" if default is None else shown_setting(default))
        for key, value, default in changed
    ]
    table = html_table(("setting", "value", "default"), rows, label="Settings", css="text")
    return f"<h3>Settings that differ from the defaults</h3>{table}"


def shown_setting(value: Any) -> str:
    """Return a value as it is written in YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value) or "''"


def _number(value: Any) -> float:
    return float(value) if is_number(value) else float("nan")

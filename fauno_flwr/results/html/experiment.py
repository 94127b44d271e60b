"""The report of an experiment, from its summary and its cells."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource

from fauno_flwr.results.html.charts import (
    DASHES,
    MARKERS,
    PALETTE,
    Chart,
    Section,
    add_hover,
    capital,
    html_table,
    make_plot,
    make_rows,
    place_legend,
    short,
)
from fauno_flwr.results.html.folders import read_summary
from fauno_flwr.results.html.page import make_page
from fauno_flwr.results.report import is_number, title
from sim_env.policies.heuristics import TITLES

FINISHED, RESPONSE = MEASURES = ("finished_ratio", "response_mean")
SCALES = {FINISHED: (100.0, "finished tasks, %"), RESPONSE: (1.0, "response of finished tasks, s")}
AHEAD = {FINISHED: "more finished tasks, points", RESPONSE: "shorter response, s"}
REFERENCE = "sed"
CLIP = {FINISHED: 0.1, RESPONSE: 5.0}  # differences with the full colour
POINTS = 60  # of a curve
Row = Mapping[str, Any]


def experiment_page(folder: Path) -> str:
    """Return the report of an experiment's folder."""
    found = read_summary(folder)
    sections = [_map_section(found), _difference_section(found)]
    curves = read_curves(folder)
    if curves:
        sections.append(_curve_section(found, curves))
    sections.append(_cell_section(folder))
    quick = ", quick" if found.get("quick") else ""
    lead = (
        f"{found['question']} {found['cells']} cells, {found['seeds']} training seeds, "
        f"{found['seconds_of_all_cells']['cpu'] / 60:.0f} CPU minutes."
    )
    warnings = []
    if found["seeds"] < 2:
        warnings.append("One training seed: the intervals are over worlds only.")
    return make_page(f"{found['experiment']}{quick}", lead, warnings, sections)


def name_of(found: Row, policy: str) -> str:
    """Return the name of a policy in the report."""
    known = {**TITLES, **found.get("titles", {}).get("policies", {})}
    return known.get(policy, title(policy))


def condition_of(found: Row, condition: str) -> str:
    """Return the name of a condition in the report."""
    return str(found.get("titles", {}).get("conditions", {}).get(condition, condition))


def read_curves(folder: Path) -> dict[str, dict[str, list[Row]]]:
    """Read the curves of the cells with a training, by condition and method."""
    curves: dict[str, dict[str, list[Row]]] = {}
    for path in sorted((folder / "cells").glob("*.json")):
        cell = json.loads(path.read_text())
        if "training" in cell:
            condition = cell["key"].removesuffix(f".{cell['method']}.{cell['seed']}")
            runs = curves.setdefault(condition, {}).setdefault(cell["method"], [])
            runs.append(cell["training"]["curve"])
    return curves


def _map_section(found: Row) -> Section:
    """Return the numbers of all conditions and policies, coloured by the difference to SED."""
    parts: list[str | Sequence[Chart]] = [
        f"<p>Blue: better than {escape(title(REFERENCE))}, orange: worse; the more, the stronger."
        f"</p>"
    ]
    parts += [_map(found, measure) for measure in MEASURES]
    return Section("map", "Map", parts)


def _map(found: Row, measure: str) -> str:
    policies = list(dict.fromkeys(row["policy"] for row in found["table"]))
    scale, label = SCALES[measure]
    head = "".join(f'<th scope="col">{escape(name_of(found, policy))}</th>' for policy in policies)
    lines = []
    for condition in dict.fromkeys(row["condition"] for row in found["table"]):
        rows = {row["policy"]: row for row in found["table"] if row["condition"] == condition}
        reference = rows[REFERENCE][measure]["mean"]["value"] if REFERENCE in rows else None
        cells = "".join(
            _cell(rows[policy][measure]["mean"], reference, measure, scale)
            if policy in rows
            else "<td></td>"
            for policy in policies
        )
        lines.append(
            f'<tr><th scope="row">{escape(condition_of(found, condition))}</th>{cells}</tr>'
        )
    return (
        f"<h3>{escape(capital(label))}</h3>"
        f'<div class="scroll"><table class="map" aria-label="{escape(label)}"><thead>'
        f"<tr><th>condition</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(mean: Row, reference: float | None, measure: str, scale: float) -> str:
    value = mean["value"]
    if not is_number(value):
        return "<td>-</td>"
    style = ""
    if is_number(reference):
        assert reference is not None
        ahead = (value - reference) * (1 if measure == FINISHED else -1) / CLIP[measure]
        style = f' style="background:{_shade(ahead)}"'
    low, high = mean["low"], mean["high"]
    tip = f"{scale * low:.2f} to {scale * high:.2f}" if is_number(low) and is_number(high) else ""
    return f'<td class="heat"{style} title="{tip}">{scale * value:.1f}</td>'


def _shade(ahead: float) -> str:
    """Return a colour between orange (-1), white and blue (1)."""
    full = np.array([[213, 94, 0], [255, 255, 255], [0, 114, 178]])
    strength = 0.65 * min(abs(ahead), 1.0)
    colour = (1 - strength) * full[1] + strength * full[2 if ahead > 0 else 0]
    return "#{:02x}{:02x}{:02x}".format(*colour.round().astype(int))


def _difference_section(found: Row) -> Section:
    """Return the first method - its rivals, with intervals."""
    rivals = list(dict.fromkeys(row["rival"] for row in found["differences"]))
    conditions = list(dict.fromkeys(row["condition"] for row in found["differences"]))
    names = [condition_of(found, condition) for condition in conditions]
    charts = [_difference_chart(found, measure, rivals, conditions, names) for measure in MEASURES]
    lines = [
        (
            name_of(found, row["rival"]),
            condition_of(found, row["condition"]),
            AHEAD[row["measure"]],
            *(f"{SCALES[row['measure']][0] * row[key]:+.2f}" for key in ("value", "low", "high")),
            row["verdict"] + (" *" if row["decides"] else ""),
        )
        for row in found["differences"]
        if all(is_number(row[key]) for key in ("value", "low", "high"))
    ]
    head = ("than", "condition", "of", "mean", "low", "high", "verdict")
    table = html_table(head, lines, label="Differences in numbers", css="text")
    return Section(
        "differences",
        "Differences",
        [
            "<p>Of the first method to its rivals, with 95 % intervals: right of 0 is better.</p>",
            charts,
            f"<details><summary>In numbers (* the measure that decides)</summary>{table}</details>",
        ],
    )


def _difference_chart(
    found: Row, measure: str, rivals: Sequence[str], conditions: Sequence[str], names: Sequence[str]
) -> Chart:
    plot = make_rows(names, AHEAD[measure], height=140 + (30 + 7 * len(rivals)) * len(names))
    scale = SCALES[measure][0]
    for place, rival in enumerate(rivals):
        rows = [
            row
            for row in found["differences"]
            if row["rival"] == rival
            and row["measure"] == measure
            and all(is_number(row[key]) for key in ("value", "low", "high"))
        ]
        offset = 0.7 * ((len(rivals) - 1) / 2 - place) / len(rivals)
        source = ColumnDataSource(
            {
                "y": [(names[conditions.index(row["condition"])], offset) for row in rows],
                "verdict": [row["verdict"] for row in rows],
                **{key: [scale * row[key] for row in rows] for key in ("value", "low", "high")},
            }
        )
        colour, label = PALETTE[place % len(PALETTE)], f"than {name_of(found, rival)}"
        plot.segment(
            "low",
            "y",
            "high",
            "y",
            source=source,
            line_color=colour,
            line_width=2,
            legend_label=label,
        )
        dots = plot.scatter(
            "value",
            "y",
            source=source,
            size=8,
            color=colour,
            marker=MARKERS[(place + place // len(PALETTE)) % len(MARKERS)],
            legend_label=label,
        )
        interval = "@value{+0.00}, @low{+0.00} to @high{+0.00}"
        add_hover(plot, dots, [("", label), (AHEAD[measure], interval), ("", "@verdict")])
    plot.vspan(x=[0], line_color="black", line_width=1)
    place_legend(plot)
    text = f"{AHEAD[measure]} of the first method than its rivals, by condition"
    return Chart(plot, capital(AHEAD[measure]), text)


def mean_curve(runs: Sequence[Row]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return seconds, and the mean, the least and the largest of the curves of several seeds."""
    end = min(run["seconds"][-1] for run in runs)
    begin = max(run["seconds"][0] for run in runs)
    seconds = np.linspace(min(begin, end), end, POINTS)
    lines = []
    for run in runs:
        values = np.array([np.nan if each is None else each for each in run["finished"]], float)
        known = np.isfinite(values)
        lines.append(np.interp(seconds, np.array(run["seconds"])[known], values[known]))
    found = 100 * np.array(lines)
    return seconds, found.mean(axis=0), found.min(axis=0), found.max(axis=0)


def _curve_section(found: Row, curves: Mapping[str, Mapping[str, Sequence[Row]]]) -> Section:
    charts = []
    places = {row["policy"]: place for place, row in enumerate(found["table"])}
    for condition, methods in curves.items():
        plot = make_plot("virtual time, s", "finished of the ended tasks, %", height=330)
        for place, method in enumerate(sorted(methods, key=lambda method: places.get(method, 0))):
            runs = methods[method]
            seconds, middle, low, high = mean_curve(runs)
            columns = {"x": seconds, "mean": middle, "low": low, "high": high}
            source = ColumnDataSource({key: short(value) for key, value in columns.items()})
            colour, label = PALETTE[place % len(PALETTE)], name_of(found, method)
            plot.varea(
                "x",
                "low",
                "high",
                source=source,
                fill_color=colour,
                fill_alpha=0.12,
                legend_label=label,
            )
            line = plot.line(
                "x",
                "mean",
                source=source,
                line_color=colour,
                line_dash=DASHES[place % len(DASHES)],
                line_width=2,
                legend_label=label,
            )
            add_hover(plot, line, [("", label), ("", "@mean{0.0} % at @x{0} s")])
        place_legend(plot)
        name = condition_of(found, condition)
        text = f"Finished tasks of the whole network during training in {name}, by method"
        charts.append(Chart(plot, name, text))
    lead = "<p>The whole network during training; mean and range over seeds.</p>"
    return Section("curves", "Curves", [lead, charts])


def _cell_section(folder: Path) -> Section:
    """Return links to what the numbers come from."""
    names = ("results.md", "table.csv", "summary.json", "paper.md", "paper.tex")
    files = [name for name in names if (folder / name).exists()]
    cells = sorted((folder / "cells").glob("*.json"))
    named = "".join(f'<li><a href="{name}">{name}</a></li>' for name in files)
    listed = "".join(
        f'<li><a href="cells/{escape(path.name)}">{escape(path.stem)}</a></li>' for path in cells
    )
    text = f"<p>Beside this page, in the folder of the experiment:</p><ul>{named}</ul>"
    if cells:
        text += f"<details><summary>{len(cells)} cells</summary><ul>{listed}</ul></details>"
    return Section("cells", "Cells", [text])

"""The section of the learning curves: of the nodes of one run, or of several runs."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource

from fauno_flwr.results.html.charts import (
    DASHES,
    GREY,
    PALETTE,
    Chart,
    Section,
    add_hover,
    capital,
    choices,
    count_whole,
    make_plot,
    short,
    toggles,
)
from fauno_flwr.results.html.curves import (
    AXES,
    CLOCK,
    DECISIONS,
    VERSION,
    WALL,
    MeanCurves,
    NodeCurves,
    evaluations,
    label_of,
    mean_curves,
    node_curves,
)
from fauno_flwr.results.html.files import RunFiles
from fauno_flwr.results.report import COLOURS

MEAN = COLOURS["fauno"]
Row = Mapping[str, Any]


def learning_section(runs: Sequence[RunFiles], names: Sequence[str]) -> Section | None:
    """Return the curves of one run with its nodes, or the means of several; None without any.

    Parameters
    ----------
    runs : sequence of RunFiles
    names : sequence of str
        Of the runs.
    """
    found = [node_curves(run.events, run.rows) for run in runs]
    kept = [
        (name, run, nodes)
        for name, run, nodes in zip(names, runs, found, strict=True)
        if nodes.metrics
    ]
    if not kept:
        return None
    means = [mean_curves(nodes) for _, _, nodes in kept]
    labels = [name for name, _, _ in kept]
    metrics = list(dict.fromkeys(metric for mean in means for metric in mean.metrics))
    axes = [axis for axis in AXES if all(axis in mean.axes for mean in means)]
    colours = [MEAN] if len(kept) == 1 else [_colour(place) for place in range(len(kept))]
    lines, points = _line_source(labels, means, metrics, axes, colours)
    single = kept[0][2] if len(kept) == 1 else None
    nodes = _node_source(single, axes) if single is not None else None
    charts = [_chart(metric, lines, points, nodes, len(kept)) for metric in metrics]
    measured = _evaluation_charts(kept, axes, colours)
    sources = [lines, points, *([nodes] if nodes is not None else [])]
    evaluated = [source for _, some in measured for source in some]
    sources += evaluated
    charts = [chart for chart, _ in measured] + charts
    options = [(axis, _axis_label(axis, [run for _, run, _ in kept])) for axis in axes]
    parts: list[str | Sequence[Chart]] = [
        f"<p>{escape(_about(len(kept)))}</p>",
        choices("over", options, sources, [chart.plot for chart in charts]),
    ]
    if single is not None:
        parts.append(toggles("nodes", single.names, [nodes], on=False, palette=PALETTE[:-1]))
    else:
        looks = [lines, points, *evaluated]
        parts.append(toggles("runs", labels, looks, on=True, colours=colours))
    return Section("learning", "Learning", [*parts, charts])


def _about(runs: int) -> str:
    if runs == 1:
        return (
            "What the nodes report with their updates. Line: mean over the nodes that trained from "
            "a version; band: 10 to 90 % of them; grey: each node, coloured by its button."
        )
    return (
        "What the nodes report with their updates. Line: mean over the nodes that trained from a "
        "version; band: 10 to 90 % of them. A button hides a run."
    )


def _axis_label(axis: str, runs: Sequence[RunFiles]) -> str:
    virtual = {run.clock for run in runs} == {"virtual"}
    return {
        VERSION: "version trained from",
        CLOCK: "virtual time, s" if virtual else "time, s",
        WALL: "wall-clock time, s",
        DECISIONS: "decisions merged so far",
    }[axis]


def _colour(place: int) -> str:
    return PALETTE[place % len(PALETTE)]


def _line_source(
    names: Sequence[str],
    means: Sequence[MeanCurves],
    metrics: Sequence[str],
    axes: Sequence[str],
    colours: Sequence[str],
) -> tuple[ColumnDataSource, ColumnDataSource]:
    """Return a row per run, with its lines and bands, and a row per run and version.

    Lines have as many points in every metric, as a run that lacks one has NaN there.
    """
    runs = len(means)
    lines: dict[str, Any] = {"name": list(names), "colour": list(colours)}
    lines["dash"] = [DASHES[place % len(DASHES)] for place in range(runs)]
    lines |= _looks("alpha", [1.0] * runs, [0.0] * runs, on=True)
    lines |= _looks("band", [0.18 if runs == 1 else 0.1] * runs, [0.0] * runs, on=True)
    for axis in axes:
        lines[f"x|{axis}"] = [short(mean.axes[axis]) for mean in means]
        lines[f"bx|{axis}"] = [_around(short(mean.axes[axis])) for mean in means]
    lines["x"], lines["bx"] = lines[f"x|{axes[0]}"], lines[f"bx|{axes[0]}"]
    owner = np.concatenate([np.full(len(mean.replies), i) for i, mean in enumerate(means)])
    points: dict[str, Any] = {
        "row": owner.astype(np.int32),
        "name": [names[i] for i in owner],
        "colour": [colours[i] for i in owner],
        "replies": np.concatenate([mean.replies for mean in means]).astype(np.int32),
        **_looks("alpha", [1.0] * len(owner), [0.0] * len(owner), on=True),
    }
    for axis in axes:
        points[f"x|{axis}"] = short(np.concatenate([mean.axes[axis] for mean in means]))
    points["x"] = points[f"x|{axes[0]}"]
    for metric in metrics:
        nothing = [np.full((3, len(mean.replies)), np.nan) for mean in means]
        found = [
            np.array(mean.metrics.get(metric, none))
            for mean, none in zip(means, nothing, strict=True)
        ]
        lines[metric] = [short(values[0]) for values in found]
        lines[f"{metric}.band"] = [
            np.concatenate([short(values[1]), short(values[2])[::-1]]) for values in found
        ]
        points[metric] = short(np.concatenate([values[0] for values in found]))
    return ColumnDataSource(lines), ColumnDataSource(points)


def _around(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, x[::-1]])


def _looks(name: str, shown: list[Any], hidden: list[Any], *, on: bool) -> dict[str, Any]:
    """Return a column with its values for a row that is on, and for one that is off."""
    return {f"{name}|on": shown, f"{name}|off": hidden, name: shown if on else hidden}


def _node_source(nodes: NodeCurves, axes: Sequence[str]) -> ColumnDataSource:
    """Return a row per node."""
    parts = [slice(*pair) for pair in zip(nodes.first[:-1], nodes.first[1:], strict=True)]
    count = len(parts)
    columns: dict[str, Any] = {"name": list(nodes.names)}
    columns |= _looks("colour", [GREY] * count, [GREY] * count, on=False)  # the page gives others
    columns |= _looks("alpha", [1.0] * count, [0.3] * count, on=False)
    columns |= _looks("width", [2.4] * count, [1.0] * count, on=False)
    for axis in axes:
        columns[f"x|{axis}"] = [short(nodes.axes[axis][part]) for part in parts]
    columns["x"] = columns[f"x|{axes[0]}"]
    for metric, values in nodes.metrics.items():
        columns[metric] = [short(values[part]) for part in parts]
    return ColumnDataSource(columns)


def _chart(
    metric: str,
    lines: ColumnDataSource,
    points: ColumnDataSource,
    nodes: ColumnDataSource | None,
    runs: int,
) -> Chart:
    """Chart one metric."""
    _, label = label_of(metric)
    plot = make_plot("version trained from", height=250)
    count_whole(plot)
    if nodes is not None:
        threads = plot.multi_line(
            "x", metric, source=nodes, line_color="colour", line_alpha="alpha", line_width="width"
        )
        add_hover(
            plot,
            threads,
            [("node", "@name"), (label, "$snap_y{0.000}")],
            line_policy="nearest",
            attachment="left",
        )
    plot.patches(
        "bx",
        f"{metric}.band",
        source=lines,
        fill_color="colour",
        fill_alpha="band",
        line_color=None,
    )
    plot.multi_line(
        "x",
        metric,
        source=lines,
        line_color="colour",
        line_alpha="alpha",
        line_dash="dash",
        line_width=2.5,
    )
    dots = plot.scatter(
        "x", metric, source=points, size=5, color="colour", alpha="alpha", line_color=None
    )
    who = [("run", "@name")] if runs > 1 else []
    what = ("mean", f"@{{{metric}}}{{0.000}}")
    version = ("version", "@{x|version}{0}")
    add_hover(plot, dots, [*who, what, version, ("replies", "@replies")])
    last = [
        f"{name} {values[np.isfinite(values)][-1]:.3g}"
        for name, values in zip(lines.data["name"], lines.data[metric], strict=True)
        if np.isfinite(values).any()
    ]
    text = f"{label} by version, mean over the nodes with a band; at the end: {', '.join(last)}"
    return Chart(plot, capital(label), text)


def _evaluation_charts(
    kept: Sequence[tuple[str, RunFiles, NodeCurves]],
    axes: Sequence[str],
    colours: Sequence[str],
) -> list[tuple[Chart, list[ColumnDataSource]]]:
    """Chart the evaluations during training, if there are any."""
    found = [evaluations(run.rows) for _, run, _ in kept]
    made = []
    for metric in dict.fromkeys(metric for each in found for metric in each):
        some = [(place, each[metric]) for place, each in enumerate(found) if metric in each]
        label = label_of(metric)[1]
        count = len(some)
        columns: dict[str, Any] = {
            "row": [place for place, _ in some],
            "colour": [colours[place] for place, _ in some],
            "value": [short(each["value"]) for _, each in some],
            **_looks("alpha", [1.0] * count, [0.0] * count, on=True),
        }
        owner = [place for place, each in some for _ in each["value"]]
        flat: dict[str, Any] = {
            "row": owner,
            "name": [kept[place][0] for place in owner],
            "colour": [colours[place] for place in owner],
            "value": short(np.concatenate([each["value"] for _, each in some])),
            **_looks("alpha", [1.0] * len(owner), [0.0] * len(owner), on=True),
        }
        for axis in axes:
            columns[f"x|{axis}"] = [short(each[axis]) for _, each in some]
            flat[f"x|{axis}"] = np.concatenate(columns[f"x|{axis}"])
        columns["x"], flat["x"] = columns[f"x|{axes[0]}"], flat[f"x|{axes[0]}"]
        lines, points = ColumnDataSource(columns), ColumnDataSource(flat)
        plot = make_plot("version trained from", height=250)
        count_whole(plot)
        plot.multi_line(
            "x", "value", source=lines, line_color="colour", line_alpha="alpha", line_width=2.5
        )
        dots = plot.scatter("x", "value", source=points, size=6, color="colour", alpha="alpha")
        tips = [("", "@name"), (label, "@value{0.00}"), ("version", "@{x|version}")]
        add_hover(plot, dots, tips)
        ends = ", ".join(f"{each['value'][-1]:.4g}" for _, each in some)
        text = f"{label}, during training; at the end: {ends}"
        made.append((Chart(plot, capital(label), text), [lines, points]))
    return made

"""The sections of the recordings: the replay, and where the tasks go."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, FactorRange

from fauno_flwr.results.html import tasks
from fauno_flwr.results.html.charts import (
    DASHES,
    MARKERS,
    ROW,
    Chart,
    Section,
    add_heat,
    add_hover,
    choices,
    make_plot,
    make_rows,
    place_legend,
    policy_colour,
    short,
    stack_losses,
)
from fauno_flwr.results.html.summary import lost_kinds
from fauno_flwr.results.report import title
from sim_env.replay.files import Replay
from sim_env.replay.page import replay_section

LARGEST_MATRIX = 60  # nodes; of more, their roles are shown
SHOWN = 2  # policies whose lines are shown at first


def replay_part(replay: Replay) -> Section:
    """Return the section of the player."""
    first = replay.recordings[0]
    begin, end = (tick * replay.network["tick"] for tick in first.window)
    lead = (
        f"<p>World {first.seed} of the evaluation under every policy, with the same arrivals. "
        f"Measured are the tasks born from {begin:g} to {end:g} s.</p>"
    )
    titles = {each.policy: title(each.policy) for each in replay.recordings}
    return Section("replay", "Network replay", [lead, replay_section(replay, titles)])


def flow_section(replay: Replay) -> Section:
    """Return the section of flows: who served whose tasks, losses, responses, utilisation."""
    names = list(replay.network["names"])
    policies = [title(each.policy) for each in replay.recordings]
    matrix, matrix_source = _matrix(replay, policies)
    lost, lost_source = _losses(replay, names, policies)
    options = [(str(number), name) for number, name in enumerate(policies)]
    lead = (
        f"<p>Of the recorded world, for the tasks born in its window: "
        f"{replay.recordings[0].cohort()['created']:,} of them.</p>"
    )
    control = choices("policy", options, [matrix_source, lost_source], [])
    return Section(
        "flow",
        "Flow of tasks",
        [
            lead,
            control,
            [matrix, lost],
            [_responses(replay, policies), _utilisation(replay, names, policies)],
        ],
    )


def _height(names: Sequence[str]) -> int:
    """Return the height of a chart with a row per name and a legend of two lines."""
    return max(380, min(150 + ROW * len(names), 1500))


def _matrix(replay: Replay, policies: Sequence[str]) -> tuple[Chart, ColumnDataSource]:
    """Chart the finished tasks by the node of their birth and the node that served them."""
    names, nodes = list(replay.network["names"]), len(replay.network["names"])
    group = np.arange(nodes)
    if nodes > LARGEST_MATRIX:
        roles = list(replay.network["roles"])
        names = list(dict.fromkeys(roles))
        group = np.array([names.index(role) for role in roles])
    row, column = np.divmod(np.arange(len(names) ** 2), len(names))
    columns: dict[str, Any] = {
        "x": [names[i] for i in column],
        "y": [names[i] for i in row],
    }
    for number, recording in enumerate(replay.recordings):
        counts = tasks.grouped(tasks.exchange(recording, nodes), group)
        born = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        share = np.where(counts > 0, 100 * counts / born, np.nan)
        columns[f"count|{number}"] = counts.ravel().astype(np.int32)
        columns[f"share|{number}"] = short(share.ravel())
    columns["count"], columns["share"] = columns["count|0"], columns["share|0"]
    source = ColumnDataSource(columns)
    plot = make_rows(names, "served at", y_label="born at", x_range=FactorRange(factors=names))
    plot.height = _height(names)
    plot.xaxis.major_label_orientation = 1.1
    tiles = add_heat(plot, source, "share", 100.0, "%")
    tips = [("born at", "@y"), ("served at", "@x"), ("tasks", "@count, @share{0.0} % of its own")]
    add_hover(plot, tiles, tips)
    text = (
        f"Matrix of the finished tasks: by {'role of ' if nodes > LARGEST_MATRIX else ''}the node "
        f"where they were born, the share that each node served; at first under {policies[0]}"
    )
    return Chart(plot, "Who served whose tasks", text, note="finished tasks of a row, %"), source


def _losses(
    replay: Replay, names: Sequence[str], policies: Sequence[str]
) -> tuple[Chart, ColumnDataSource]:
    """Chart the lost tasks by place and reason."""
    found = [tasks.losses(each, len(names)) for each in replay.recordings]
    kinds = lost_kinds(found)
    columns: dict[str, Any] = {"name": list(names)}
    for kind in kinds:
        for number, each in enumerate(found):
            columns[f"{kind}|{number}"] = each[kind].astype(np.int32)
        columns[kind] = columns[f"{kind}|0"]
    source = ColumnDataSource(columns)
    plot = make_rows(names, "lost tasks")
    plot.height = _height(names)
    stack_losses(plot, kinds, source, [("at", "@name"), ("$name", "@$name")])
    totals = ", ".join(
        f"{policy} {sum(int(counts.sum()) for counts in each.values())}"
        for policy, each in zip(policies, found, strict=True)
    )
    text = f"Lost tasks by the node where they were, and by reason; in all: {totals}"
    return Chart(plot, "Lost tasks by place and reason", text), source


def _responses(replay: Replay, policies: Sequence[str]) -> Chart:
    """Chart the empirical distribution of the response under each policy."""
    height = _height(replay.network["names"])  # as the chart beside it
    plot = make_plot("response of finished tasks, s", "finished within, % of all", height=height)
    told = []
    for number, (recording, name) in enumerate(zip(replay.recordings, policies, strict=True)):
        ticks = tasks.responses(recording)
        values, fraction = tasks.distribution(ticks)
        # Of all tasks: a policy that loses many does not look quick.
        fraction = fraction * len(ticks) / max(recording.cohort()["created"], 1)
        seconds = values * replay.network["tick"]
        source = ColumnDataSource({"x": short(seconds), "y": short(100 * fraction)})
        line = plot.step(
            "x",
            "y",
            source=source,
            mode="after",
            line_width=2,
            line_color=policy_colour(recording.policy, number),
            line_dash=DASHES[number % len(DASHES)],
            legend_label=name,
        )
        within = "@y{0.0} % within @x{0.0} s"
        add_hover(plot, line, [("", name), ("", within)], line_policy="prev")
        if len(ticks):
            median = float(np.median(ticks)) * replay.network["tick"]
            told.append(f"{name} {median:.1f} s")
    place_legend(plot)
    plot.y_range.start = 0
    text = f"Distribution of the response under each policy; medians: {', '.join(told)}"
    return Chart(plot, "Response", text, note="Each curve ends at the policy's finished ratio.")


def _utilisation(replay: Replay, names: Sequence[str], policies: Sequence[str]) -> Chart:
    """Chart how busy each node is under each policy."""
    plot = make_rows(names, "ticks in which the node serves, %")
    plot.height = _height(names)
    told = []
    for number, (recording, name) in enumerate(zip(replay.recordings, policies, strict=True)):
        busy = 100 * tasks.utilisation(recording, len(names))
        source = ColumnDataSource({"name": list(names), "busy": short(busy)})
        dots = plot.scatter(
            "busy",
            "name",
            source=source,
            size=8,
            marker=MARKERS[number % len(MARKERS)],
            color=policy_colour(recording.policy, number),
            fill_alpha=0.7,
            legend_label=name,
        )
        dots.visible = number < SHOWN
        add_hover(plot, dots, [("", f"@name, {name}"), ("busy", "@busy{0.0} %")])
        told.append(f"{name} {busy.mean():.0f} %")
    place_legend(plot)
    text = f"Utilisation of each node under each policy; means over the nodes: {', '.join(told)}"
    note = "A click on the legend shows more policies."
    return Chart(plot, "Utilisation", text, note=note)

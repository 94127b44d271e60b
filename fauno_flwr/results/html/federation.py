"""The section of the federation: every message, every version, and each node's part in them."""

from collections.abc import Sequence

import numpy as np
from bokeh.models import ColumnDataSource, DataRange1d

from fauno_flwr.results.html.charts import (
    GREY,
    Chart,
    Section,
    add_heat,
    add_hover,
    count_whole,
    html_table,
    make_plot,
    make_rows,
    place_legend,
    short,
)
from fauno_flwr.results.html.curves import natural
from fauno_flwr.results.html.files import RunFiles
from fauno_flwr.results.html.messages import (
    EVALUATION,
    FAILED,
    MERGED,
    OPEN,
    OUTCOMES,
    REJECTED,
    UNUSED,
    Merged,
    Participation,
    Sent,
    flushes,
    jain,
    merged_updates,
    participation,
    sent_messages,
)
from fauno_flwr.results.status import failures, node_statistics

LOOKS = {
    MERGED: ("#0072B2", " "),
    UNUSED: ("#56B4E9", " "),
    EVALUATION: ("#009E73", " "),
    REJECTED: ("#D55E00", "/"),
    FAILED: ("#000000", "x"),
    OPEN: (GREY, "."),
}
MOST = 40_000  # messages, or updates: more make a page slow
MEBI = 2**20


def federation_section(run: RunFiles) -> Section | None:
    """Return the section; None for a run that has sent nothing."""
    sent, merged = sent_messages(run.events), merged_updates(run.events)
    if not sent:
        return None
    names = sorted({each.node for each in sent} | {each.node for each in merged}, key=natural)
    clock = "virtual time" if run.clock == "virtual" else "time"
    part = participation(node_statistics(run.events), merged)
    parts: list[str | Sequence[Chart]] = [[_timeline(run, sent[-MOST:], names, f"{clock}, s")]]
    if merged:
        *heats, norms = _versions(merged[-MOST:], names)
        parts += [heats, [norms]]
    parts.append([_participation(part), _bytes(part)])
    parts += ["<h3>Messages without an accepted update</h3>", _failures(run)]
    return Section("federation", "Federation", parts)


def _timeline(run: RunFiles, sent: Sequence[Sent], names: Sequence[str], label: str) -> Chart:
    """Chart every message from its dispatch to its answer, and the versions as lines."""
    plot = make_rows(names, label, x_range=DataRange1d(range_padding=0.01))
    made = flushes(run.events)
    if made:
        times, versions, counts = (np.array(column) for column in zip(*made, strict=True))
        source = ColumnDataSource({"t": short(times), "version": versions, "updates": counts})
        lines = plot.vspan(
            x="t", source=source, line_color="#111111", line_alpha=0.5, level="overlay"
        )
        add_hover(plot, lines, [("version", "@version"), ("at", "@t{0.0} s"), ("of", "@updates")])
    counted = {}
    for outcome in (*OUTCOMES, EVALUATION):
        some = [each for each in sent if each.outcome == outcome]
        if not some:
            continue
        counted[outcome] = len(some)
        start, end, trained = (
            np.array([getattr(each, key) for each in some]) for key in ("start", "end", "trained")
        )
        # The events do not tell how the rest of the time is shared by the two ways.
        way = (end - start - trained) / 2
        source = ColumnDataSource(
            {
                "node": [each.node for each in some],
                "start": short(start),
                "end": short(end),
                "begin": short(np.where(trained > 0, start + way, start)),
                "finish": short(np.where(trained > 0, end - way, start)),
                "trained": short(trained),
                "seconds": short(end - start),
                "version": np.array([each.version for each in some], np.int32),
                "detail": [each.detail for each in some],
            }
        )
        colour, hatch = LOOKS[outcome]
        thin = plot.hbar(
            y="node",
            left="start",
            right="end",
            height=0.36,
            source=source,
            fill_color=colour,
            fill_alpha=0.55,
            hatch_pattern=hatch,
            hatch_color="white",
            line_color="white",
            line_width=0.5,
            legend_label=outcome,
        )
        plot.hbar(
            y="node",
            left="begin",
            right="finish",
            height=0.74,
            source=source,
            fill_color=colour,
            fill_alpha=0.8,
            line_color="white",
            line_width=0.5,
            legend_label=outcome,
        )
        tips = [
            ("node", "@node"),
            ("version", f"@version, {outcome}"),
            ("on its way", "@start{0.0} to @end{0.0} s, @seconds{0.0} s in all"),
        ]
        if trained.any():
            tips.append(("trained", "@trained{0.0} s"))
        if any(each.detail for each in some):
            tips.append(("why", "@detail"))
        add_hover(plot, thin, tips)
    place_legend(plot)
    told = ", ".join(f"{count} {outcome}" for outcome, count in counted.items())
    return Chart(
        plot,
        "Messages",
        f"Timeline of {len(sent)} messages to {len(names)} nodes: {told}; {len(made)} versions",
        wide=True,
        note="Thin: from dispatch to answer; thick: the node trains, drawn in the middle of it. "
        "Vertical lines: versions. A click on the legend hides messages.",
    )


def _versions(merged: Sequence[Merged], names: Sequence[str]) -> list[Chart]:
    """Chart what each node had in each version: share, staleness, norm."""
    source = ColumnDataSource(
        {
            "x": np.array([each.version for each in merged], np.int32),
            "y": [each.node for each in merged],
            "share": short(np.array([100 * each.share for each in merged])),
            "staleness": np.array([each.staleness for each in merged], np.int32),
            "steps": np.array([each.steps for each in merged], np.int32),
            "norm": short(np.array([each.norm for each in merged])),
        }
    )
    tips = [
        ("node", "@y"),
        ("version", "@x"),
        ("share of its steps", "@share{0.0} % (@steps)"),
        ("staleness", "@staleness"),
        ("norm", "@norm{0.000}"),
    ]
    charts = []
    stale = max(each.staleness for each in merged)
    share = 100 * max(each.share for each in merged)
    for column, high, unit, title in (
        ("share", share, "%", "Weight of a node in a version: its share of the steps"),
        ("staleness", float(stale), "versions", "Staleness of a node's update in a version"),
    ):
        plot = make_rows(names, "version")
        count_whole(plot)
        add_hover(plot, add_heat(plot, source, column, high, unit), tips)
        text = f"{title}, by node and version; the largest is {high:.3g} {unit}"
        charts.append(Chart(plot, title, text))
    plot = make_plot("version", "norm of an update", height=240)
    count_whole(plot)
    dots = plot.scatter("x", "norm", source=source, size=5, color="#0072B2", alpha=0.6)
    add_hover(plot, dots, tips)
    median = float(np.median([each.norm for each in merged]))
    text = f"Norms of the updates by version; their median is {median:.3g}"
    return [*charts, Chart(plot, "Size of the updates", text, wide=True)]


def _participation(part: Participation) -> Chart:
    share = 100 * part.steps / max(part.steps.sum(), 1)
    source = ColumnDataSource(
        {"name": part.names, "updates": part.updates, "share": short(share), "steps": part.steps}
    )
    plot = make_rows(part.names, "merged updates")
    bars = plot.hbar(y="name", right="updates", height=0.7, source=source, color="#0072B2")
    tips = [("node", "@name"), ("merged updates", "@updates")]
    add_hover(plot, bars, [*tips, ("share of all steps", "@share{0.0} % (@steps)")])
    plot.x_range.start = 0
    by_update, by_step = jain(part.updates), jain(part.steps)
    note = f"Jain's index: {by_update:.3f} of updates, {by_step:.3f} of steps (1: all alike)"
    return Chart(
        plot, "Fairness of participation", f"Merged updates of each node. {note}", note=note
    )


def _bytes(part: Participation) -> Chart:
    source = ColumnDataSource(
        {
            "name": part.names,
            "to node": short(part.to_node / MEBI),
            "from node": short(part.from_node / MEBI),
        }
    )
    plot = make_rows(part.names, "MiB of arrays")
    bars = plot.hbar_stack(
        ["to node", "from node"],
        y="name",
        height=0.7,
        source=source,
        color=["#56B4E9", "#0072B2"],
        legend_label=["to node", "from node"],
    )
    add_hover(plot, bars, [("node", "@name"), ("$name", "@$name{0.000} MiB")])
    place_legend(plot)
    plot.x_range.start = 0
    total = (part.to_node.sum() + part.from_node.sum()) / MEBI
    text = f"Bytes of parameters to and from each node; {total:.2f} MiB in all"
    return Chart(plot, "Bytes on the way to each node, and back", text)


def _failures(run: RunFiles) -> str:
    """Return who was rejected, failed, refused or banned, and why."""
    last = {
        event["name"]: str(event["reason"])
        for event in run.events
        if "name" in event and "reason" in event
    }
    rows = [
        (name, f"{count} x {reason}", last.get(name, ""))
        for name, counts in sorted(failures(run.events).items())
        for reason, count in counts.most_common()
    ]
    rows += [
        (event.get("name", f"node {event['node']}"), event["event"], str(event["reason"]))
        for event in run.events
        if event["event"] in ("refused", "ban")
    ]
    if not rows:
        return "<p>None.</p>"
    head = ("node", "reason", "the last, in words")
    return html_table(head, rows, label="Messages without an accepted update", css="text")

"""Figures of an experiment: learning curves, paired differences, a map of all numbers."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import TwoSlopeNorm

from fauno_flwr.experiments.design import BASELINES
from fauno_flwr.experiments.summary import (
    FINISHED,
    RESPONSE,
    Row,
    Summary,
    deciding,
    difference,
)
from fauno_flwr.experiments.targets import SMOOTHING
from fauno_flwr.results.statistics import mean

# Of Okabe and Ito, who chose them for the colour-blind; lines and markers differ as well.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
LINES = ("-", "--", "-.", ":")
MARKERS = "osD^vP*X"
LEVELS = {"sed": ("#333333", "--"), "lq": ("#999999", ":")}
COLUMNS = 4
NO_BUDGET = 300.0  # where methods without an epsilon stand on its axis


def plot_curves(summary: Summary, path: Path) -> None:
    """Plot the finished ratio of the whole network in training; mean and range over seeds."""
    conditions = [name for name in summary.titles if name in summary.curves]
    columns = min(COLUMNS, len(conditions))
    rows = -(-len(conditions) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(max(3.4 * columns, 6.8), 2.7 * rows + 0.8), squeeze=False
    )
    for axis, condition in zip(axes.flat, conditions, strict=False):
        lows = []
        for place, method in enumerate(summary.experiment.methods):
            runs = summary.curves[condition].get(method, [])
            if not runs:
                continue
            end = min(run["curve"]["seconds"][-1] for run in runs)
            seconds = np.linspace(0.1 * end, end, 50)
            lines = np.array([_smooth(run["curve"], seconds) for run in runs])
            colour = COLOURS[place % len(COLOURS)]
            axis.fill_between(
                seconds, lines.min(axis=0), lines.max(axis=0), color=colour, alpha=0.18, lw=0
            )
            axis.plot(
                seconds,
                lines.mean(axis=0),
                color=colour,
                ls=LINES[place % len(LINES)],
                label=summary.title(method),
            )
            lows.append(lines.min())
        for name, (colour, style) in LEVELS.items():
            level = 100 * float(mean(summary.samples[condition][name].finished_ratio.ravel()))
            axis.axhline(level, color=colour, ls=style, lw=1, label=summary.title(name))
            lows.append(level)
        axis.set_ylim(max(0.0, min(lows) - 2), 100.5)
        axis.set_title(summary.titles[condition], fontsize=9)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(conditions) :]:
        axis.axis("off")
    figure.supxlabel("virtual time, s", fontsize=9)
    figure.supylabel("finished of the ended tasks, %", fontsize=9)
    _legend(figure, axes[0, 0])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _smooth(curve: dict[str, Any], seconds: np.ndarray) -> np.ndarray:
    """Interpolate the running mean of a curve, in percent, at given seconds."""
    values = np.array(curve["finished"], float)
    padded = np.pad(values, (SMOOTHING - 1, 0), mode="edge")
    smooth = mean(np.lib.stride_tricks.sliding_window_view(padded, SMOOTHING))
    return 100 * np.interp(seconds, curve["seconds"], smooth)


def plot_differences(summary: Summary, rows: list[Row], path: Path) -> None:
    """Plot the first method - its rivals, with 95 % intervals; right of 0 is better."""
    rivals = list(dict.fromkeys(row["rival"] for row in rows))
    rivals = [rival for rival in rivals if rival in summary.experiment.compared]
    conditions = list(dict.fromkeys(row["condition"] for row in rows))
    height = max(0.16 * len(rivals), 0.45) * len(conditions) + 1.7
    figure, axes = plt.subplots(1, 2, figsize=(11, height), sharey=True)
    for axis, measure, scale, label in (
        (axes[0], FINISHED, 100, "more finished tasks, points"),
        (axes[1], RESPONSE, 1, "shorter response, s"),
    ):
        for place, rival in enumerate(rivals):
            some = [r for r in rows if r["rival"] == rival and r["measure"] == measure]
            offset = 0.7 * ((len(rivals) - 1) / 2 - place) / len(rivals)
            y = [len(conditions) - 1 - conditions.index(r["condition"]) + offset for r in some]
            value, low, high = (
                scale * np.array([r[key] for r in some]) for key in ("value", "low", "high")
            )
            axis.errorbar(
                value,
                y,
                xerr=[value - low, high - value],
                fmt=MARKERS[place % len(MARKERS)],
                color=COLOURS[(place + 1) % len(COLOURS)],
                markersize=4,
                capsize=2,
                label=f"than {summary.title(rival)}",
            )
        for line in np.arange(len(conditions) - 1) + 0.5:
            axis.axhline(line, color="#DDDDDD", lw=0.8)
        axis.axvline(0, color="black", lw=1)
        axis.set_xlabel(label)
        axis.grid(axis="x", alpha=0.3)
    _name_rows(summary, axes[0], conditions)
    _legend(figure, axes[0], f"{summary.title(next(iter(summary.experiment.methods)))} has ...")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_distances(summary: Summary, rows: list[Row], path: Path) -> None:
    """Plot the distances to the clairvoyant of :mod:`fauno_flwr.experiments.bound`."""
    conditions = list(dict.fromkeys(row["condition"] for row in rows))
    groups = list(dict.fromkeys(row["group"] for row in rows))
    figure, axes = plt.subplots(1, 2, figsize=(11, 0.42 * len(conditions) + 1.7), sharey=True)
    for axis, measure, scale, label in (
        (axes[0], FINISHED, 100, "finished tasks behind the clairvoyant, points"),
        (axes[1], RESPONSE, 1, "response behind the clairvoyant, s"),
    ):
        for place, group in enumerate(groups):
            some = [row for row in rows if row["group"] == group]
            y = [len(conditions) - 1 - conditions.index(row["condition"]) for row in some]
            value, low, high = (
                -scale * np.array([getattr(row[measure], key) for row in some])
                for key in ("value", "low", "high")
            )
            axis.errorbar(
                value,
                np.array(y) + 0.2 * (1 - place),
                xerr=[value - high, low - value],
                fmt=MARKERS[place],
                color=COLOURS[place],
                markersize=4,
                capsize=2,
                label=group,
            )
        axis.axvline(0, color="black", lw=1)
        axis.set_xlabel(label)
        axis.grid(axis="x", alpha=0.3)
    _name_rows(summary, axes[0], conditions)
    _legend(figure, axes[0])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _name_rows(summary: Summary, axis: Any, conditions: list[str]) -> None:
    """Name the rows of a figure by its conditions, the first one on top."""
    names = [summary.titles[condition] for condition in conditions[::-1]]
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(-0.5, len(names) - 0.5)


def plot_map(summary: Summary, path: Path) -> None:
    """Plot the numbers of all conditions and policies, coloured by the difference to SED."""
    experiment = summary.experiment
    policies = [*experiment.methods, *BASELINES, *experiment.heuristics]
    used = {name for samples in summary.samples.values() for name in samples}
    policies = [name for name in policies if name in used]
    conditions = list(summary.samples)
    figure, axes = plt.subplots(
        1, 2, figsize=(2.2 + 1.45 * len(policies), 0.42 * len(conditions) + 2.4), sharey=True
    )
    for axis, measure, scale, clip, title in (
        (axes[0], FINISHED, 100, 10, "finished tasks, %"),
        (axes[1], RESPONSE, 1, 5, "response of finished tasks, s"),
    ):
        colours = np.full((len(conditions), len(policies)), np.nan)
        for i, condition in enumerate(conditions):
            samples = summary.samples[condition]
            bold = deciding(summary, condition) == measure
            for j, policy in enumerate(policies):
                if policy not in samples:
                    continue
                value = scale * float(mean(samples[policy].measure(measure).ravel()))
                found = difference(samples[policy], samples["sed"], measure)
                colours[i, j] = scale * found.value
                weight = "bold" if bold else "normal"
                axis.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=8, weight=weight)
        shown = axis.imshow(
            np.clip(colours, -clip, clip),
            cmap="RdBu",
            norm=TwoSlopeNorm(0, -clip * 1.6, clip * 1.6),
            aspect="auto",
        )
        shown.set_clim(-clip * 1.6, clip * 1.6)
        axis.set_xticks(
            range(len(policies)),
            [summary.title(policy) for policy in policies],
            rotation=35,
            ha="right",
            fontsize=8,
        )
        axis.set_title(title, fontsize=10)
    axes[0].set_yticks(
        range(len(conditions)), [summary.titles[name] for name in conditions], fontsize=8
    )
    figure.suptitle(
        "Blue: better than ShortestExpectedDelay, red: worse; bold: the measure that decides",
        fontsize=9,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_targets(summary: Summary, rows: list[Row], path: Path) -> None:
    """Plot the time to target of each seed; on the dotted line, it was not reached."""
    conditions = list(dict.fromkeys(row["condition"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure, axis = plt.subplots(figsize=(7.5, 3.6))
    for row in rows:
        place = methods.index(row["method"])
        x = conditions.index(row["condition"]) + 0.22 * (place - (len(methods) - 1) / 2)
        times = [t for t in row["seconds"] if t is not None]
        never = [end for t, end in zip(row["seconds"], row["end"], strict=True) if t is None]
        colour = COLOURS[place % len(COLOURS)]
        label = summary.title(row["method"]) if row["condition"] == conditions[0] else None
        axis.plot([x] * len(times), times, MARKERS[place], color=colour, label=label)
        axis.plot([x] * len(never), never, MARKERS[place], color=colour, mfc="none")
        axis.hlines(np.mean(row["end"]), x - 0.1, x + 0.1, color=colour, ls=":")
    axis.set_xticks(range(len(conditions)), [summary.titles[name] for name in conditions])
    axis.set_ylabel("virtual time to target, s")
    axis.set_ylim(bottom=0)
    axis.grid(axis="y", alpha=0.3)
    axis.set_title("Dotted: end of the training; hollow: target not reached", fontsize=9)
    axis.legend(fontsize=8, loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_privacy(summary: Summary, rows: list[Row], path: Path) -> None:
    """Plot how far federations are ahead of no federation, over epsilon; 95 % intervals."""
    conditions = [c for c in summary.titles if any(row["condition"] == c for row in rows)]
    figure, axes = plt.subplots(
        1, max(1, len(conditions)), figsize=(3.4 * max(2, len(conditions)), 3.8), squeeze=False
    )
    names = sorted({_split_budget(row["method"])[0] for row in rows})
    for axis, condition in zip(axes[0], conditions, strict=False):
        kinds: dict[str, list[tuple[float, Row]]] = {}
        for row in rows:
            if row["condition"] == condition:
                kind, epsilon = _split_budget(row["method"])
                kinds.setdefault(kind, []).append((epsilon, row))
        for kind, points in sorted(kinds.items()):
            place = names.index(kind)  # the same looks in all panels
            x = np.array([epsilon for epsilon, _ in points]) * 1.06 ** (place - len(names) / 2)
            value, low, high = (
                100 * np.array([getattr(row[FINISHED], key) for _, row in points])
                for key in ("value", "low", "high")
            )
            axis.errorbar(
                x,
                value,
                yerr=[value - low, high - value],
                fmt=MARKERS[place % len(MARKERS)],
                ls=LINES[place % len(LINES)] if len(points) > 1 else "",
                color=COLOURS[place % len(COLOURS)],
                markersize=4,
                capsize=2,
                label=kind,
            )
        axis.axhline(0, color="black", lw=1)
        axis.set_xscale("log")
        ticks = [1, 3, 10, 30, 100, NO_BUDGET]
        axis.set_xticks(ticks, [*map(str, ticks[:-1]), "none"])
        axis.minorticks_off()
        axis.set_title(summary.titles[condition], fontsize=9)
        axis.grid(alpha=0.3)
    figure.supxlabel("ε at δ = 1e-5, of all updates of a node", fontsize=9)
    axes[0, 0].set_ylabel("finished tasks, points ahead of no federation", fontsize=8)
    _legend(figure, axes[0, 0])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_size(summary: Summary, rows: list[Row], path: Path) -> None:
    """Plot finished tasks and staleness over the number of nodes, a column per kind of network.

    Parameters
    ----------
    summary : Summary
        Of conditions whose names are a kind of network and a number.
    rows : list of dict
        Of :func:`fauno_flwr.experiments.load_table.load_rows`.
    path : Path
    """
    kinds = list(dict.fromkeys(name.rstrip("0123456789") for name in summary.titles))
    policies = [*summary.experiment.methods, "sed", "threshold"]
    figure, axes = plt.subplots(
        2, len(kinds), figsize=(3.6 * max(2, len(kinds)), 5.4), sharex="col", squeeze=False
    )
    for column, kind in enumerate(kinds):
        sizes = {
            summary.agents[name]: name
            for name in summary.titles
            if name.rstrip("0123456789") == kind
        }
        for place, policy in enumerate(policies):
            looks: dict[str, Any] = {
                "marker": MARKERS[place],
                "ls": LINES[place % len(LINES)],
                "color": COLOURS[place],
                "ms": 4,
                "label": summary.title(policy),
            }
            found = {
                nodes: 100 * float(mean(summary.samples[name][policy].measure(FINISHED).ravel()))
                for nodes, name in sizes.items()
                if policy in summary.samples[name]
            }
            axes[0, column].plot(list(found), list(found.values()), **looks)
            stale = {
                row["nodes"]: row["staleness"]["median"]
                for row in rows
                if row["method"] == policy and row["condition"] in sizes.values()
            }
            axes[1, column].plot(list(stale), list(stale.values()), **looks)
        axes[0, column].set_title(kind, fontsize=9)
        axes[1, column].set_xscale("log")
        axes[1, column].set_yscale("log")
        axes[1, column].set_xlabel("nodes that learn", fontsize=8)
        for axis in axes[:, column]:
            axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("finished tasks, %", fontsize=8)
    axes[1, 0].set_ylabel("staleness of an update, median", fontsize=8)
    _legend(figure, axes[0, 0])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _split_budget(method: str) -> tuple[str, float]:
    """Return a method without its epsilon, and where it stands on the axis."""
    kind, _, epsilon = method.rpartition("-")
    return (kind, float(epsilon)) if epsilon.isdecimal() else (method, NO_BUDGET)


def _legend(figure: Any, axis: Any, title: str = "") -> None:
    """Draw one legend above all panels."""
    handles, labels = axis.get_legend_handles_labels()
    columns = min(len(labels), 4)
    lines = -(-len(labels) // columns) + bool(title)
    room = 0.22 * lines / figure.get_figheight()
    figure.tight_layout(rect=(0, 0, 1, 1 - room))
    figure.legend(
        handles,
        labels,
        loc="upper center",
        ncol=columns,
        fontsize=8,
        frameon=False,
        title=title or None,
        title_fontsize=9,
    )

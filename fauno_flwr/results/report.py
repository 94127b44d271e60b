"""The table and the figures of a run."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fauno_flwr.learning.policy import FAUNO, UNTRAINED
from sim_env.policies.heuristics import TITLES

OWN_TITLES = {FAUNO: "FAuNO", UNTRAINED: "before training"}
COLOURS = {FAUNO: "#D55E00"}  # of Okabe and Ito, who chose them for the colour-blind
OTHER = "#56687A"
LOSSES = {
    "overflow": ("#0072B2", ""),
    "deadline": ("#E69F00", "//"),
    "client": ("#009E73", ".."),
    "failure": ("#CC79A7", "xx"),
}
# Metrics of the replies that are plotted: name, scale and label.
PANELS = (
    ("finished-of-ended", 100, "finished of the ended tasks, %"),
    ("response", 1, "response of finished tasks, s"),
    ("return", 1, "return per episode"),
    ("reward", 1, "reward per decision"),
)
Row = Mapping[str, Any]


def title(policy: str) -> str:
    """Return the name of a policy in tables and figures."""
    return OWN_TITLES.get(policy) or TITLES.get(policy, policy)


def format_table(rows: Sequence[Row], rho: float, worlds: int) -> str:
    """Format the comparison as text.

    Parameters
    ----------
    rows : sequence of dict
        From :func:`sim_env.evaluation.summarise`.
    rho : float
        Offered load.
    worlds : int
        Worlds behind each number.
    """
    kinds = _losses(rows)
    head = ("policy", "finished %", "response s", "p95 s", "lost %:", *kinds)
    lines = [head]
    for row in rows:
        finished, response = row["finished_ratio"], row["response_mean"]
        lost = row["lost"]
        lines.append(
            (
                title(row["policy"]),
                plus_minus(finished, 100),
                plus_minus(response),
                "-" if row["response_p95"] is None else f"{row['response_p95']:.1f}",
                f"{100 * sum(lost.values()):.2f}",
                *(f"{100 * lost[kind]:.2f}" for kind in kinds),
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    rule = "-" * max(map(len, text))
    created = rows[0]["created"]
    foot = (
        f"offered load rho = {rho:.3f}; {worlds} world{'s' if worlds > 1 else ''} with the same "
        f"arrivals for every policy, "
        f"{created:,} tasks in all;\n"
        f"± is half of the 95 % interval; response of finished tasks only"
    )
    return "\n".join([text[0], rule, *text[1:], rule, foot, *_differences(rows)])


def format_rows(rows: Sequence[Row], rho: float | None, worlds: int) -> str:
    """Format the table of a run: :func:`format_table`, or returns where there is no load."""
    if rho is not None:
        return format_table(rows, rho, worlds)
    width = max(len(row["policy"]) for row in rows) + 2
    lines = [f"{'policy':<{width}}{'return per episode':>20}{'steps':>18}{'episodes':>10}"]
    lines += [
        f"{title(row['policy']):<{width}}{plus_minus(row['return']):>20}"
        f"{plus_minus(row['length']):>18}{row['episodes']:>10}"
        for row in rows
    ]
    lines += [f"± is half of the 95 % interval over {worlds} starts, the same for every policy"]
    return "\n".join(lines)


def plus_minus(interval: Mapping[str, float | None], scale: float = 1.0) -> str:
    """Format mean and half of the interval; a dash for an undefined number (null in JSON)."""
    mean, high = interval["mean"], interval["high"]
    if mean is None or not np.isfinite(mean):
        return "-"
    if high is None or not np.isfinite(high):
        return f"{scale * mean:.2f} ± -"
    return f"{scale * mean:.2f} ± {scale * (high - mean):.2f}"


def is_number(value: Any) -> bool:
    """Return whether a value of a JSON file is a finite number."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and bool(np.isfinite(value))


def to_csv(rows: Sequence[Row]) -> str:
    """Format rows as CSV with a header.

    Parameters
    ----------
    rows : sequence of dict
        At least one. A mapping in a row becomes columns with dotted names, such as
        ``finished_ratio.mean``; lists are left out. A number that is not finite becomes an empty
        cell.
    """
    flat = [_flat(row) for row in rows]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return file.getvalue()


def tables(rows: Sequence[Row]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Split the comparison into two flat tables: of policies, and of paired differences.

    Parameters
    ----------
    rows : sequence of dict
        From :func:`sim_env.evaluation.summarise`.

    Returns
    -------
    policies : list of dict
        The rows without the differences.
    differences : list of dict
        Of each pair once, with the sign of :func:`format_table`: ``policy``, ``other``, ``measure``
        (``finished_ratio`` or ``response_mean``), ``policy_minus_other`` (mean over worlds),
        ``low`` and ``high``.
    """
    policies = [{key: value for key, value in row.items() if key != "minus"} for row in rows]
    differences = [
        {
            "policy": row["policy"],
            "other": other,
            "measure": measure,
            "policy_minus_other": found["mean"],
            "low": found["low"],
            "high": found["high"],
        }
        for row, other, measures in _pairs(rows)
        for measure, found in measures.items()
    ]
    return policies, differences


def _flat(row: Row, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            undefined = isinstance(value, float) and not np.isfinite(value)
            flat[prefix + key] = "" if undefined else value
    return flat


def _pairs(rows: Sequence[Row]) -> Iterator[tuple[Row, str, Mapping[str, Any]]]:
    """Yield a row, another policy and the row's differences to it, each pair once.

    FAuNO - any other policy; of two others, the later one in the table - the earlier one.
    """
    place = {row["policy"]: number for number, row in enumerate(rows)}
    for number, row in enumerate(rows):
        for other, measures in row["minus"].items():
            if row["policy"] == FAUNO or (other != FAUNO and place[other] < number):
                yield row, other, measures


def _differences(rows: Sequence[Row]) -> list[str]:
    """Format paired differences: FAuNO - baselines, or the other policies - the first one."""
    ours = any(row["policy"] == FAUNO for row in rows)
    lines = []
    for row, other, minus in _pairs(rows):
        finished, response = minus["finished_ratio"], minus["response_mean"]
        shown = row["policy"] == FAUNO if ours else other == rows[0]["policy"]
        if not shown or not all(map(is_number, (*finished.values(), *response.values()))):
            continue
        lines.append(
            f"{title(row['policy'])} - {title(other)}: finished "
            f"{100 * finished['mean']:+.2f} [{100 * finished['low']:+.2f}, "
            f"{100 * finished['high']:+.2f}] points, response {response['mean']:+.2f} "
            f"[{response['low']:+.2f}, {response['high']:+.2f}] s"
        )
    head = "differences, the first policy - the second, paired by world, with 95 % intervals:"
    return [head, *lines] if lines else []


def _losses(rows: Sequence[Row]) -> list[str]:
    """Return the kinds of losses to show: failures only if there are any."""
    return [kind for kind in LOSSES if kind != "failure" or any(row["lost"][kind] for row in rows)]


def plot_comparison(rows: Sequence[Row], rho: float, path: Path) -> None:
    """Plot finished ratio, response and losses of every policy, in the order of the table.

    An unbounded interval (of a single world) is left out, as the title states.
    """
    order = list(rows)[::-1]
    figure, axes = plt.subplots(1, 3, figsize=(11, 0.5 * len(rows) + 2.2), sharey=True)
    bounded = [
        _plot_intervals(axis, order, key, scale, label)
        for axis, key, scale, label in (
            (axes[0], "finished_ratio", 100, "finished tasks, %"),
            (axes[1], "response_mean", 1, "response of finished tasks, s"),
        )
    ]
    place = np.arange(len(order))
    p95 = [row["response_p95"] for row in order]
    axes[1].plot(p95, place, "|", color="black", markersize=12, label="95th percentile")
    axes[1].set_xlim(left=0)
    _plot_losses(axes[2], order)
    for axis in axes[1:]:
        axis.legend(
            loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=3, fontsize=8, frameon=False
        )
    axes[0].set_yticks(place, [title(row["policy"]) for row in order])
    axes[0].set_ylim(-0.6, len(order) - 0.3)
    what = "95 % intervals" if all(bounded) else "one world, hence no intervals"
    figure.suptitle(f"Joint evaluation in one shared world, offered load {rho:.2f}, {what}")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def plot_rows(rows: Sequence[Row], rho: float | None, path: Path) -> None:
    """Plot the table of a run: :func:`plot_comparison`, or returns where there is no load."""
    if rho is not None:
        plot_comparison(rows, rho, path)
        return
    figure, axis = plt.subplots(figsize=(7, 0.5 * len(rows) + 1.5))
    order = list(rows)[::-1]
    _plot_intervals(axis, order, "return", 1, "return per episode")
    axis.set_yticks(np.arange(len(order)), [title(row["policy"]) for row in order])
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _plot_intervals(axis: Axes, rows: Sequence[Row], key: str, scale: float, label: str) -> bool:
    """Plot means with their intervals; return whether all intervals are bounded."""
    bounded = True
    for y, row in enumerate(rows):
        mean, high = (scale * row[key][end] for end in ("mean", "high"))
        bounded &= not np.isinf(high)
        axis.errorbar(
            mean,
            y,
            xerr=high - mean if np.isfinite(high) else None,
            fmt="o",
            color=COLOURS.get(row["policy"], OTHER),
            capsize=3,
            markersize=6,
        )
        if np.isfinite(mean):
            axis.annotate(
                f"{mean:.1f}",
                (mean, y),
                (0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
    axis.set_xlabel(label)
    axis.grid(axis="x", alpha=0.3)
    axis.margins(x=0.15)
    return bounded


def _plot_losses(axis: Axes, rows: Sequence[Row]) -> None:
    """Plot lost tasks as stacked bars, by kind."""
    left = np.zeros(len(rows))
    for kind in _losses(rows):
        colour, hatch = LOSSES[kind]
        width = np.array([100 * row["lost"][kind] for row in rows])
        axis.barh(
            np.arange(len(rows)),
            width,
            left=left,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            label=kind,
        )
        left += width
    axis.set_xlabel("lost tasks, %")
    axis.set_xlim(0, max(1.05 * float(np.nanmax(left, initial=0.0)), 1.0))


def plot_learning(replies: Sequence[Row], path: Path) -> None:
    """Plot the training metrics of the nodes over the versions that they trained from.

    A metric is plotted over the replies that have it as a finite number; without any, nothing is.

    Parameters
    ----------
    replies : sequence of dict
        Reply events, with ``version`` and ``metrics``.
    path : Path
    """
    points = {
        panel: [
            (reply["version"], panel[1] * reply["metrics"][panel[0]])
            for reply in replies
            if is_number(reply["metrics"].get(panel[0]))
        ]
        for panel in PANELS
    }
    shown = {panel: sent for panel, sent in points.items() if sent}
    if not shown:
        return
    figure, grid = plt.subplots(1, len(shown), figsize=(11, 3.4), squeeze=False)
    axes = grid[0]
    for axis, ((_, _, label), sent) in zip(axes, shown.items(), strict=True):
        versions, values = np.array(sent).T
        steps = np.unique(versions)
        low, middle, high = (
            np.array([np.quantile(values[versions == v], q) for v in steps])
            for q in (0.1, 0.5, 0.9)
        )
        axis.fill_between(
            steps, low, high, color=COLOURS[FAUNO], alpha=0.2, label="10 to 90 % of the nodes"
        )
        axis.plot(steps, middle, color=COLOURS[FAUNO], label="median node")
        axis.set_xlabel("critic version trained from")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_title(label, fontsize=10)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8, loc="lower right")
    figure.suptitle("Training metrics reported by the nodes")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)

"""What a run shows: the table and the figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from sim_env.policies import TITLES

FAUNO = "fauno"
COLOURS = {FAUNO: "#D55E00"}  # Okabe and Ito: told apart by the colour-blind
OTHER = "#56687A"
Row = Mapping[str, Any]


def title(policy: str) -> str:
    """Name of a policy in the table."""
    return "FAuNO" if policy == FAUNO else TITLES[policy]


def format_table(rows: Sequence[Row], rho: float, worlds: int) -> str:
    """The comparison as text.

    Parameters
    ----------
    rows : sequence of dict
        From :func:`sim_env.evaluation.summarise`.
    rho : float
        Offered load.
    worlds : int
        Worlds behind each number.
    """
    head = (
        "policy",
        "finished %",
        "response s",
        "p95 s",
        "lost %:",
        "overflow",
        "deadline",
        "client",
    )
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
                f"{100 * lost['overflow']:.2f}",
                f"{100 * lost['deadline']:.2f}",
                f"{100 * lost['client']:.2f}",
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
        f"offered load rho = {rho:.3f}; {worlds} worlds with the same arrivals for every policy, "
        f"{created:,} tasks in all;\n"
        f"± is half of the 95 % interval; response of finished tasks only"
    )
    return "\n".join([text[0], rule, *text[1:], rule, foot, *_differences(rows)])


def plus_minus(interval: Mapping[str, float | None], scale: float = 1.0) -> str:
    """Mean and half of the interval; a dash for what is not defined (null in JSON)."""
    mean, high = (
        value if value is not None and np.isfinite(value) else None
        for value in (interval["mean"], interval["high"])
    )
    if mean is None:
        return "-"
    return f"{scale * mean:.2f} ± " + ("-" if high is None else f"{scale * (high - mean):.2f}")


def _differences(rows: Sequence[Row]) -> list[str]:
    """FAuNO against the baselines, world by world."""
    lines = []
    for row in rows:
        for other, minus in row["minus"].items() if row["policy"] == FAUNO else ():
            finished, response = minus["finished_ratio"], minus["response_mean"]
            if any(value is None for value in (*finished.values(), *response.values())):
                continue
            lines.append(
                f"FAuNO - {title(other)}: finished "
                f"{100 * finished['mean']:+.2f} [{100 * finished['low']:+.2f}, "
                f"{100 * finished['high']:+.2f}] points, response {response['mean']:+.2f} "
                f"[{response['low']:+.2f}, {response['high']:+.2f}] s"
            )
    return lines


def plot_comparison(rows: Sequence[Row], rho: float, path: Path) -> None:
    """Finished ratio, response and losses of every policy, in the order of the table."""
    order = list(rows)[::-1]
    names = [title(row["policy"]) for row in order]
    colours = [COLOURS.get(row["policy"], OTHER) for row in order]
    figure, axes = plt.subplots(1, 3, figsize=(11, 0.5 * len(rows) + 1.9), sharey=True)
    place = np.arange(len(order))
    for axis, key, scale, label in (
        (axes[0], "finished_ratio", 100, "finished tasks, %"),
        (axes[1], "response_mean", 1, "response of finished tasks, s"),
    ):
        mean = scale * np.array([row[key]["mean"] for row in order])
        half = scale * np.array([row[key]["high"] for row in order]) - mean
        for y, (m, h, colour) in enumerate(zip(mean, half, colours, strict=True)):
            axis.errorbar(m, y, xerr=h, fmt="o", color=colour, capsize=3, markersize=6)
            axis.annotate(
                f"{m:.1f}", (m, y), (0, 7), textcoords="offset points", ha="center", fontsize=8
            )
        axis.set_xlabel(label)
        axis.grid(axis="x", alpha=0.3)
        axis.margins(x=0.15)
    axes[1].plot(
        [row["response_p95"] for row in order],
        place,
        "|",
        color="black",
        markersize=12,
        label="p95",
    )
    axes[1].legend(loc="lower right", fontsize=8)
    left = np.zeros(len(order))
    for kind, colour, hatch in (
        ("overflow", "#0072B2", ""),
        ("deadline", "#E69F00", "//"),
        ("client", "#009E73", ".."),
    ):
        width = np.array([100 * row["lost"][kind] for row in order])
        axes[2].barh(
            place, width, left=left, color=colour, hatch=hatch, edgecolor="white", label=kind
        )
        left += width
    axes[2].set_xlabel("lost tasks, %")
    axes[2].legend(fontsize=8)
    axes[0].set_yticks(place, names)
    axes[0].set_ylim(-0.6, len(order) - 0.4)
    figure.suptitle(
        f"Joint evaluation in one shared world, offered load {rho:.2f} (95 % intervals)"
    )
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def plot_learning(replies: Sequence[Row], path: Path) -> None:
    """How the nodes' own worlds went while they trained.

    Parameters
    ----------
    replies : sequence of dict
        Reply events, with ``version`` and ``metrics``.
    path : Path
    """
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4))
    versions = np.array([reply["version"] for reply in replies])
    steps = np.unique(versions)
    for axis, key, scale, label in (
        (axes[0], "finished-of-ended", 100, "finished of the ended tasks, %"),
        (axes[1], "response", 1, "response of finished tasks, s"),
        (axes[2], "reward", 1, "reward per decision"),
    ):
        values = scale * np.array([reply["metrics"][key] for reply in replies])
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
    figure.suptitle("Training, each node in its own copy of the network")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)

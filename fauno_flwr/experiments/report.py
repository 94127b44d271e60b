"""The report of an experiment: summary, table, text and figures of its cells."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fauno_flwr.experiments import figures
from fauno_flwr.experiments.design import Experiment
from fauno_flwr.experiments.load_table import load_rows, load_table
from fauno_flwr.experiments.paper_table import READING, paper_tables
from fauno_flwr.experiments.paper_text import write_paper_tables
from fauno_flwr.experiments.runner import rounded
from fauno_flwr.experiments.summary import (
    FINISHED,
    RESPONSE,
    Row,
    Summary,
    deciding,
    differences,
    overall,
    summarise,
    table,
)
from fauno_flwr.experiments.targets import times_to_target
from fauno_flwr.experiments.traffic import traffic_lines, traffic_rows
from fauno_flwr.experiments.verdicts import in_words, not_better_than
from fauno_flwr.results.directory import SCHEMA_VERSION, write_atomically
from fauno_flwr.results.report import plus_minus, to_csv
from fauno_flwr.results.statistics import Estimate

ONE_SEED = (
    "**One training seed: the intervals are over worlds only, and say nothing about what another "
    "training would give.**"
)


def write(
    experiment: Experiment, quick: bool, cells: Sequence[Mapping[str, Any]], out: Path
) -> str:
    """Write the report; return its text.

    Parameters
    ----------
    experiment : Experiment
    quick : bool
    cells : sequence of dict
        From :func:`fauno_flwr.experiments.cells.run_cell`.
    out : Path
        Gets ``summary.json``, ``table.csv``, ``results.md`` and ``figures/``; ``paper.md`` and
        ``paper.tex`` if the conditions are a grid.
    """
    titles = {condition.name: condition.title for condition in experiment.design(quick).conditions}
    summary = summarise(experiment, titles, cells)
    rows, minus, total = table(summary), differences(summary), overall(summary)
    targets = times_to_target(summary) if experiment.target else []
    traffic = traffic_rows(summary) if experiment.traffic else []
    load = load_rows(summary) if experiment.load else []
    spent = {clock: sum(cell["seconds"][clock] for cell in cells) for clock in ("wall", "cpu")}
    seeds = max(cell["seed"] or 0 for cell in cells)
    facts = {
        "schema_version": SCHEMA_VERSION,
        "experiment": experiment.name,
        "question": experiment.question,
        "titles": {
            "conditions": summary.titles,
            "policies": {row["policy"]: summary.title(row["policy"]) for row in rows},
        },
        "quick": quick,
        "seeds": seeds,
        "cells": len(cells),
        "seconds_of_all_cells": spent,
        "table": rows,
        "differences": minus,
        "overall": total,
        "times_to_target": targets,
        "traffic": traffic,
        **({"load": load} if load else {}),
    }
    write_atomically(out / "summary.json", json.dumps(rounded(facts), indent=1) + "\n")
    merged = [_with_differences(row, summary, minus) for row in rows]
    write_atomically(out / "table.csv", to_csv(merged))
    _plot(summary, minus, targets, out / "figures")
    heading = f"{experiment.name}{', quick' if quick else ''}"
    if papers := paper_tables(summary, rows):
        write_paper_tables(papers, heading, [READING, _scope(rows, seeds)], out)
    further = experiment.further(summary, out / "figures") if experiment.further else []
    lines = [
        f"# {heading}",
        "",
        experiment.question,
        "",
        f"{len(cells)} cells, {seeds} training seeds, {spent['cpu'] / 60:.0f} CPU minutes. "
        f"Evaluation on worlds of seeds never used in training or tuning.",
        *([] if seeds > 1 else ["", ONE_SEED]),
        *_table_lines(summary, rows),
        *_overall_lines(summary, total),
        *_verdict_lines(summary, minus),
        *_target_lines(summary, targets),
        *traffic_lines(summary, traffic),
        *further,
        *load_table(summary, load),
        "",
    ]
    text = "\n".join(lines)
    write_atomically(out / "results.md", text)
    return text


def _scope(rows: Sequence[Row], seeds: int) -> str:
    """Return how many trainings and worlds the numbers of the paper's tables come from."""
    if seeds == 1:
        return ONE_SEED.strip("*")
    fewest, most = (bound(row["worlds"] for row in rows) for bound in (min, max))
    return f"{seeds} training seeds, {most if fewest == most else f'{fewest} to {most}'} worlds."


def _plot(summary: Summary, minus: list[Row], targets: list[Row], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    figures.plot_curves(summary, folder / "curves.png")
    figures.plot_differences(summary, minus, folder / "differences.png")
    figures.plot_map(summary, folder / "map.png")
    if targets:
        figures.plot_targets(summary, targets, folder / "targets.png")


def _with_differences(row: Row, summary: Summary, minus: Sequence[Row]) -> Row:
    """Return a row of the table with the differences of the first method to its policy."""
    mine = {
        d["measure"]: {key: d[key] for key in ("value", "low", "high", "verdict")}
        for d in minus
        if d["condition"] == row["condition"] and d["rival"] == row["policy"]
    }
    empty = dict.fromkeys(("value", "low", "high", "verdict"), "")
    ahead = {
        f"first_method_ahead_{measure}": mine.get(measure, empty)
        for measure in (FINISHED, RESPONSE)
    }
    return {**row, "decides": deciding(summary, row["condition"]), **ahead}


def _table_lines(summary: Summary, rows: Sequence[Row]) -> list[str]:
    lines = []
    for condition, title in summary.titles.items():
        lines += [
            "",
            f"## {title}, offered load {summary.rho[condition]:.2f}",
            "",
            "| policy | finished % | IQM | response s | IQM | lost % |",
            "|---|---|---|---|---|---|",
        ]
        for row in rows:
            if row["condition"] != condition:
                continue
            numbers = [
                text
                for measure, scale in ((FINISHED, 100), (RESPONSE, 1))
                for text in (
                    plus_minus(row[measure]["mean"] | _mean(row[measure]), scale),
                    f"{scale * row[measure]['iqm']['value']:.2f}",
                )
            ]
            lost = 100 * sum(row["lost"].values())
            lines.append(f"| {summary.title(row['policy'])} | {' | '.join(numbers)} | {lost:.2f} |")
    return lines


def _mean(measure: Mapping[str, Any]) -> dict[str, float]:
    return {"mean": measure["mean"]["value"]}


def _overall_lines(summary: Summary, rows: Sequence[Row]) -> list[str]:
    lines = [
        "",
        f"## {_ours(summary)} over all conditions",
        "",
        "Mean difference with bootstrap interval, and the probability that a run is better.",
        "",
        "| than | finished | probability | response | probability |",
        "|---|---|---|---|---|",
    ]
    for rival in dict.fromkeys(row["rival"] for row in rows):
        parts = []
        for measure in (FINISHED, RESPONSE):
            row = next(r for r in rows if r["rival"] == rival and r["measure"] == measure)
            chance = row["probability_of_improvement"]
            parts += [
                in_words(measure, Estimate(**row["mean"])),
                f"{chance['value']:.2f} [{chance['low']:.2f}, {chance['high']:.2f}]",
            ]
        lines.append(f"| {summary.title(rival)} | {' | '.join(parts)} |")
    return lines


def _verdict_lines(summary: Summary, minus: Sequence[Row]) -> list[str]:
    """Count verdicts by rival, and list the conditions in which the first method does not win."""
    lines = [
        "",
        "## Verdicts",
        "",
        "By the finished ratio where LeastQueue loses more than 1 % of the tasks, else by the "
        "response; 95 % interval over training seeds and worlds. A tie is an interval with 0.",
        "",
        "| than | better | tie | worse |",
        "|---|---|---|---|",
    ]
    rivals = list(dict.fromkeys(row["rival"] for row in minus))
    for rival in rivals:
        found = [row["verdict"] for row in minus if row["rival"] == rival and row["decides"]]
        counts = [str(found.count(verdict)) for verdict in ("better", "tie", "worse")]
        lines.append(f"| {summary.title(rival)} | {' | '.join(counts)} |")
    for rival in filter(summary.pairs, summary.experiment.compared):
        cases = not_better_than(summary, rival)
        lines += ["", f"### Where {_ours(summary)} does not beat {summary.title(rival)}", ""]
        lines += [f"- {case}" for case in cases] or ["Nowhere."]
    return lines


def _target_lines(summary: Summary, rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    lines = [
        "",
        "## Virtual time to target",
        "",
        "Until half of LeastQueue's losses are avoided, for good, while the network learns; "
        "of each seed, - if never.",
        "",
        "| condition | method | target % | seconds | mean staleness | end of training s |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        unknown = [None] * len(row["seconds"])
        times = ", ".join(
            "-" if t is None else f"{t:.0f}" + (f" ({v} versions)" if v is not None else "")
            for t, v in zip(row["seconds"], row.get("versions", unknown), strict=True)
        )
        lines.append(
            f"| {summary.titles[row['condition']]} | {summary.title(row['method'])} "
            f"| {100 * row['target']:.2f} | {times} | {row['staleness']:.2f} "
            f"| {np.mean(row['end']):.0f} |"
        )
    return lines


def _ours(summary: Summary) -> str:
    return summary.title(next(iter(summary.experiment.methods)))

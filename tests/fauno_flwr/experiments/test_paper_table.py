"""Tables in the paper's shape: numbers, what is bold, Markdown and LaTeX."""

import json
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fauno_flwr.cli.main import app
from fauno_flwr.experiments.design import Design, Experiment
from fauno_flwr.experiments.methods import Method
from fauno_flwr.experiments.paper_table import Number, PaperTable, paper_tables, places
from fauno_flwr.experiments.paper_text import COMMANDS, escape, to_latex, to_markdown
from fauno_flwr.experiments.summary import Sample, Summary, table

METHODS = {"fauno": Method("50 % & more_λ"), "rival": Method("rival | b")}
EXPERIMENT = Experiment("made", "?", lambda quick: Design([], [], 1), METHODS)
TITLES = {f"{net}{rate}": f"{net}, λ = {rate}/s" for net in ("one", "two_b") for rate in (1, 2)}


def sample(finished: float, response: float, seeds: int = 3) -> Sample:
    """Return a sample around two numbers; worlds are easier or harder for all policies alike."""
    easy = np.array([-0.05, 0.0, 0.02, 0.03])
    noise = np.random.default_rng(int(1000 * finished)).normal(0, 0.002, (3, 4))
    matrix = (easy + noise)[:seeds]
    return Sample(finished + matrix, response + 100 * matrix, {})


def summary(**policies: Sample) -> Summary:
    """Return the same policies in all conditions, but for `rival`, which was not in the last."""
    samples = {name: dict(policies) for name in TITLES}
    samples["two_b2"].pop("rival", None)
    return Summary(EXPERIMENT, TITLES, samples, dict.fromkeys(TITLES, 0.5), {}, {})


def bold(made: PaperTable, load: str = "λ = 1/s") -> set[str]:
    return {policy for policy, numbers in made.blocks[load].items() if numbers[0].best}


def test_a_grid_is_told_by_its_titles() -> None:
    assert places(TITLES)["two_b2"] == ("two_b", "λ = 2/s")
    assert places({"a": "one, 1/s", "b": "one, 2/s"})
    for titles in (
        {"a": "one, 1/s"},
        {"a": "one, 1/s", "b": "two, 2/s"},
        {"a": "one, 1/s", "b": "one, 1/s"},
        {"a": "one, 1/s", "b": "ample data"},
        {"a": "ample", "b": "scarce"},
    ):
        assert places(titles) == {}


def test_numbers_are_those_of_the_report_at_their_place() -> None:
    made = summary(fauno=sample(0.9, 20.0), rival=sample(0.8, 30.0), lq=sample(0.7, 40.0, 1))
    rows = table(made)
    finished, response = paper_tables(made, rows)
    assert finished.columns == ("one", "two_b")
    assert list(finished.blocks) == ["λ = 1/s", "λ = 2/s"]
    assert list(response.blocks["λ = 1/s"]) == ["50 % & more_λ", "rival | b", "LeastQueue"]
    row = next(row for row in rows if (row["condition"], row["policy"]) == ("one1", "lq"))
    for one, measure, scale in ((finished, "finished_ratio", 100), (response, "response_mean", 1)):
        number = one.blocks["λ = 1/s"]["LeastQueue"][0]
        mean = row[measure]["mean"]
        assert float(number.value) == pytest.approx(scale * mean["value"], abs=0.005)
        half = scale * (mean["high"] - mean["value"])
        assert float(number.half) == pytest.approx(half, abs=0.005)
    assert finished.blocks["λ = 2/s"]["rival | b"][1] is None
    assert paper_tables(made, rows, "ticks", 0)[1].blocks["λ = 1/s"]["LeastQueue"][0].value == "40"


def test_the_best_and_its_ties_are_bold() -> None:
    """Paired: the intervals of the means overlap in all cases."""
    made = summary(fauno=sample(0.9, 20.0), rival=sample(0.8995, 20.05), lq=sample(0.88, 21.9, 1))
    finished, response = paper_tables(made, table(made))
    assert bold(finished) == bold(response) == {"50 % & more_λ", "rival | b"}


def test_a_heuristic_that_is_best_ties_with_all_seeds_of_a_method_or_not() -> None:
    """Mutation: comparing it with the first seed alone."""
    heuristic = sample(0.9, 20.0, 1)
    noise = np.random.default_rng(1).normal(0, 0.002, (3, 4))
    spread = np.array([[0.0], [-0.02], [-0.06]])  # the first training is as good
    method = Sample(heuristic.finished_ratio + spread, heuristic.response_mean - 100 * spread, {})
    steady = Sample(heuristic.finished_ratio - 0.02 + noise, method.response_mean, {})
    made = summary(fauno=method, rival=steady, lq=heuristic)
    assert bold(paper_tables(made, table(made))[0]) == {"50 % & more_λ", "LeastQueue"}


def test_a_policy_that_loses_the_long_tasks_is_not_the_fastest() -> None:
    made = summary(fauno=sample(0.9, 20.0), local=sample(0.6, 2.0, 1), sed=sample(0.895, 30.0, 1))
    _, response = paper_tables(made, table(made))
    assert bold(response) == {"50 % & more_λ"}


def test_the_clairvoyant_bound_is_shown_and_not_a_rival() -> None:
    made = summary(fauno=sample(0.9, 20.0), clairvoyant=sample(0.99, 10.0, 1))
    experiment = replace(EXPERIMENT, heuristics=("clairvoyant",))
    made = replace(made, experiment=experiment)
    for one in paper_tables(made, table(made)):
        assert list(one.blocks["λ = 1/s"])[-1].lower() == "clairvoyant"
        assert bold(one) == {"50 % & more_λ"}


def test_a_response_that_is_undefined_is_missing() -> None:
    undefined = Sample(np.zeros((1, 4)), np.full((1, 4), np.nan), {})
    made = summary(fauno=sample(0.9, 20.0), lq=undefined)
    finished, response = paper_tables(made, table(made))
    assert finished.blocks["λ = 1/s"]["LeastQueue"][0].value == "0.00"
    assert response.blocks["λ = 1/s"]["LeastQueue"][0] is None


def test_markdown_has_a_line_per_load_and_policy() -> None:
    numbers = [Number("1.00", "0.10", best=True), None]
    made = PaperTable("n", "Finished tasks, %", ("a|b", "c"), {"λ = 1/s": {"us": numbers}})
    made = made.with_block("published", {"them": [Number("97.4"), Number("88.2")]})
    assert to_markdown([made], "made", ["One.", "Two."]).splitlines() == [
        "# made",
        "",
        "## Finished tasks, %",
        "",
        r"| load | policy | a\|b | c |",
        "|---|---|---|---|",
        "| λ = 1/s | us | **1.00** ± 0.10 | - |",
        "| published | them | 97.4 | 88.2 |",
        "",
        "One.",
        "",
        "Two.",
    ]


def test_latex_is_escaped() -> None:
    assert escape(r"50 %_&\{λ}") == r"50 \%\_\&\textbackslash{}\{$\lambda$\}"
    made = summary(fauno=sample(0.9, 20.0), rival=sample(0.8, 30.0))
    text = to_latex(paper_tables(made, table(made)), ["100 % of it"])
    assert r"50 \% \& more\_$\lambda$ & \textbf{" in text
    assert r"policy & one & two\_b \\" in text
    assert text.count(r"100 \% of it") == 1
    assert text.isascii()


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs LaTeX")
@pytest.mark.parametrize("columns", [2, 7])
def test_latex_compiles_within_the_text(columns: int, tmp_path: Path) -> None:
    numbers = [Number("100.00", "10.00", best=True)] * columns
    blocks = {"λ = 1/s": {"FAuNO, the paper's critic": numbers, "all " + "".join(COMMANDS): []}}
    made = PaperTable("a-b", "100 %", tuple("random10" for _ in range(columns)), blocks)
    (tmp_path / "paper.tex").write_text(to_latex([made], ["".join(COMMANDS)]))
    (tmp_path / "main.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs}\begin{document}"
        r"\input{paper}Table~\ref{tab:a-b}\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60)
    log = (tmp_path / "main.log").read_text(errors="replace")
    assert done.returncode == 0, log[-2000:]
    assert "Missing character" not in log
    assert "Overfull" not in log


def test_tables_only_writes_them_the_same_each_time(tmp_path: Path) -> None:
    stored = Path(__file__).parents[3] / "docs" / "results" / "baseline-quick" / "cells.tar.gz"
    with tarfile.open(stored) as archive:
        archive.extractall(tmp_path, filter="data")
    words = ["experiment", "baseline", "--quick", "--tables-only", "--no-report", "--out"]
    made = []
    for _ in range(2):
        assert CliRunner().invoke(app, [*words, str(tmp_path)]).exit_code == 0
        made.append([(tmp_path / f"paper.{end}").read_bytes() for end in ("md", "tex")])
    assert made[0] == made[1]
    first = json.loads((tmp_path / "summary.json").read_text())["table"][0]
    value = 100 * first["finished_ratio"]["mean"]["value"]
    assert f"{value:.2f}" in made[0][0].decode()

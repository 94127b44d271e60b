"""Tables in the paper's shape as Markdown and LaTeX."""

import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from fauno_flwr.experiments.paper_table import Number, Numbers, PaperTable
from fauno_flwr.results.directory import write_atomically

MISSING = "-"
WIDE = 4  # more columns need smaller print
# LaTeX for the characters that have a meaning in it, or are in none of its default fonts.
COMMANDS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: rf"\{character}" for character in "{}$&#%_"},
    # In plain LaTeX these are not characters of a text.
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    **{
        unicodedata.lookup(name): command
        for name, command in (
            ("PLUS-MINUS SIGN", r"$\pm$"),
            ("MULTIPLICATION SIGN", r"$\times$"),
            ("LESS-THAN OR EQUAL TO", r"$\le$"),
            ("GREATER-THAN OR EQUAL TO", r"$\ge$"),
            ("DAGGER", r"$\dagger$"),
            ("GREEK SMALL LETTER LAMDA", r"$\lambda$"),
            ("GREEK SMALL LETTER EPSILON", r"$\varepsilon$"),
        )
    },
    **{
        unicodedata.lookup(f"GREEK SMALL LETTER {name.upper()}"): rf"$\{name}$"
        for name in ("alpha", "beta", "gamma", "delta", "mu", "rho", "sigma", "tau")
    },
}


def write_paper_tables(
    tables: Sequence[PaperTable], heading: str, notes: Sequence[str], out: Path
) -> None:
    """Write ``paper.md`` and ``paper.tex``.

    Parameters
    ----------
    tables : sequence of PaperTable
    heading : str
        Of the Markdown.
    notes : sequence of str
        Paragraphs, below the tables in Markdown and below the last one in LaTeX.
    out : Path
    """
    write_atomically(out / "paper.md", to_markdown(tables, heading, notes))
    write_atomically(out / "paper.tex", to_latex(tables, notes))


def to_markdown(tables: Sequence[PaperTable], heading: str, notes: Sequence[str]) -> str:
    """Format tables as Markdown."""
    lines = [f"# {heading}", ""]
    for table in tables:
        head = ["load", "policy", *(_escape_cell(column) for column in table.columns)]
        lines += [
            f"## {table.caption}",
            "",
            f"| {' | '.join(head)} |",
            "|" + "---|" * len(head),
            *(line for block, rows in table.blocks.items() for line in _block(block, rows)),
            "",
        ]
    return "\n".join([*lines, "\n\n".join(notes), ""])


def _block(title: str, rows: Numbers) -> Iterator[str]:
    for policy, numbers in rows.items():
        cells = [title, policy]
        yield f"| {' | '.join([*map(_escape_cell, cells), *map(_markdown, numbers)])} |"


def _escape_cell(text: str) -> str:
    return text.replace("|", r"\|")


def _markdown(number: Number | None) -> str:
    if number is None:
        return MISSING
    value = f"**{number.value}**" if number.best else number.value
    return f"{value} ± {number.half}" if number.half else value


def to_latex(tables: Sequence[PaperTable], notes: Sequence[str]) -> str:
    r"""Format tables as LaTeX to be ``\input``, which needs the package booktabs.

    All text is escaped, and labels are ``tab:NAME``.
    """
    lines = [r"% Needs \usepackage{booktabs}."]
    for table in tables:
        size, space = (r"\scriptsize", "2pt") if len(table.columns) > WIDE else (r"\small", "5pt")
        width = 1 + len(table.columns)
        lines += [
            "",
            r"\begin{table}[htbp]",
            r"  \centering",
            rf"  \caption{{{escape(table.caption)}}}",
            rf"  \label{{tab:{table.name}}}",
            rf"  {size}\setlength{{\tabcolsep}}{{{space}}}",
            # In the middle of the page, should it be wider than the text.
            r"  \makebox[\linewidth]{%",
            rf"  \begin{{tabular}}{{l{'r' * len(table.columns)}}}",
            r"    \toprule",
            f"    policy & {' & '.join(map(escape, table.columns))} " + r"\\",
        ]
        for title, rows in table.blocks.items():
            lines += [r"    \midrule", rf"    \multicolumn{{{width}}}{{l}}{{{escape(title)}}} \\"]
            for policy, numbers in rows.items():
                cells = [escape(policy), *map(_latex, numbers)]
                lines.append(rf"    \quad {' & '.join(cells)} \\")
        lines += [r"    \bottomrule", r"  \end{tabular}}"]
        if table is tables[-1]:
            lines += [
                rf"  \par\medskip\parbox{{\linewidth}}{{\scriptsize {escape(note)}}}"
                for note in notes
            ]
        lines.append(r"\end{table}")
    return "\n".join([*lines, ""])


def escape(text: str) -> str:
    """Escape text for LaTeX."""
    return "".join(COMMANDS.get(character, character) for character in text)


def _latex(number: Number | None) -> str:
    if number is None:
        return MISSING
    value = rf"\textbf{{{number.value}}}" if number.best else number.value
    return rf"{value}{{\tiny$\pm${number.half}}}" if number.half else value

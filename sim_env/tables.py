"""CSV files with named columns, in any order; errors name file, line, column and value."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sim_env.errors import require_choice, require_number, require_path, shown

DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Parameters
    ----------
    where : str
        File and line, for error messages.
    cells : mapping of str to str
        Text of each column, stripped; columns that are absent or empty are left out.
    """

    where: str
    cells: Mapping[str, str]

    def text(self, column: str) -> str:
        """Return the text of a cell; raise ``ValueError`` if it is empty."""
        if column not in self.cells:
            raise ValueError(f"{self.where}: column {column} is empty: must have a value")
        return self.cells[column]

    def number(
        self,
        column: str,
        *,
        above: float | None = None,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> float:
        """Return the number of a cell; raise ``ValueError`` unless it is within the bounds."""
        value = as_number(self.text(column))
        require_number(
            f"{self.where}: column {column}", value, above=above, at_least=at_least, at_most=at_most
        )
        return float(value)


def as_number(text: str) -> float | str:
    """Return a text as a number if it is one."""
    try:
        return float(text)
    except ValueError:
        return text


@dataclass(frozen=True)
class Table:
    """A CSV file that has been opened and split.

    Parameters
    ----------
    name : str
        What the file is and its path, for error messages.
    columns : list of str
        Names in the first line.
    lines : list of (int, list of str)
        Number and cells of each further line that is not blank.
    """

    name: str
    columns: list[str]
    lines: list[tuple[int, list[str]]]

    def rows(self) -> Iterator[Row]:
        """Yield the rows; raise ``ValueError`` for one with more or fewer cells than columns."""
        for number, cells in self.lines:
            where = f"{self.name}, line {number}"
            if len(cells) != len(self.columns):
                raise ValueError(
                    f"{where} has {len(cells)} cells: must have {len(self.columns)}, one for each "
                    f"column ({', '.join(self.columns)})"
                )
            pairs = zip(self.columns, cells, strict=True)
            yield Row(where, {column: cell for column, cell in pairs if cell})

    def require_columns(self, required: Sequence[str], optional: Sequence[str]) -> None:
        """Raise ``ValueError`` unless the columns are the required ones and some optional ones."""
        known = [*required, *optional]
        for number, column in enumerate(self.columns):
            require_choice(f"{self.name}: column {number + 1}", column, known)
            if column in self.columns[:number]:
                raise ValueError(f"{self.name}: column {column} is there twice: must be there once")
        for column in required:
            if column not in self.columns:
                raise ValueError(
                    f"{self.name} has no column {column}: must have {' and '.join(required)} (its "
                    f"columns are {', '.join(self.columns)})"
                )


def read_table(what: str, path: str | Path) -> Table:
    """Read a CSV file in UTF-8, delimited by commas, semicolons or tabs, with names in line 1.

    Parameters
    ----------
    what : str
        What the file is, as in ``jobs file``.
    path : str or Path

    Raises
    ------
    ValueError
        If it cannot be read, or is empty.
    """
    name = f"{what} {str(path)!r}"
    try:
        text = require_path(f"path of the {what}", path).read_text("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{name} cannot be read ({error.strerror}): must be a CSV file") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} is not text in UTF-8 ({error.reason}): must be a CSV file"
        ) from error
    lines = split_cells(name, text)
    if not lines:
        raise ValueError(f"{name} is empty: must have a first line with the names of the columns")
    for number, column in enumerate(lines[0][1], 1):
        if not column:
            raise ValueError(f"{name}: column {number} is {shown(column)}: must have a name")
    return Table(name, lines[0][1], lines[1:])


def split_cells(name: str, text: str) -> list[tuple[int, list[str]]]:
    """Split a text into the stripped cells of each line; skip blank lines, keep their numbers."""
    head = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(DELIMITERS, key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines = []
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                lines.append((reader.line_num, stripped))
    except csv.Error as error:
        raise ValueError(
            f"{name}, line {reader.line_num}: {error}: must be a row of a CSV file"
        ) from error
    return lines

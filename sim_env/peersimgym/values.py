"""Typed values of the original simulator's configuration dictionaries.

The dictionaries hold only text: ``"4,8"`` for the cores of two layers, ``"0,0;10,5"`` for two
places. Numbers, booleans and arrays of JSON are accepted as well.
"""

import ast
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sim_env.errors import require_number

WRONG_FILE = "must be a configuration dictionary of PeersimGym in JSON"


def read_dictionary(path: str | Path) -> "Values":
    """Read a configuration dictionary from a file.

    Parameters
    ----------
    path : str or Path
        JSON, or a printed Python dictionary.

    Warns
    -----
    UserWarning
        If the file is a printed Python dictionary, not JSON.

    Raises
    ------
    ValueError
        For a file that cannot be read, or is neither of both.
    """
    where = f"configuration {str(path)!r}"
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ValueError(f"{where} cannot be read ({reason}): {WRONG_FILE}") from error
    try:
        content = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        content = _printed_dictionary(text)
        if content is None:
            raise ValueError(f"{where} is not JSON ({error}): {WRONG_FILE}") from error
        warnings.warn(f"{where} is a printed Python dictionary, not JSON: accepted", stacklevel=2)
    if not isinstance(content, Mapping):
        raise ValueError(f"{where} holds a {type(content).__name__}: {WRONG_FILE}")
    return Values({str(key): value for key, value in content.items()}, where)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _printed_dictionary(text: str) -> dict[Any, Any] | None:
    try:
        content = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


class Values:
    """Typed access to the values of a configuration dictionary.

    Parameters
    ----------
    content : mapping of str to object
    where : str
        Start of error messages.
    """

    def __init__(self, content: Mapping[str, Any], where: str) -> None:
        self.content, self.where = content, where

    def __contains__(self, key: str) -> bool:
        return key in self.content

    def error(self, key: str, allowed: str) -> ValueError:
        """Return the error for a value that is not allowed."""
        value = self.content[key]
        return ValueError(f"{self.where}: {key} is {value!r:.60}: must be {allowed}")

    def raw(self, key: str) -> Any:
        """Return the value as written; raise ``ValueError`` if the key is missing."""
        if key not in self.content:
            raise ValueError(f"{self.where} has no key {key!r}: {WRONG_FILE}, with that key")
        return self.content[key]

    def text(self, key: str, default: str) -> str:
        """Return a text without surrounding spaces."""
        return str(self.content.get(key, default)).strip()

    def flag(self, key: str, default: bool) -> bool:
        """Return a boolean, written as true or false in any case, 1 or 0."""
        known = {"true": True, "1": True, "false": False, "0": False}
        text = self.text(key, str(default)).lower()
        if text not in known:
            raise self.error(key, "true or false")
        return known[text]

    def number(self, key: str, default: float | None = None, **bounds: float) -> float:
        """Return a finite number within the bounds of :func:`sim_env.errors.require_number`."""
        if key not in self.content and default is not None:
            return default
        values = self.numbers(key, **bounds)
        if len(values) != 1:
            raise self.error(key, f"one number, not {len(values)}")
        return values[0]

    def whole(self, key: str, default: int | None = None, **bounds: float) -> int:
        """Return a whole number."""
        value = self.number(key, default, **bounds)
        if value != int(value):
            raise self.error(key, "a whole number")
        return int(value)

    def numbers(self, key: str, **bounds: float) -> list[float]:
        """Return numbers separated by commas or semicolons, or of an array."""
        return self._numbers(key, self._items(self.raw(key), "[,;]"), bounds)

    def wholes(self, key: str, **bounds: float) -> list[int]:
        """Return whole numbers, written as for :meth:`numbers`."""
        values = self.numbers(key, **bounds)
        if any(value != int(value) for value in values):
            raise self.error(key, "whole numbers")
        return [int(value) for value in values]

    def rows(self, key: str) -> list[list[float]]:
        """Return rows separated by semicolons, of numbers separated by commas; or of arrays."""
        rows = self._items(self.raw(key), ";")
        return [self._numbers(key, self._items(row, ","), {}) for row in rows]

    def _items(self, value: Any, separator: str) -> list[Any]:
        if isinstance(value, list | tuple):
            return list(value)
        if not isinstance(value, str):
            return [value]
        items = [item.strip() for item in re.split(separator, value.strip())]
        return items[:-1] if items[-1] == "" else items  # a trailing separator is allowed

    def _numbers(self, key: str, items: list[Any], bounds: dict[str, float]) -> list[float]:
        values: list[float] = []
        for item in items:
            try:
                value = item if isinstance(item, int | float) else float(item)
            except (TypeError, ValueError):
                value = item
            name = f"{self.where}: {key}" + (f", entry {len(values)}," if len(items) > 1 else "")
            require_number(name, value, **bounds)
            values.append(float(value))
        return values

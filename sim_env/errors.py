"""Checks of input values: one sentence, with the offending value and what is allowed."""

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


def require_number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
) -> None:
    """Raise ``ValueError`` unless `value` is a finite number within the given bounds."""
    _require("a finite number", name, value, above, at_least, at_most)


def require_whole(
    name: str, value: object, *, at_least: float | None = None, at_most: float | None = None
) -> None:
    """Raise ``ValueError`` unless `value` is a whole number (an integer) within the bounds."""
    _require("a whole number", name, value, None, at_least, at_most)


def _require(
    kind: str,
    name: str,
    value: object,
    above: float | None,
    at_least: float | None,
    at_most: float | None,
) -> None:
    number = _finite(value, Integral if kind == "a whole number" else Real)
    if (
        number is None
        or (above is not None and not number > above)
        or (at_least is not None and not number >= at_least)
        or (at_most is not None and not number <= at_most)
    ):
        bounds = [
            f"{word} {bound:g}"
            for word, bound in (("above", above), ("at least", at_least), ("at most", at_most))
            if bound is not None
        ]
        allowed = kind + (" " + " and ".join(bounds) if bounds else "")
        raise ValueError(f"{name} is {shown(value)}: must be {allowed}")


def _finite(value: object, kind: type) -> float | None:
    """Convert a value to a float; None if it is not a finite number of that kind."""
    if isinstance(value, bool) or not isinstance(value, kind):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]  # every Real has one
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def require_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise ``ValueError`` unless `value` is one of `choices`; names the closest one."""
    known = list(choices)
    if value not in known:
        close = difflib.get_close_matches(str(value), known, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(f"{name} is {shown(value)}: must be one of {', '.join(known)}{hint}")


def require_path(name: str, value: object) -> Path:
    """Return `value` as a path with ``~`` expanded; raise ``ValueError`` if it cannot be one."""
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError(f"{name} is {shown(value)}: must be the path of a file")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{name} is {shown(value)}: must be in a home that exists") from error


def require_kind(name: str, value: object, kind: type | tuple[type, ...], allowed: str) -> None:
    """Raise ``ValueError`` unless `value` is an instance of `kind`, which is `allowed` in words."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} is {shown(value)}: must be {allowed}")


def require_seeds(seeds: object) -> np.ndarray:
    """Return `seeds` as an array of uint64.

    Raise ``ValueError`` unless they are whole numbers from 0 to 2^64 - 1.

    Parameters
    ----------
    seeds : sequence of int
        At least one.
    """
    allowed = "must be at least one whole number from 0 to 2^64 - 1"
    if isinstance(seeds, Sequence | np.ndarray) and np.iterable(seeds) and len(seeds):
        whole = [isinstance(seed, Integral) and 0 <= int(seed) < 2**64 for seed in seeds]
        if all(whole):
            return np.array(seeds, np.uint64)
        raise ValueError(f"seed is {shown(seeds[whole.index(False)])}: {allowed}")
    raise ValueError(f"seeds are {shown(seeds)}: {allowed}")


class Use(NamedTuple):
    """Condition under which a setting has an effect.

    Parameters
    ----------
    of : str
        Another setting of the same dataclass.
    holds : callable
        Whether the setting has an effect, by the value of the other one.
    neutral : object, optional
        Value that is correct even without an effect.
    """

    of: str
    holds: Callable[[Any], bool]
    neutral: object = None


def with_kind(of: str, *values: str) -> Use:
    """Return a use: the setting has an effect when `of` is one of `values`."""
    return Use(of, lambda value: value in values)


def without_kind(of: str, *values: str) -> Use:
    """Return a use: the setting has an effect unless `of` is one of `values`."""
    return Use(of, lambda value: value not in values)


def no_effect(name: str, value: object, of: str, other: object) -> str:
    """Return the sentence about a setting without effect under the value of another one."""
    return f"{name} is {shown(value)}: has no effect with {of}={other}, must be left out"


def require_effect(prefix: str, spec: Any, uses: Mapping[str, Use]) -> None:
    """Raise ``ValueError`` for a setting that differs from its default without any effect.

    Parameters
    ----------
    prefix : str
        Of the names of the settings, such as ``topology.``.
    spec : dataclass
    uses : mapping of str to Use
        By the names of its fields.
    """
    for field in dataclasses.fields(spec):
        if field.name not in uses:
            continue
        use, value = uses[field.name], getattr(spec, field.name)
        made = field.default_factory
        default = field.default if made is dataclasses.MISSING else made()
        other = getattr(spec, use.of)
        if value not in (default, use.neutral) and not use.holds(other):
            raise ValueError(no_effect(prefix + field.name, value, prefix + use.of, other))


def shown(value: object) -> str:
    """Return a value as text for a sentence: on one line, of at most 60 characters."""
    try:
        text = repr(value)
    except ValueError:  # an integer with more digits than Python prints
        text = "a number of thousands of digits"
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."

"""Validation of settings: one sentence with the offending value and what is allowed."""

import math
from collections.abc import Iterable
from numbers import Integral, Real


def finite(value: object) -> bool:
    """Return whether a value is a finite number; an integer that no float can hold is not."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def shown(value: object, length: int = 60) -> str:
    """Return a value for a sentence: on one line, printable, of at most `length` characters."""
    try:
        text = printable(repr(value), length + 1)
    except (ValueError, RecursionError):  # an integer or a nesting that Python does not print
        text = f"too large a value of type {type(value).__name__}"
    return text if len(text) <= length else f"{text[: length - 3]}..."


def printable(text: str, length: int) -> str:
    """Return the first characters of a text, on one line and without control codes."""
    # Cut first: what a node sends may be megabytes long.
    line = " ".join(text[: 4 * length].split())[:length]
    return "".join(c if c.isprintable() else "?" for c in line)


def require_number(
    name: str,
    value: object,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    below: float = math.inf,
) -> None:
    """Raise ``ValueError`` unless `value` is a finite number within the given bounds."""
    number = float(value) if finite(value) else math.nan  # type: ignore[arg-type]
    if not (at_least <= number <= at_most and above < number < below):
        bounds = {"above": above, "at least": at_least, "at most": at_most, "below": below}
        limits = " and ".join(
            f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound)
        )
        raise ValueError(f"{name} is {shown(value)}: must be a finite number {limits}".rstrip())


def require_whole(name: str, value: object, *, at_least: int) -> None:
    """Raise ``ValueError`` unless `value` is a whole number, of Python or numpy."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"{name} is {shown(value)}: must be a whole number, at least {at_least}")


def require_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise ``ValueError`` unless `value` is one of `choices`."""
    known = list(choices)
    if value not in known:
        raise ValueError(f"{name} is {shown(value)}: must be one of {', '.join(known)}")

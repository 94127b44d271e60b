"""Checks of input values: one sentence, with the offending value and what is allowed."""

import difflib
import math
from collections.abc import Iterable
from numbers import Real


def require_number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
) -> None:
    """Raise ``ValueError`` unless `value` is a finite number within the given bounds."""
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (("above", above), ("at least", at_least), ("at most", at_most))
        if bound is not None
    ]
    allowed = "a finite number" + (" " + " and ".join(bounds) if bounds else "")
    if (
        isinstance(value, bool)
        or not isinstance(value, Real)
        or not math.isfinite(value)
        or (above is not None and not float(value) > above)
        or (at_least is not None and not float(value) >= at_least)
        or (at_most is not None and not float(value) <= at_most)
    ):
        raise ValueError(f"{name} is {value!r}: must be {allowed}")


def require_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise ``ValueError`` unless `value` is one of `choices`; names the closest one."""
    known = list(choices)
    if value not in known:
        close = difflib.get_close_matches(str(value), known, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(f"{name} is {value!r}: must be one of {', '.join(known)}{hint}")

"""Validation of settings: one sentence with the offending value and what is allowed."""

import math
from collections.abc import Iterable
from numbers import Real


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
    if (
        isinstance(value, bool)
        or not isinstance(value, Real)
        or not math.isfinite(value)
        or not (at_least <= float(value) <= at_most and above < float(value) < below)
    ):
        bounds = {"above": above, "at least": at_least, "at most": at_most, "below": below}
        limits = " and ".join(
            f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound)
        )
        raise ValueError(f"{name} is {value!r}: must be a finite number {limits}".rstrip())


def require_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise ``ValueError`` unless `value` is one of `choices`."""
    known = list(choices)
    if value not in known:
        raise ValueError(f"{name} is {value!r}: must be one of {', '.join(known)}")

"""Faults that :class:`strategies.InMemoryGrid` injects into messages, scripted or random."""

from collections.abc import Callable, Mapping

import numpy as np

from strategies.checks import require_choice, require_number

RAISE, CRASH, DROP, SILENT = "raise", "crash", "drop", "silent"
LATE, DUPLICATE, FORGE, REFUSE = "late", "duplicate", "forge", "refuse"
FAULTS = (RAISE, CRASH, DROP, SILENT, LATE, DUPLICATE, FORGE, REFUSE)

Fault = Callable[[int, int], str | None]


def random_faults(probabilities: Mapping[str, float], seed: int) -> Fault:
    """Draw the faults of each message from ``(seed, partition_id, k)`` alone.

    Parameters
    ----------
    probabilities : mapping of str to float
        By name of the fault; their sum is at most 1.
    seed : int
    """
    for kind, probability in probabilities.items():
        require_choice("a fault", kind, FAULTS)
        require_number(f"the probability of {kind}", probability, at_least=0, at_most=1)
    require_number("the sum of the probabilities", sum(probabilities.values()), at_most=1)
    kinds, limits = list(probabilities), np.cumsum(list(probabilities.values()))

    def fault(partition_id: int, k: int) -> str | None:
        if not kinds:
            return None
        draw = np.random.default_rng([seed, partition_id, k]).random()
        place = int(np.searchsorted(limits, draw))
        return kinds[place] if place < len(kinds) else None

    return fault

"""Privacy that has been spent: how often each member took part in a release, and its epsilon."""

import functools
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from flwr.serverapp import (
    GaussianPrivacyEvent,
    NeighboringRelation,
    PrivacyConfig,
    SamplingMethod,
)

from strategies.checks import require_number, require_whole

LEAST_NOISE, MOST_NOISE, SEARCH = 0.01, 1e5, 1e-5  # of noise_multiplier_for()
Counts = tuple[tuple[float, int], ...]  # noise multiplier and number of releases, in rising order


@dataclass(frozen=True)
class Spent:
    """Privacy spent so far, with what it protects.

    Parameters
    ----------
    epsilon, delta : float
    protects : str
        Whose difference to no contribution at all `epsilon` bounds, in words.
    """

    epsilon: float
    delta: float
    protects: str

    def __str__(self) -> str:
        return f"epsilon {self.epsilon:.4g} at delta {self.delta:g} ({self.protects})"

    def fields(self) -> dict[str, Any]:
        """Return it as the fields of an event."""
        return asdict(self)


class Ledger:
    """Releases of each member, composed by Flower's ``RdpAccountant`` without amplification.

    A release is a Gaussian mechanism whose noise is `noise_multiplier` times its sensitivity. The
    ledger keeps the number of releases by multiplier, from which the accountant computes the same
    epsilon as from one event after another; a training that resumes with other noise composes
    both.

    Parameters
    ----------
    noise_multiplier : float
        Standard deviation of the noise of a release, in units of its sensitivity.
    delta : float
    max_epsilon : float, optional
        Largest epsilon of a member.

    Attributes
    ----------
    releases : int
        Releases so far, those included that a crash has cost; a number that never comes again.

    Raises
    ------
    ImportError
        Without Flower's extra for accounting.
    """

    def __init__(self, noise_multiplier: float, delta: float, max_epsilon: float | None) -> None:
        self.noise_multiplier, self.delta = noise_multiplier, delta
        self.max_epsilon = max_epsilon
        self.releases = 0
        self.one = epsilon_of(((noise_multiplier, 1),), delta)
        self._counts: dict[int, Counter[float]] = {}
        self._epsilon = 0.0

    @property
    def epsilon(self) -> float:
        """The largest epsilon of a member; 0 before the first release."""
        return self._epsilon

    def of(self, member: int) -> float:
        """Return the epsilon of a member."""
        return self._of(self._counts.get(member, Counter()))

    def allows(self, members: Iterable[int]) -> bool:
        """Return whether a release in which these members take part is within the budget."""
        return self.max_epsilon is None or self._after(Counter(members)) <= self.max_epsilon

    def charge(self, members: Iterable[int]) -> None:
        """Record a release in which these members take part, each as often as it is named."""
        named = Counter(members)
        self._epsilon = max(self._epsilon, self._after(named))
        for member, count in named.items():
            self._counts.setdefault(member, Counter())[self.noise_multiplier] += count
        self.releases += 1

    def _after(self, named: Counter[int]) -> float:
        """Return the largest epsilon among these members after a release."""
        return max(
            self._of(self._counts.get(member, Counter()) + Counter({self.noise_multiplier: count}))
            for member, count in named.items()
        )

    def _of(self, counts: Counter[float]) -> float:
        return epsilon_of(tuple(sorted(counts.items())), self.delta)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        spent = [[member, list(counts.items())] for member, counts in self._counts.items()]
        return {"releases": self.releases, "spent": spent}

    def load(self, state: dict[str, Any]) -> None:
        """Add what a file knows: of two states of one training, the later one counts."""
        self.releases = max(self.releases, state["releases"])
        for member, counts in state["spent"]:
            # The larger number of each: | of two counters.
            held = Counter({float(multiplier): count for multiplier, count in counts})
            self._counts[member] = self._counts.get(member, Counter()) | held
            self._epsilon = max(self._epsilon, self.of(member))


def noise_multiplier_for(epsilon: float, releases: int, delta: float) -> float:
    """Compute the least noise with which Gaussian releases stay within a budget.

    Parameters
    ----------
    epsilon : float
        The budget at `delta`.
    releases : int
        Number of them in which a member takes part.
    delta : float

    Returns
    -------
    float
        The noise multiplier, to four digits, rounded up: of :class:`strategies.CentralPrivacy`;
        :class:`strategies.LocalPrivacy`, whose updates are twice as far apart, needs twice as much.

    Raises
    ------
    ValueError
        If a parameter is impossible, or the noise would not be between 0.01 and 100,000.
    ImportError
        Without Flower's extra for accounting.
    """
    require_number("epsilon", epsilon, above=0)
    require_whole("releases", releases, at_least=1)
    require_number("delta", delta, above=0, below=1)

    def spent(noise_multiplier: float) -> float:
        return epsilon_of(((noise_multiplier, releases),), delta)

    low, high = LEAST_NOISE, MOST_NOISE
    if not spent(high) <= epsilon < spent(low):
        raise ValueError(
            f"epsilon is {epsilon:g}: must be between {spent(high):.3g} and {spent(low):.3g} for "
            f"{releases} releases at delta {delta:g}"
        )
    while high / low > 1 + SEARCH:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if spent(middle) <= epsilon else (middle, high)
    step = 10.0 ** (math.floor(math.log10(high)) - 3)
    return round(math.ceil(high / step) * step, 10)


@functools.lru_cache(maxsize=4096)
def epsilon_of(counts: Counts, delta: float) -> float:
    """Compute the epsilon at `delta` of Gaussian releases that are composed.

    Parameters
    ----------
    counts : tuple of (float, int)
        Noise multipliers and how many releases had each.
    delta : float
    """
    if not counts:
        return 0.0
    try:
        from flwr.serverapp import RdpAccountant

        # One client of one: the sample is reported, not used, without amplification.
        accountant = RdpAccountant(
            PrivacyConfig(
                target_delta=delta,
                population_size=1,
                neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
                sampling_method=SamplingMethod.NO_AMPLIFICATION,
            )
        )
    except ImportError as error:
        raise ImportError(
            "privacy needs the package dp-accounting: pip install 'flwr[dp]'"
        ) from error
    for noise_multiplier, count in counts:
        accountant.compose(GaussianPrivacyEvent(noise_multiplier, 1, 1), count)
    return accountant.get_epsilon(delta)

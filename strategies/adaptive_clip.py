"""A norm to clip to that follows the norms of the updates, at a known cost in privacy."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from strategies.checks import require_number

# What one member can change in the count of updates: see AdaptiveClip.
SENSITIVITY = 0.5


@dataclass(frozen=True)
class AdaptiveClip:
    """Adapt the clip ``C`` of central privacy to a quantile of the norms (Andrew et al. 2021).

    After a version of K updates of the norms ``n_m``, with the noise multiplier z::

        s_m = 0 if n_m = 0, 1/2 if 0 < n_m <= C, -1/2 if n_m > C
        b   = 1/2 + (sum_m s_m + N(0, sigma_b^2)) / K          sigma_b = count_noise z / 2
        C  <- C exp(-learning_rate (b - quantile))             b - quantile within [-1, 1]

    ``b`` is the noised fraction of updates within the clip. Each update counts alike, whatever its
    weight in the version. The true difference is within [-1, 1], so the noised one is cut to that,
    which moves no fixed point and keeps ``C`` from jumping where the noise is larger than K.

    **Sensitivity.** Without a member's contribution (zeros for its updates) ``s_m`` is 0 instead of
    1/2 or -1/2: the count changes by at most 1/2, the value of the paper, which removes the
    member. That holds because an update of zeros counts as half: if it counted as within the clip,
    as the inequality alone says, ``s_m`` could go from -1/2 to 1/2, and the count would change by
    1. Other data instead of none changes twice as much here as there, as in the mean.

    **Cost.** The count and the noisy mean are released together. As one Gaussian mechanism (Theorem
    1 of the paper) they cost what a mean with the noise multiplier z costs alone, if that of the
    mean is raised to::

        z_delta = (z^-2 - (2 sigma_b)^-2)^(-1/2) = z / sqrt(1 - count_noise^-2)

    2.1 % more noise with the default. The paper sets ``sigma_b = K / 20``, which below K = 10 z
    leaves nothing for the mean; here it is in proportion to z, so that every z has a ``z_delta``.

    Parameters
    ----------
    quantile : float, default 0.5
        Fraction of the updates that are to be within the clip.
    learning_rate : float, default 0.2
        Step of the logarithm of the clip, at most 1; 0 leaves the clip as it is. Where the noise of
        ``b``, ``sigma_b / K``, is about 1 or more, less of it keeps the clip from wandering.
    count_noise : float, default 5.0
        Noise multiplier of the count, in multiples of that of the privacy; above 1. Less makes
        ``b`` more exact, and the versions less: 15 % more noise in them with 2.

    Raises
    ------
    ValueError
        If a parameter is impossible.
    """

    quantile: float = 0.5
    learning_rate: float = 0.2
    count_noise: float = 5.0

    def __post_init__(self) -> None:
        require_number("quantile", self.quantile, above=0, below=1)
        require_number("learning_rate", self.learning_rate, at_least=0, at_most=1)
        require_number("count_noise", self.count_noise, above=1)

    @property
    def increase(self) -> float:
        """Factor by which the noise of versions is larger, so that the count costs nothing more."""
        return 1 / math.sqrt(1 - self.count_noise**-2)

    def after(
        self,
        clip: float,
        norms: Sequence[float],
        noise_multiplier: float,
        rng: np.random.Generator,
    ) -> float:
        """Return the clip after a version.

        Parameters
        ----------
        clip : float
            In force for this version.
        norms : sequence of float
            Of the updates in it, before they were clipped; at least one.
        noise_multiplier : float
            Of both releases together.
        rng : numpy Generator
            Of this count only.

        Returns
        -------
        float
            Above 0, and finite.
        """
        of_member = np.asarray(norms, float)
        marks = np.where(of_member > clip, -SENSITIVITY, SENSITIVITY) * (of_member > 0)
        noise = rng.normal(0.0, self.count_noise * noise_multiplier * SENSITIVITY)
        below = 0.5 + (float(marks.sum()) + noise) / len(of_member)
        step = min(max(below - self.quantile, -1.0), 1.0)
        adapted = clip * math.exp(-self.learning_rate * step)
        return min(max(adapted, sys.float_info.min), sys.float_info.max)

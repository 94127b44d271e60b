"""Differential privacy of a training: who adds the noise, and what epsilon then means."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from flwr.app import Message

from strategies.adaptive_clip import AdaptiveClip
from strategies.checks import require_number, require_whole, shown
from strategies.guard import RejectedError
from strategies.ledger import Ledger
from strategies.merge import Mean, MergeRule, NoisyMean

# In the metrics of a reply, by which a node tells what it did to its update.
CLIP, NOISE_MULTIPLIER = "privacy-clip", "privacy-noise-multiplier"
EPSILON = "privacy-epsilon"  # in the metrics of a version; "epsilon" is also what explores

# The norm of an update is computed in the precision of its arrays, of float32 at least.
ROUNDING = 1 - 2.0**-20


@dataclass(frozen=True)
class CentralPrivacy:
    """Clip each update on the server, and add noise to each version: the server is trusted.

    With updates ``delta_m`` of K members and weights ``w_m`` that do not depend on their data,
    a version is made from (DP-FedAvg, McMahan et al. 2018, without sampling)::

        sum_m w_m delta_m min(1, clip / |delta_m|) + N(0, (noise_multiplier clip max_m w_m)^2 I)

    With equal weights the noise of a value has the standard deviation ``noise_multiplier clip /
    K``, where K are the updates in this version. A member has at most one update in a version.
    So two trainings of which one has no contribution of a member (zeros for its updates: the
    relation of Kairouz et al. 2021) differ by at most ``clip max_m w_m`` in a version, of which
    the noise is `noise_multiplier` times: one Gaussian release of each member in the version.
    Epsilon is that of the member that took part in most of them. A member that has other data
    instead of none differs by twice as much: its epsilon is that of half the `noise_multiplier`.

    With `adaptive` a version is released together with a noisy count of the updates within the
    clip, and has so much more noise (``z_delta`` of :class:`AdaptiveClip`) that both are one
    release of `noise_multiplier`: epsilon is the same as with a fixed clip.

    Which nodes take part in which version, and when, is not protected; nor are metrics.

    The noise of each release is drawn from a new generator, seeded by the operating system: no
    state of it is kept, so that neither a checkpoint nor a crash shows or repeats noise.

    Parameters
    ----------
    clip : float
        Largest Euclidean norm of an update, over all arrays; with `adaptive` that of the first
        version.
    noise_multiplier : float
        Standard deviation of the noise in units of what one member can change.
    max_epsilon : float, optional
        Training ends before a version with which epsilon of a member would be larger.
    delta : float, default 1e-5
        Probability with which epsilon does not hold; less than one in the number of nodes.
    seed : int, optional
        Makes the noise repeatable, for tests and experiments: who knows it can subtract it.
    adaptive : AdaptiveClip, optional
        How the clip follows the norms of the updates. Default: it stays.

    Raises
    ------
    ValueError
        If a parameter is impossible.
    """

    clip: float
    noise_multiplier: float
    max_epsilon: float | None = None
    delta: float = 1e-5
    seed: int | None = None
    adaptive: AdaptiveClip | None = None

    protects = "all updates of a node, in the versions"

    def __post_init__(self) -> None:
        _require(self.clip, self.noise_multiplier, self.max_epsilon, self.delta, self.seed)
        if not isinstance(self.adaptive, AdaptiveClip | None):
            raise ValueError(f"adaptive is {shown(self.adaptive)}: must be AdaptiveClip() or None")

    def ledger(self) -> Ledger:
        """Return an empty ledger; ``ImportError`` without the package that it needs."""
        return Ledger(self.noise_multiplier, self.delta, self.max_epsilon)

    def check_rules(self, weighted_by_key: str | None, merge: MergeRule) -> None:
        """Raise ``ValueError`` if an update may change a version by more than its clipped norm."""
        if weighted_by_key is not None:
            raise ValueError(
                f"weighted_by_key is {shown(weighted_by_key)}: must be None with CentralPrivacy, "
                f"because what nodes report about their data is not private"
            )
        if type(merge) is not Mean:
            raise ValueError(
                f"merge is {shown(merge)}: must be Mean() with CentralPrivacy, because the noise "
                f"is for what an update can change in a mean"
            )

    def noise_norm(self, weights: np.ndarray, size: int) -> float:
        """Return the expected norm of the noise in a merged update of `size` values."""
        return self.noise * float(np.max(weights)) * math.sqrt(size)

    @property
    def noise(self) -> float:
        """Standard deviation of the noise of a value, for a largest weight of 1."""
        increase = 1.0 if self.adaptive is None else self.adaptive.increase
        return self.noise_multiplier * increase * self.clip

    @property
    def most_norm(self) -> float:
        """The norm to which larger updates are scaled."""
        return self.clip * ROUNDING

    def rule(self, release: int) -> NoisyMean:
        """Return the merge rule of a release, with noise that no other release has."""
        return NoisyMean(self.noise, self._rng(release))

    def after(self, release: int, norms: Sequence[float]) -> Self:
        """Return this with the clip that is in force after a release of updates of these norms."""
        if self.adaptive is None:
            return self
        rng = self._rng(release, 1)  # other noise than that of the version
        clip = self.adaptive.after(self.clip, norms, self.noise_multiplier, rng)
        return replace(self, clip=clip)

    def _rng(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=numbers))


@dataclass(frozen=True)
class LocalPrivacy:
    """Account for updates that the nodes clip and noise themselves, by :func:`private_mod`.

    The server is not trusted with more than noisy updates; it counts them. A train message that is
    sent is counted as one Gaussian release of its member, answered or not: what a node has sent
    may be lost on the way. As the definition of local privacy wants it, any two updates are to be
    alike. They are at most ``2 clip`` apart, of which the noise is half the `noise_multiplier`.
    Epsilon is that of the member that was sent most messages; `message_epsilon` in the events that
    of one message. A reply that does not tell of this clip and at least this noise is rejected.

    Parameters
    ----------
    clip : float
        Largest norm of an update, as the nodes clip it.
    noise_multiplier : float
        Standard deviation of the noise of each value, in units of `clip`.
    max_epsilon : float, optional
        Training ends before a message with which epsilon of a member would be larger.
    delta : float, default 1e-5
        Probability with which epsilon does not hold.

    Raises
    ------
    ValueError
        If a parameter is impossible.
    """

    clip: float
    noise_multiplier: float
    max_epsilon: float | None = None
    delta: float = 1e-5

    protects = "all updates of a node, as they leave it"

    def __post_init__(self) -> None:
        _require(self.clip, self.noise_multiplier, self.max_epsilon, self.delta)

    def ledger(self) -> Ledger:
        """Return an empty ledger; ``ImportError`` without the package that it needs."""
        return Ledger(self.noise_multiplier / 2, self.delta, self.max_epsilon)

    def noise_norm(self, weights: np.ndarray, size: int) -> float:
        """Return the expected norm of the noise in a merged update of `size` values."""
        return self.noise_multiplier * self.clip * float(np.linalg.norm(weights)) * math.sqrt(size)

    def check(self, reply: Message) -> None:
        """Raise :class:`RejectedError` unless a reply tells of the clip and the noise."""
        told = {name: v for r in reply.content.metric_records.values() for name, v in r.items()}
        clip, noise_multiplier = told.get(CLIP), told.get(NOISE_MULTIPLIER)
        if clip != self.clip or not _at_least(noise_multiplier, self.noise_multiplier):
            raise RejectedError(
                "privacy",
                f"metrics {CLIP!r} and {NOISE_MULTIPLIER!r} are {shown(clip)} and "
                f"{shown(noise_multiplier)}: must be {self.clip:g} and at least "
                f"{self.noise_multiplier:g}, as private_mod() sends them",
            )


Privacy = CentralPrivacy | LocalPrivacy


def signal_to_noise(merged_norm: Sequence[float], noise_norm: Sequence[float]) -> float:
    """Estimate the norm of merged updates without their noise, in units of the noise.

    Noise is nearly orthogonal to the rest: ``merged^2 = signal^2 + noise^2``. In a version of P
    values the square of the result has a standard error of about ``sqrt(2 / P)`` if there is no
    signal; over V versions one that is smaller by ``sqrt(V)``.

    Parameters
    ----------
    merged_norm, noise_norm : sequence of float
        By version, as in the events of versions; noise above 0.

    Returns
    -------
    float
        0 if the noise leaves nothing to see.
    """
    powers = (np.asarray(merged_norm, float) / np.asarray(noise_norm, float)) ** 2
    return math.sqrt(max(0.0, float(powers.mean()) - 1.0))


def _at_least(value: object, least: float) -> bool:
    return isinstance(value, float | int) and value >= least


def _require(
    clip: float,
    noise_multiplier: float,
    max_epsilon: float | None,
    delta: float,
    seed: int | None = None,
) -> None:
    require_number("clip", clip, above=0)
    require_number("noise_multiplier", noise_multiplier, above=0)
    require_number("delta", delta, above=0, below=1)
    if max_epsilon is not None:
        require_number("max_epsilon", max_epsilon, above=0)
    if seed is not None:
        require_whole("seed", seed, at_least=0)

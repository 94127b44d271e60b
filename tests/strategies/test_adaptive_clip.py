"""The clip follows a quantile of the norms, and epsilon stays that of the noise multiplier."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from strategies import AdaptiveClip, CentralPrivacy, CheckpointError, Checkpoints, LocalPrivacy
from strategies.ledger import epsilon_of
from strategies.privacy import signal_to_noise
from tests.strategies.private_apps import (
    DELTA,
    NODES,
    SIZE,
    composed,
    dp_accounting,
    moving_app,
    rdp,
    train,
)

RNG = np.random.default_rng(0)
NORMS = np.array([0.5, 1.0, 2.0, 40.0])
UPDATES = np.zeros((NODES, 1, SIZE))
UPDATES[:, 0, 0] = NORMS  # all in one direction

sets_of_norms = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12)


def walk(privacy: CentralPrivacy, versions: int = 12, **others: Any) -> list[dict[str, Any]]:
    """Train with updates of fixed norms; return the events of versions."""
    events: list[dict[str, Any]] = []
    train(moving_app(UPDATES), privacy, versions=versions, on_event=events.append, **others)
    return [event for event in events if event["event"] == "flush"]


def clips(flushes: list[dict[str, Any]]) -> list[float]:
    return [event["clip"] for event in flushes]


def noisy_count(adaptive: AdaptiveClip, clip: float, norms: list[float]) -> float:
    """Return the count that the next clip is made of, without its noise."""
    below = adaptive.quantile - math.log(adaptive.after(clip, norms, 0.0, RNG) / clip)
    return below * len(norms)


# ---- where the clip goes ---------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(
    norms=sets_of_norms,
    quantile=st.floats(0.05, 0.95),
    rate=st.sampled_from([0.2, 1.0]),
    start=st.floats(-3, 3),
)
def test_without_noise_the_clip_converges_to_the_quantile(
    norms: list[float], quantile: float, rate: float, start: float
) -> None:
    """Geometrically, and to within one step of a norm that divides them as the quantile says."""
    adaptive, clip = AdaptiveClip(quantile, rate), 10.0**start
    ordered = np.sort(norms)
    # The fraction within the clip passes the quantile at this norm.
    fractions = np.arange(1, len(ordered) + 1) / len(ordered)
    slowest = float(np.abs(np.array([*fractions, 0.0]) - quantile).min())
    assume(slowest > 0.03)
    true = float(ordered[np.argmax(fractions > quantile)])
    for _ in range(math.ceil(abs(math.log(clip / true)) / (rate * slowest)) + 1):
        before, clip = clip, adaptive.after(clip, norms, 0.0, RNG)
        if abs(math.log(before / true)) > rate:
            assert abs(math.log(clip / true)) < abs(math.log(before / true))
    assert abs(math.log(clip / true)) <= rate + 1e-9
    for _ in range(50):
        clip = adaptive.after(clip, norms, 0.0, RNG)
        assert abs(math.log(clip / true)) <= rate + 1e-9


def test_a_step_is_that_of_the_paper() -> None:
    adaptive = AdaptiveClip(quantile=0.5, learning_rate=0.2)
    assert adaptive.after(3.0, [1, 2, 3, 4, 5], 0.0, RNG) == 3.0 * math.exp(-0.2 * (0.6 - 0.5))
    assert adaptive.after(3.0, [4.0] * 5, 0.0, RNG) == 3.0 * math.exp(0.2 * 0.5)
    assert AdaptiveClip(0.9).after(3.0, [1.0] * 5, 0.0, RNG) == 3.0 * math.exp(-0.2 * (1 - 0.9))


@settings(deadline=None, max_examples=100)
@given(norms=sets_of_norms, noise=st.floats(1e-3, 1e5), clip=st.floats(1e-300, 1e300))
def test_no_noise_makes_the_clip_jump(norms: list[float], noise: float, clip: float) -> None:
    after = AdaptiveClip(0.9, 0.3).after(clip, norms, noise, RNG)
    assert abs(math.log(after / clip)) <= 0.3 + 1e-9


@pytest.mark.parametrize(
    ("quantile", "clip", "norm"), [(0.1, 3e-308, 0.0), (0.9, 1e308, np.finfo(float).max)]
)
def test_the_clip_stays_a_number(quantile: float, clip: float, norm: float) -> None:
    """Mutation: nodes that send nothing but zeros would lead to a clip of 0."""
    for _ in range(100):
        clip = AdaptiveClip(quantile, 1.0).after(clip, [norm], 0.0, RNG)
    assert CentralPrivacy(clip, 1.0).clip == clip


def test_the_noise_of_the_count_is_normal() -> None:
    adaptive, rng = AdaptiveClip(0.5, 1.0, count_noise=3.0), np.random.default_rng(4)
    norms = [1.0] * 1000  # so many that no step is cut
    steps = [-math.log(adaptive.after(2.0, norms, 4.0, rng) / 2.0) for _ in range(4000)]
    counted = (np.array(steps) - 0.5) * len(norms)
    assert stats.kstest(counted, "norm", args=(0.0, 3.0 * 4.0 / 2)).pvalue > 0.01


# ---- what it costs ---------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(
    norms=sets_of_norms,
    clip=st.floats(1e-3, 1e3),
    member=st.integers(0, 11),
    other=st.floats(0, 1e4),
)
def test_a_member_changes_the_count_by_half(
    norms: list[float], clip: float, member: int, other: float
) -> None:
    """Mutation: zeros that count as within the clip change it by 1."""
    adaptive = AdaptiveClip(0.5, 1.0)
    member %= len(norms)
    without = [0.0 if i == member else norm for i, norm in enumerate(norms)]
    replaced = [other if i == member else norm for i, norm in enumerate(norms)]
    whole, none, changed = (noisy_count(adaptive, clip, n) for n in (norms, without, replaced))
    assert abs(whole - none) == pytest.approx(0.5)
    assert abs(changed - none) <= 0.5 + 1e-9
    assert abs(whole - changed) <= 1 + 1e-9


@pytest.mark.parametrize("noise_multiplier", [0.3, 1.0, 4.722, 12.8])
@pytest.mark.parametrize("count_noise", [1.1, 2.0, 5.0, 50.0])
@pytest.mark.parametrize("versions", [1, 20])
def test_both_releases_cost_what_the_noise_multiplier_says(
    noise_multiplier: float, count_noise: float, versions: int
) -> None:
    """Mutation: without the increase, epsilon is larger than the ledger says."""
    adaptive = AdaptiveClip(count_noise=count_noise)
    privacy = CentralPrivacy(0.7, noise_multiplier, adaptive=adaptive)
    # Noise in units of what one member changes: of the clip in the mean, of 1/2 in the count.
    of_mean = privacy.rule(1).noise / 0.7
    of_count = count_noise * noise_multiplier / 2 / 0.5
    ledger = privacy.ledger()
    for _ in range(versions):
        ledger.charge([0])
    nominal = epsilon_of(((noise_multiplier, versions),), DELTA)
    assert ledger.epsilon == nominal
    both = composed({of_mean: versions, of_count: versions})
    assert both == pytest.approx(nominal, rel=1e-9)
    if count_noise < 50:
        mutated = composed({noise_multiplier: versions, of_count: versions})
        assert mutated > nominal * 1.005
    accountant = rdp.RdpAccountant()
    event = dp_accounting.ComposedDpEvent(
        [dp_accounting.GaussianDpEvent(of_mean), dp_accounting.GaussianDpEvent(of_count)]
    )
    accountant.compose(event, versions)
    assert accountant.get_epsilon(DELTA) == pytest.approx(nominal, rel=1e-9)


def test_versions_have_so_much_more_noise() -> None:
    """Mutation: with the noise of a fixed clip, the count would cost more than is told."""
    size, increase = 20_000, 1 / math.sqrt(1 - 2.0**-2)
    events: list[dict[str, Any]] = []
    train(
        moving_app(np.zeros((NODES, 1, 1))),
        CentralPrivacy(1.0, 2.0, seed=6, adaptive=AdaptiveClip(count_noise=2.0)),
        size=size,
        on_event=events.append,
    )
    flushes = [event for event in events if event["event"] == "flush"]
    assert len(flushes) == 5
    assert len(set(clips(flushes))) > 2
    for event in flushes:
        expected = 2.0 * increase * event["clip"] / NODES * math.sqrt(size)
        assert event["noise_norm"] == pytest.approx(expected, rel=1e-3)
        assert event["merged_norm"] == pytest.approx(expected, rel=0.03)
        assert event["epsilon"] == pytest.approx(composed({2.0: event["version"]}))


# ---- in a training ---------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0.01, 1000.0])
def test_the_clip_of_a_training_moves_to_the_norms(start: float) -> None:
    privacy = CentralPrivacy(start, 1e-9, adaptive=AdaptiveClip(0.6, 0.5))
    flushes = walk(privacy, 70)
    assert flushes[0]["clip"] == start
    # Three of four norms are at most 2, one is 40.
    assert clips(flushes)[-1] == pytest.approx(2.0, rel=0.12)
    for event in flushes:
        within = event["clip"] >= NORMS
        merged = np.minimum(NORMS, event["clip"]).mean()
        assert event["merged_norm"] == pytest.approx(merged, rel=1e-3)
        assert event["scaled_down"] == NODES - within.sum()


def test_a_rate_of_0_is_a_fixed_clip_with_the_noise_of_two_releases() -> None:
    def final(privacy: CentralPrivacy) -> bytes:
        return train(moving_app(UPDATES), privacy).arrays["w"].numpy().tobytes()

    still = AdaptiveClip(learning_rate=0.0)
    adaptive = CentralPrivacy(1.0, 2.0, seed=3, adaptive=still)
    fixed = CentralPrivacy(1.0, 2.0 * still.increase, seed=3)
    assert set(clips(walk(adaptive))) == {1.0}
    assert final(adaptive) == final(fixed) != final(CentralPrivacy(1.0, 2.0, seed=3))


def test_the_noise_of_the_count_is_repeated_with_a_seed_only() -> None:
    def walked(seed: int | None) -> list[float]:
        return clips(walk(CentralPrivacy(1.0, 1.0, seed=seed, adaptive=AdaptiveClip())))

    assert walked(1) == walked(1) != walked(2)
    assert walked(None) != walked(None)


def test_the_noise_of_the_count_is_not_that_of_the_version() -> None:
    privacy = CentralPrivacy(1.0, 1.0, seed=1, adaptive=AdaptiveClip(0.5, 1.0, 2.0))
    of_counts, of_versions = [], []
    for release in range(2000):
        clip = privacy.after(release, [1.0] * 1000).clip
        of_counts.append(-math.log(clip))
        of_versions.append(float(privacy.rule(release)([np.zeros(1)], np.ones(1))[0]))
    assert abs(np.corrcoef(of_counts, of_versions)[0, 1]) < 0.08
    assert len(set(of_counts)) == 2000


def test_no_exact_fraction_is_in_what_is_told() -> None:
    """From the clips follows the noisy fraction, and it is not the true one."""
    flushes = walk(CentralPrivacy(1.0, 1.0, seed=5, adaptive=AdaptiveClip(0.5, 0.1, 2.0)))
    told = 0.5 - np.diff(np.log(clips(flushes))) / 0.1
    true = np.array([(clip >= NORMS).mean() for clip in clips(flushes)[:-1]])
    assert np.all(np.abs(told - true) > 1e-3)


def test_signal_to_noise_is_with_the_clip_in_force() -> None:
    """Mutation: with the first clip, the noise would be told a hundred times too large."""
    flushes = walk(CentralPrivacy(100.0, 1e-3, seed=2, adaptive=AdaptiveClip(0.5, 1.0)), 40)
    last = flushes[-1]
    assert last["noise_norm"] == pytest.approx(
        1e-3 * AdaptiveClip().increase * last["clip"] / NODES * math.sqrt(SIZE), rel=1e-3
    )
    assert signal_to_noise([last["merged_norm"]], [last["noise_norm"]]) > 50


# ---- over crashes ----------------------------------------------------------------------------


class CutError(Exception):
    """The server dies here."""


ADAPTIVE = CentralPrivacy(30.0, 1.0, seed=1, adaptive=AdaptiveClip(0.5, 0.5))


def test_a_training_that_resumes_has_its_clip_and_makes_the_same_versions(tmp_path: Path) -> None:
    """Mutation: without the clip in the checkpoint, it begins again from that of the settings."""
    made: dict[int, list[bytes]] = {}

    def on_version(version: int, arrays: ArrayRecord, *_: Any) -> None:
        made.setdefault(version, []).append(arrays["w"].numpy().tobytes())

    whole = clips(walk(ADAPTIVE, 9, on_version=on_version))
    parts = []
    for versions in (4, 9):
        checkpoint = Checkpoints(tmp_path, resume=True)
        parts += walk(ADAPTIVE, versions, checkpoint=checkpoint, on_version=on_version)
    assert clips(parts) == whole
    assert len(set(whole)) > 4
    assert all(one == other for one, other in made.values())


def test_a_version_that_is_made_again_has_the_clip_it_had_and_another_count(
    tmp_path: Path,
) -> None:
    """A server dies after version 6, of which its files do not know."""
    events: list[dict[str, Any]] = []

    def train_until(cut: int) -> None:
        def on_version(version: int, *_: Any) -> None:
            if version == cut:
                raise CutError

        checkpoint = Checkpoints(tmp_path, resume=True, every=2)
        others = {"checkpoint": checkpoint, "on_version": on_version, "versions": 8}
        train(moving_app(UPDATES), ADAPTIVE, on_event=events.append, **others)

    with pytest.raises(CutError):
        train_until(6)
    train_until(0)
    flushes = [event for event in events if event["event"] == "flush"]
    told = [(event["version"], event["clip"]) for event in flushes]
    # Version 5 is made again from the clip in the file of version 4.
    first, again = told[:6], told[6:]
    assert [version for version, _ in first] == [1, 2, 3, 4, 5, 6]
    assert [version for version, _ in again] == [5, 6, 7, 8]
    assert again[0] == first[4]
    assert again[1] != first[5]
    assert flushes[-1]["epsilon"] == pytest.approx(composed({1.0: 10}))


def test_a_clip_may_begin_to_adapt_and_stop(tmp_path: Path) -> None:
    fixed = CentralPrivacy(30.0, 1.0, seed=1)
    told = [
        clips(walk(privacy, versions, checkpoint=Checkpoints(tmp_path, resume=True)))
        for privacy, versions in ((fixed, 2), (ADAPTIVE, 5), (fixed, 6))
    ]
    assert told[0] == [30.0, 30.0]
    assert told[1][0] == 30.0 != told[1][1]
    assert told[2] == [30.0]


def test_versions_without_privacy_are_not_resumed(tmp_path: Path) -> None:
    train(moving_app(UPDATES), None, checkpoint=Checkpoints(tmp_path))
    with pytest.raises(CheckpointError, match="made without privacy"):
        walk(ADAPTIVE, 9, checkpoint=Checkpoints(tmp_path, resume=True))


# ---- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value", "allowed"),
    [
        ("quantile", 0.0, "must be a finite number above 0 and below 1"),
        ("quantile", 1.0, "must be a finite number above 0 and below 1"),
        ("learning_rate", -0.1, "must be a finite number at least 0 and at most 1"),
        ("learning_rate", 1.1, "must be a finite number at least 0 and at most 1"),
        ("count_noise", 1.0, "must be a finite number above 1"),
        ("count_noise", math.nan, "must be a finite number above 1"),
    ],
)
def test_impossible_settings(setting: str, value: float, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"^{setting} is {value}: {allowed}$"):
        AdaptiveClip(**{setting: value})


def test_what_is_no_adaptive_clip_is_refused() -> None:
    with pytest.raises(ValueError, match=r"adaptive is 0.5: must be AdaptiveClip\(\) or None"):
        CentralPrivacy(1.0, 1.0, adaptive=0.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword argument 'adaptive'"):
        LocalPrivacy(1.0, 1.0, adaptive=AdaptiveClip())  # type: ignore[call-arg]

"""Versions are private: what one node can change, the noise, epsilon, and the budget."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from strategies import (
    CentralPrivacy,
    Checkpoints,
    FedBuff,
    LocalPrivacy,
    Median,
    Polynomial,
    compression_mod,
    noise_multiplier_for,
    private_mod,
)
from strategies.arrays import BLOCK, to_record
from strategies.compression import Int8
from strategies.grids import InMemoryGrid
from strategies.ledger import Ledger
from strategies.merge import NoisyMean
from strategies.privacy import signal_to_noise
from strategies.result import MAX_EPSILON, NUM_ROUNDS, TIME_LIMIT
from tests.strategies.conftest import TrainOnly, make_linear_app
from tests.strategies.private_apps import (
    DELTA,
    MESSAGES,
    NODES,
    SIZE,
    composed,
    moving_app,
    steps_of,
    train,
)

# Compared with the others, updates of the last node would be rejected for those of the third.
UNEQUAL = np.array([1.0, 500.0, 0.5, -20_000.0])[:, None, None] * np.ones((1, MESSAGES, SIZE))

amounts = st.floats(-1e5, 1e5).map(lambda x: np.sign(x) * abs(x) ** 2 / 1e5)  # many small ones


@settings(deadline=None, max_examples=60)
@given(
    updates=hnp.arrays(float, (NODES, MESSAGES, SIZE), elements=amounts),
    others=hnp.arrays(float, (MESSAGES, SIZE), elements=amounts),
    node=st.integers(0, NODES - 1),
    clip=st.floats(0.01, 100.0),
    buffer_size=st.integers(1, NODES),
)
@example(updates=UNEQUAL, others=np.zeros((MESSAGES, SIZE)), node=2, clip=1.0, buffer_size=4)
def test_a_node_changes_a_version_by_its_clipped_share(
    updates: np.ndarray, others: np.ndarray, node: int, clip: float, buffer_size: int
) -> None:
    """Mutation: with the guard's comparison of norms, one node decides about those of others."""
    whole = steps_of(updates, clip, buffer_size)
    without, replaced = updates.copy(), updates.copy()
    without[node], replaced[node] = 0.0, others
    rounding = 1e-9 * np.abs(updates).max(initial=1.0)
    most = clip / buffer_size + rounding
    gone = steps_of(without, clip, buffer_size)
    assert len(gone) == len(whole) == 5
    assert np.linalg.norm(whole - gone, axis=1).max() <= most
    other = steps_of(replaced, clip, buffer_size)
    assert np.linalg.norm(whole - other, axis=1).max() <= 2 * most


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_noise_is_normal_with_the_standard_deviation_for_k(dtype: type) -> None:
    size = BLOCK + 5000  # in two blocks, each with its own noise
    made: list[np.ndarray] = [np.zeros(size, dtype)]
    train(
        moving_app(np.zeros((NODES, 1, 1))),
        CentralPrivacy(clip=0.5, noise_multiplier=2.0, seed=3),
        3,
        size=size,
        dtype=dtype,
        versions=3,
        on_version=lambda version, arrays, metrics: made.append(arrays["w"].numpy()),
    )
    noise = np.diff(np.array(made, float), axis=0)
    for of_version in noise:
        assert stats.kstest(of_version, "norm", args=(0.0, 2.0 * 0.5 / 3)).pvalue > 0.01
    assert np.abs(np.corrcoef(noise) - np.eye(3)).max() < 0.02
    assert abs(np.corrcoef(noise[0, :5000], noise[0, BLOCK:])[0, 1]) < 0.06


def test_the_noise_is_for_the_largest_weight() -> None:
    weights, deltas = np.array([0.6, 0.3, 0.1]), [np.zeros(20_000)] * 3
    merged = NoisyMean(2.0, np.random.default_rng(0))(deltas, weights)
    assert merged.std() == pytest.approx(2.0 * 0.6, rel=0.02)


def test_no_two_trainings_have_the_same_noise_unless_it_is_seeded() -> None:
    def final(seed: int | None) -> np.ndarray:
        privacy = CentralPrivacy(1.0, 1.0, seed=seed)
        return train(make_linear_app(), privacy, size=2).arrays["w"].numpy()

    assert np.all(final(None) != final(None))
    assert np.array_equal(final(7), final(7))
    assert np.all(final(7) != final(8))


def test_with_next_to_no_noise_and_a_wide_clip_it_is_the_plain_mean() -> None:
    app = make_linear_app()
    plain = train(app, None, size=2).arrays["w"].numpy()
    private = train(app, CentralPrivacy(1e3, 1e-12), size=2).arrays["w"].numpy()
    assert np.allclose(private, plain, atol=1e-6)
    clipped = train(app, CentralPrivacy(0.1, 1e-12), size=2, versions=1).arrays["w"].numpy()
    assert np.linalg.norm(clipped) <= 0.1 < np.linalg.norm(plain)


@settings(deadline=None, max_examples=20)
@given(local=st.booleans(), signal=st.floats(0.5, 20.0), seed=st.integers(0, 2**31))
def test_the_signal_to_noise_is_seen_in_what_is_released(
    local: bool, signal: float, seed: int
) -> None:
    """From norms with noise: nothing is said that the versions do not say themselves."""
    size, clip, multiplier = 4000, 1.0, 0.5
    privacy = (LocalPrivacy if local else CentralPrivacy)(clip, multiplier)
    weights = np.array([0.5, 0.3, 0.2])
    noise = multiplier * clip * (np.linalg.norm(weights) if local else weights.max())
    expected = privacy.noise_norm(weights, size)
    assert expected == pytest.approx(noise * np.sqrt(size))
    rng, delta = np.random.default_rng(seed), np.full(size, signal * noise)
    norms = [np.linalg.norm(delta + rng.normal(0, noise, size)) for _ in range(20)]
    assert signal_to_noise(norms, [expected] * 20) == pytest.approx(signal, rel=0.1)


@pytest.mark.parametrize("kind", [CentralPrivacy, LocalPrivacy])
def test_a_version_tells_how_large_its_noise_is(kind: type) -> None:
    """Mutation: the noise in units of another weight."""
    size = 5000
    seen: list[dict[str, Any]] = []
    mods = [private_mod(1.0, 2.0, seed=1)] if kind is LocalPrivacy else None
    train(
        moving_app(np.zeros((NODES, 1, 1)), mods),
        kind(1.0, 2.0),
        size=size,
        on_event=lambda event: seen.append(event) if event["event"] == "flush" else None,
    )
    for fields in seen:
        assert fields["noise_norm"] == pytest.approx(
            2.0 * np.sqrt(size / NODES**2 if kind is CentralPrivacy else size / NODES), rel=1e-3
        )
        assert fields["merged_norm"] == pytest.approx(fields["noise_norm"], rel=0.05)
    assert len(seen) == 5


# ---- accounting ------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(epsilon=st.floats(0.1, 200.0), releases=st.integers(1, 200))
def test_the_noise_for_an_epsilon_is_the_least_that_keeps_to_it(
    epsilon: float, releases: int
) -> None:
    noise = noise_multiplier_for(epsilon, releases, DELTA)
    assert composed({noise: releases}) <= epsilon < composed({noise * 0.998: releases})


@pytest.mark.parametrize(
    ("epsilon", "releases", "delta", "sentence"),
    [
        (0, 10, DELTA, "epsilon is 0: must be"),
        (1.0, 0, DELTA, "releases is 0: must be"),
        (1.0, 10, 2.0, "delta is 2"),
        (1e-9, 10, DELTA, "epsilon is 1e-09: must be between "),
    ],
)
def test_noise_that_cannot_be_computed_is_said(
    epsilon: float, releases: int, delta: float, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        noise_multiplier_for(epsilon, releases, delta)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.7, 1.0, 2.5]), st.sets(st.integers(0, 3), min_size=1)),
        max_size=12,
    )
)
def test_epsilon_composes_as_dp_accounting_says(releases: list[tuple[float, set[int]]]) -> None:
    """Also over a training that has resumed with other noise."""
    counts: dict[int, Counter[float]] = {member: Counter() for member in range(4)}
    state: dict[str, Any] = {"releases": 0, "spent": []}
    for noise_multiplier, members in releases:
        ledger = Ledger(noise_multiplier, DELTA, None)
        ledger.load(state)
        ledger.charge(members)
        state = ledger.state()
        for member in members:
            counts[member][noise_multiplier] += 1
        assert ledger.epsilon == pytest.approx(max(composed(c) for c in counts.values()))
        for member, held in counts.items():
            assert ledger.of(member) == pytest.approx(composed(held) if held else 0.0)


def test_epsilon_is_that_of_the_node_that_took_part_most_often() -> None:
    events: list[dict] = []
    result = train(
        make_linear_app(),
        CentralPrivacy(1.0, 1.5),
        2,
        size=2,
        versions=12,
        duration=lambda partition_id, _: 1.0 + partition_id,
        on_event=events.append,
    )
    counts: Counter[int] = Counter()
    flushes = [event for event in events if event["event"] == "flush"]
    for event in flushes:
        counts.update(event["members"])
        assert event["epsilon"] == pytest.approx(composed({1.5: max(counts.values())}))
        assert event["delta"] == DELTA
        assert event["protects"] == "all updates of a node, in the versions"
    assert min(counts.values()) < max(counts.values()) < 12
    assert result.privacy is not None
    assert result.privacy.epsilon == flushes[-1]["epsilon"]
    assert [metrics["privacy-epsilon"] for metrics in result.train_metrics_clientapp.values()] == [
        event["epsilon"] for event in flushes
    ]
    assert "all updates of a node" in repr(result)


@pytest.mark.parametrize("most", [1, 2, 5])
def test_the_version_that_would_pass_the_budget_is_not_made(most: int) -> None:
    """Mutation: without the check, all 20 versions are made."""
    events: list[dict] = []
    budget = composed({1.0: most}) + 1e-6
    privacy = CentralPrivacy(1.0, 1.0, max_epsilon=budget)
    result = train(make_linear_app(), privacy, size=2, versions=20, on_event=events.append)
    assert (result.versions, result.ended_by) == (most, MAX_EPSILON)
    assert result.privacy is not None
    assert result.privacy.epsilon == pytest.approx(composed({1.0: most}))
    (event,) = [event for event in events if event["event"] == "budget"]
    assert event["max_epsilon"] == budget >= event["epsilon"]


@settings(deadline=None, max_examples=20)
@given(budget=st.floats(0.5, 30.0), slowest=st.floats(1.0, 9.0), buffer_size=st.integers(1, NODES))
def test_the_budget_is_never_passed(budget: float, slowest: float, buffer_size: int) -> None:
    counts: Counter[int] = Counter()
    result = train(
        make_linear_app(),
        CentralPrivacy(1.0, 2.0, max_epsilon=budget),
        buffer_size,
        size=2,
        versions=25,
        duration=lambda partition_id, _: slowest if partition_id == 0 else 1.0,
        on_event=lambda event: counts.update(event.get("members", ())),
    )
    assert result.privacy is not None
    assert result.privacy.epsilon <= budget
    if counts:
        assert composed({2.0: max(counts.values())}) <= budget
    assert result.ended_by in (MAX_EPSILON, NUM_ROUNDS)
    if result.ended_by == MAX_EPSILON:
        assert composed({2.0: max(counts.values(), default=0) + 1}) > budget


def test_the_budget_holds_for_the_version_at_the_time_limit() -> None:
    budget = composed({1.0: 1})
    duration = {0: 1.0, 1: 1.0, 2: 100.0, 3: 100.0}
    made = train(
        make_linear_app(),
        CentralPrivacy(1.0, 1.0, max_epsilon=budget + 1e-6),
        2,
        size=2,
        duration=lambda partition_id, _: duration[partition_id],
        refill="reply",
        time_limit=1.5,
        versions=9,
    )
    assert (made.versions, made.ended_by) == (1, TIME_LIMIT)


# ---- what is refused -------------------------------------------------------------------------


def test_what_is_not_private_is_refused() -> None:
    privacy = CentralPrivacy(1.0, 1.0)
    with pytest.raises(ValueError, match="weighted_by_key is 'num-examples': must be None"):
        TrainOnly(privacy=privacy)
    with pytest.raises(ValueError, match=r"merge is Median\(\): must be Mean\(\)"):
        TrainOnly(privacy=privacy, weighted_by_key=None, merge=Median())
    strategy = TrainOnly(privacy=privacy, weighted_by_key=None)
    grid, start = InMemoryGrid(make_linear_app(), 2), to_record({"w": np.zeros(2)})
    with pytest.raises(RuntimeError, match=r"by start\(\) alone"):
        list(strategy.configure_train(1, start, ConfigRecord(), grid))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("clip", 0.0),
        ("clip", np.inf),
        ("noise_multiplier", 0.0),
        ("max_epsilon", 0.0),
        ("delta", 1.0),
        ("seed", -1),
    ],
)
def test_impossible_settings(setting: str, value: float) -> None:
    good = {"clip": 1.0, "noise_multiplier": 1.0}
    with pytest.raises(ValueError, match=setting):
        CentralPrivacy(**{**good, setting: value})
    if setting != "seed":
        with pytest.raises(ValueError, match=setting):
            LocalPrivacy(**{**good, setting: value})


def test_fedbuff_may_discount_stale_updates() -> None:
    """Its weights are at most 1/K and depend on no data."""
    strategy = FedBuff(2, privacy=CentralPrivacy(1.0, 1.0), fraction_evaluate=0.0)
    assert isinstance(strategy.staleness, Polynomial)
    grid = InMemoryGrid(make_linear_app(), NODES, duration=lambda i, _: 1.0 + i)
    result = strategy.start(grid, to_record({"w": np.zeros(2)}), num_rounds=6)
    assert result.versions == 6


# ---- local -----------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
def test_local_privacy_counts_each_message(compressed: bool) -> None:
    events: list[dict] = []
    mods = [private_mod(1.0, 4.0, seed=0)]
    compression = Int8() if compressed else None
    if compression is not None:
        mods.insert(0, compression_mod(compression))
    result = train(
        moving_app(np.ones((NODES, 1, SIZE)), mods),
        LocalPrivacy(1.0, 4.0),
        2,
        versions=8,
        duration=lambda partition_id, _: 1.0 + partition_id,
        compression=compression,
        on_event=events.append,
    )
    sent = Counter(e["node"] for e in events if e["event"] == "dispatch")
    assert result.privacy is not None
    assert result.privacy.protects == "all updates of a node, as they leave it"
    # Two updates are at most twice the clip apart.
    assert result.privacy.epsilon == pytest.approx(composed({2.0: max(sent.values())}))
    last = [event for event in events if event["event"] == "flush"][-1]
    assert last["message_epsilon"] == pytest.approx(composed({2.0: 1}))


def test_no_message_is_sent_that_would_pass_the_budget() -> None:
    events: list[dict] = []
    result = train(
        moving_app(np.ones((NODES, 1, SIZE)), [private_mod(1.0, 4.0)]),
        LocalPrivacy(1.0, 4.0, max_epsilon=composed({2.0: 3}) + 1e-6),
        2,
        versions=50,
        duration=lambda partition_id, _: 1.0 + partition_id,
        on_event=events.append,
    )
    sent = Counter(e["node"] for e in events if e["event"] == "dispatch")
    assert max(sent.values()) == 3
    assert result.ended_by == MAX_EPSILON


def test_a_lost_message_counts_too(tmp_path: Path) -> None:
    """Also one that a server has sent before it was killed."""
    settings = {"privacy": LocalPrivacy(1.0, 4.0)}
    app = moving_app(np.ones((NODES, 1, SIZE)), [private_mod(1.0, 4.0)])

    class Forgetful(InMemoryGrid):
        save_state = None

    for versions in (3, 6):
        strategy = TrainOnly(
            1.0,
            weighted_by_key=None,
            checkpoint=Checkpoints(tmp_path, resume=True, every=2),
            **settings,
        )
        result = strategy.start(
            Forgetful(app, NODES), to_record({"w": np.zeros(SIZE)}), num_rounds=versions
        )
    # Version 3 is in no checkpoint and is made again.
    assert result.privacy is not None
    assert result.privacy.epsilon == pytest.approx(composed({2.0: 3 + 4}))


@pytest.mark.parametrize(
    ("mods", "reason"),
    [
        ([], "are None and None: must be 1 and at least 4"),
        ([private_mod(2.0, 4.0)], "are 2.0 and 4.0: must be 1 and at least 4"),
        ([private_mod(1.0, 3.0)], "are 1.0 and 3.0: must be 1 and at least 4"),
    ],
)
def test_replies_without_the_noise_are_rejected(mods: list, reason: str) -> None:
    events: list[dict] = []
    result = train(
        moving_app(np.ones((NODES, 1, SIZE)), mods),
        LocalPrivacy(1.0, 4.0),
        time_limit=5.0,
        on_event=events.append,
    )
    assert result.versions == 0
    rejected = [event for event in events if event["event"] == "reject"]
    assert rejected
    assert {event["check"] for event in rejected} == {"privacy"}
    assert all(reason in event["reason"] for event in rejected)

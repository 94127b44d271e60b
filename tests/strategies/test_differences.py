"""Differences of updates, computed in blocks: the same values as at once, and little memory."""

import tracemalloc

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from strategies import SGD, Guard, Mean, Median, NormFiltered, TrimmedMean, arrays
from strategies.arrays import Layout, blocks, to_record
from strategies.buffer import Buffer, Update
from strategies.differences import ArraysDifference, norm_of
from strategies.flights import Flight
from strategies.flower_internals import set_identity
from strategies.merge import merge_weights
from strategies.versions import Versions

SIZES = st.lists(st.integers(0, 40), max_size=8)


@given(sizes=SIZES, most=st.integers(1, 50))
def test_blocks_cover_every_value_once(sizes: list[int], most: int) -> None:
    ends = np.cumsum([0, *sizes])
    places = {f"{k:02d}": slice(int(ends[k]), int(ends[k + 1])) for k in range(len(sizes))}
    found = list(blocks(places, int(ends[-1]), most))
    assert all(0 < block.size <= most for block in found)
    covered = []
    for block in found:
        assert sum(place.stop - place.start for _, _, place in block.parts) == block.size
        for name, values, place in block.parts:
            first = places[name].start + values.start
            assert first == block.place.start + place.start
            covered += range(first, places[name].start + values.stop)
    assert covered == list(range(ends[-1]))


def updates_of(
    layout: Layout, trained: list[dict[str, np.ndarray]], base: np.ndarray, scale: float
) -> list[Update]:
    guard = Guard()
    guard.begin(layout, "arrays", None)
    reply = Message.__new__(Message)
    found = []
    for m, each in enumerate(trained):
        difference, norm = guard.check_arrays(each, base)
        flight = Flight(str(m), m, m, 0, 0.0, 60.0)
        found.append(Update(reply, flight, 1.0 + m, difference, {}, 0.0, norm, scale))
    return found


@pytest.mark.parametrize(
    "rule", [Mean(), TrimmedMean(), Median(), NormFiltered(), lambda deltas, w: w @ deltas]
)
@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize("relative", [False, True])
def test_a_version_is_the_same_in_blocks_of_any_size(
    rule: object, block: int, relative: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    shapes = {"b": (3, 5), "a": (4,), "empty": (0,), "c": ()}
    start = {n: np.asarray(rng.normal(size=s), np.float32) for n, s in shapes.items()}
    trained = [
        {n: np.asarray(v + rng.normal(size=v.shape), np.float32) for n, v in start.items()}
        for _ in range(6)
    ]
    trained[0]["b"] = np.asfortranarray(trained[0]["b"])
    monkeypatch.setattr(arrays, "BLOCK", block)
    versions = Versions(to_record(start))
    base = versions.bases[0]
    updates = updates_of(versions.layout, trained, base, 0.5)
    versions.newest, versions.bases[1] = 1, base + np.float32(0.25)
    weights = merge_weights([u.steps for u in updates], [1.0] * len(updates))
    merged = versions.merge(updates, weights, rule, SGD(), relative)
    assert merged is not None

    flat = versions.layout.flatten
    deltas = [0.5 * (flat(each).astype(float) - base) for each in trained]
    if relative:
        deltas = [delta + (base - versions.bases[1].astype(float)) for delta in deltas]
    expected = versions.bases[1].astype(float) + np.asarray(rule(deltas, weights))
    got = flat({name: array.numpy() for name, array in merged.items()})
    np.testing.assert_array_equal(got, expected.astype(np.float32))


@pytest.mark.parametrize(
    ("dtype", "far"), [(np.float32, 1e30), (np.float64, 1e30), (np.float16, 6e4), (np.int32, 2e9)]
)
def test_a_norm_does_not_overflow_before_the_limit(dtype: type, far: float) -> None:
    trained, start = {"w": np.full(4, far, dtype)}, {"w": np.full(4, -far, dtype)}
    layout = Layout(trained)
    difference = ArraysDifference(layout, trained, layout.flatten(start))
    exact = 2 * float(np.linalg.norm(trained["w"].astype(float)))
    assert norm_of(difference, layout) == pytest.approx(exact, rel=1e-6)


def test_a_buffered_update_takes_little_more_than_its_reply() -> None:
    """At most 1.5 times the model for each, from the first reply to the version."""
    set_identity(run_id=1, node_id=1, task_id=1)
    size, k = 400_000, 20
    start = {"w": np.zeros(size, np.float32)}
    metrics = MetricRecord({"num-examples": 10})

    def peak(count: int) -> float:
        versions, guard, buffer = Versions(to_record(start)), Guard(), Buffer()
        guard.begin(versions.layout, "arrays", "num-examples")
        tracemalloc.start()
        for m in range(count):
            trained = to_record({"w": np.full(size, m, np.float32)})
            reply = Message(RecordDict({"arrays": trained, "metrics": metrics}), 1, "train")
            buffer.put(guard.check(reply, Flight(str(m), m, m, 0, 0.0, 60.0), versions.bases[0], 0))
        buffer.bound(10.0, guard.most_norm)
        weights = merge_weights([1.0] * count, [1.0] * count)
        assert versions.merge(buffer.in_order(), weights, Mean(), SGD(), False) is not None
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    per_update = (peak(2 * k) - peak(k)) / k
    assert per_update <= 1.5 * size * 4

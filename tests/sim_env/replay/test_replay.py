"""A replay survives its file, and its page needs nothing else."""

import base64
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sim_env.engine.observation import Observation
from sim_env.network.failures import DynamicsSpec, Outage
from sim_env.policies.heuristics import POLICIES
from sim_env.replay.files import (
    MOST_TASKS,
    Replay,
    from_columns,
    load_replay,
    record_policies,
    save_replay,
    to_columns,
)
from sim_env.replay.frames import frames, save_gif
from sim_env.replay.page import replay_page
from sim_env.scenario import Scenario, ScenarioSpec


def even(seen: Observation) -> tuple[np.ndarray, None]:
    """Score all legal actions alike."""
    return seen.mask / seen.mask.sum(axis=1, keepdims=True), None


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return Scenario(ScenarioSpec(dynamics=DynamicsSpec(nodes={"rpi_0": [Outage(2.0, 5.0)]})))


@pytest.fixture(scope="module")
def replay(scenario: Scenario) -> Replay:
    """Return a short replay of two policies."""
    policies = {"random": POLICIES["random"], "lq": POLICIES["lq"]}
    return record_policies(scenario, policies, 3, warmup=20, window=150, scores={"random": even})


def test_a_file_holds_all_of_it(replay: Replay, tmp_path: Path) -> None:
    path = tmp_path / "replay.npz"
    save_replay(replay, path)
    again = load_replay(path)
    assert again.network == json.loads(json.dumps(replay.network))
    for one, other in zip(again.recordings, replay.recordings, strict=True):
        assert one.cohort() == other.cohort()
        np.testing.assert_array_equal(one.lengths(23), other.lengths(23))
        np.testing.assert_array_equal(one.nodes, other.nodes)
        assert (one.decisions is None) == (other.decisions is None)
    first, second = again.recordings[0].decisions, replay.recordings[0].decisions
    assert first is not None
    assert second is not None
    for name in first._fields:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("content", [b"", b"PK\3\4 not really", b'{"header": 1}'])
def test_a_file_that_is_no_replay_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "replay.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"replay.npz' cannot be read as a replay"):
        load_replay(path)


def test_columns_are_the_events(replay: Replay) -> None:
    events = replay.recordings[0].events
    again = from_columns(to_columns(events))
    order = np.lexsort((np.arange(len(events)), events[:, 2]))
    np.testing.assert_array_equal(again[np.argsort(again[:, 2], kind="stable")], events[order])
    assert (np.diff(again[:, 0]) >= 0).all()


def test_a_page_has_the_numbers_and_no_address(replay: Replay) -> None:
    page = replay_page(replay, "a <network>", {"random": "any & all"})
    assert "a &lt;network&gt;" in page
    assert "any &amp; all" in page
    assert not re.search(r"https?://|src=|@import|url\(", page)
    data = re.search(r'class="data">(.*?)</script>', page, re.S)
    assert data is not None
    values = json.loads(data[1])
    assert values["network"]["names"][0] == "rpi_0"
    packed = values["recordings"][1]["arrays"]["events"][1]
    planes = np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8)
    kinds = np.ascontiguousarray(planes.reshape(4, -1).T).view("<i4")[:, 0]
    np.testing.assert_array_equal(kinds, to_columns(replay.recordings[1].events)[1])


def test_recordings_of_very_many_tasks_end_early(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sim_env.replay.files.MOST_TASKS", 200)
    assert MOST_TASKS > 200
    short = record_policies(scenario, {"lq": POLICIES["lq"]}, 3, warmup=0, window=2000)
    assert not short.recordings[0].complete
    assert short.recordings[0].counts(10**6)["born"] == pytest.approx(200, rel=0.5)


def test_frames_show_the_recorded_queues(scenario: Scenario, replay: Replay) -> None:
    titled = [(each.policy, each) for each in replay.recordings]
    one = next(frames(scenario.topology, titled[:1], 0.1, [3.0]))
    both = next(frames(scenario.topology, titled, 0.1, [3.0]))
    assert one.shape == (700, 1000, 3)
    assert both.shape == (350, 1000, 3)
    before, after = frames(scenario.topology, titled[:1], 0.1, [0.0, 15.0])
    assert (before != after).any()


def test_a_gif_has_every_frame(scenario: Scenario, replay: Replay, tmp_path: Path) -> None:
    titled = [(each.policy, each) for each in replay.recordings]
    save_gif(frames(scenario.topology, titled, 0.1, [1.0, 2.0, 3.0]), tmp_path / "a.gif", 10.0)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 3


def test_flights_go_between_neighbours(scenario: Scenario, replay: Replay) -> None:
    for recording in replay.recordings:
        flights = recording.flights()
        assert len(flights) > 20
        assert (flights[:, 1] > flights[:, 0]).all()
        for _, _, sender, destination in flights.tolist():
            assert destination in scenario.topology.neighbours[sender]

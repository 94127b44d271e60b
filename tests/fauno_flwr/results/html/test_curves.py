"""Curves of the nodes, and messages, from events."""

import numpy as np
import pytest

from fauno_flwr.results.html.curves import (
    axes_of,
    evaluations,
    mean_curves,
    natural,
    node_curves,
)


def reply(name: str, version: int, t: float, **metrics: object) -> dict:
    return {"event": "reply", "name": name, "version": version, "t": t, "metrics": metrics}


EVENTS = [
    reply("rpi_10", 0, 2.0, reward=1.0, messages=1),
    reply("rpi_2", 0, 1.0, reward=3.0, entropy=0.5),
    reply("rpi_2", 1, 4.0, reward=None, entropy=0.25),
    {"event": "reply", "name": "rpi_2", "version": 1, "t": 5.0},
]
ROWS = [
    {"version": 1, "time/wall": 10.0, "time/virtual": 2.0, "time/total_timesteps": 100},
    {"version": 2, "time/wall": 30.0, "time/virtual": 4.0, "time/total_timesteps": 200},
]


def test_replies_are_sorted_by_node_and_lack_what_they_lack() -> None:
    curves = node_curves(EVENTS, ROWS)
    assert curves.names == ["rpi_2", "rpi_10"]
    assert curves.first.tolist() == [0, 2, 3]
    assert list(curves.metrics) == ["reward", "entropy"]  # neither bookkeeping nor what is missing
    np.testing.assert_array_equal(curves.metrics["reward"], [3.0, np.nan, 1.0])
    np.testing.assert_array_equal(curves.metrics["entropy"], [0.5, 0.25, np.nan])


def test_other_times_are_interpolated_between_versions() -> None:
    axes = axes_of(np.array([0, 0, 1]), np.array([1.0, 3.0, 9.0]), ROWS)
    assert axes["wall"].tolist() == [5.0, 20.0, 30.0]
    assert axes["decisions"].tolist() == [50.0, 150.0, 200.0]
    rows = [{key: value for key, value in row.items() if "virtual" not in key} for row in ROWS]
    assert set(axes_of(np.array([0]), np.array([1.0]), rows)) == {"version", "clock", "decisions"}
    assert set(axes_of(np.array([0]), np.array([1.0]), [])) == {"version", "clock"}


def test_the_mean_is_over_the_replies_of_a_version() -> None:
    means = mean_curves(node_curves(EVENTS, ROWS))
    assert means.axes["version"].tolist() == [0, 1]
    assert means.axes["clock"].tolist() == [1.5, 4.0]
    assert means.replies.tolist() == [2, 1]
    middle, low, high = means.metrics["reward"]
    assert middle[0] == 2.0
    assert (low[0], high[0]) == pytest.approx((1.2, 2.8))
    assert np.isnan(middle[1])


def test_evaluations_are_in_percent_and_only_where_there_are_some() -> None:
    rows = [ROWS[0], {**ROWS[1], "eval/finished_ratio": 0.5, "eval/other": None}]
    found = evaluations(rows)
    assert list(found) == ["eval/finished_ratio"]
    assert found["eval/finished_ratio"]["value"].tolist() == [50.0]
    assert found["eval/finished_ratio"]["wall"].tolist() == [30.0]


def test_names_are_sorted_as_people_do() -> None:
    names = ["rpi_10", "server", "rpi_2", "nuc_1"]
    assert sorted(names, key=natural) == ["nuc_1", "rpi_2", "rpi_10", "server"]

"""Requests that do not fit into the memory, and the accuracy of the estimates."""

import numpy as np
import pytest

from sim_env import memory
from sim_env.engine.state import new_state
from sim_env.errors import require_seeds
from sim_env.network.topology import TopologySpec
from sim_env.scenario import PhysicsSpec, Quirks, Scenario, ScenarioSpec


def test_available_memory_is_that_of_this_machine() -> None:
    assert 1e6 < memory.available_memory() < 1e15


@pytest.mark.parametrize(
    "spec",
    [
        ScenarioSpec(),
        ScenarioSpec(topology=TopologySpec(kind="grid", nodes=5000)),
        ScenarioSpec(physics=PhysicsSpec(information_delay=500)),
        ScenarioSpec(
            topology=TopologySpec(kind="full", nodes=300),
            physics=PhysicsSpec(quirks=Quirks(serve_neighbours=True)),
        ),
        ScenarioSpec(physics=PhysicsSpec(quirks=Quirks(tick_order="random"))),
    ],
)
@pytest.mark.parametrize(("worlds", "tasks"), [(1, 512), (8, 512), (8, 2**16)])
def test_the_estimate_of_worlds_is_a_little_above_what_they_take(
    spec: ScenarioSpec, worlds: int, tasks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Scenario(spec).net
    state = new_state(net, np.arange(worlds, dtype=np.uint64), tasks, 1.0)
    taken = sum(array.nbytes for array in state)
    slots, streams = len(net.neighbour), int(net.streams[-1])
    sizes = (worlds, len(net.speed), slots, streams, net.information_delay, tasks)
    monkeypatch.setattr(memory, "available_memory", lambda: 2.0 * taken)
    memory.require_worlds(*sizes)
    monkeypatch.setattr(memory, "available_memory", lambda: 0.99 * taken)
    with pytest.raises(ValueError, match=rf"{worlds} worlds of .* room for {tasks:,} tasks, needs"):
        memory.require_worlds(*sizes)


@pytest.mark.parametrize(
    "seeds", [[0], range(3), np.arange(4), (2**64 - 1,), np.array([5], np.uint64)]
)
def test_seeds_are_whole_numbers(seeds: object) -> None:
    assert require_seeds(seeds).tolist() == list(seeds)  # type: ignore[call-overload]
    assert require_seeds(seeds).dtype == np.uint64


@pytest.mark.parametrize(
    ("seeds", "sentence"),
    [
        ([], r"seeds are \[\]: must be at least one whole number"),
        (3, "seeds are 3"),
        (None, "seeds are None"),
        (np.array(3), r"seeds are array\(3\)"),
        ("ab", "seed is 'a'"),
        ([1, -1], r"seed is -1: .* from 0 to 2\^64 - 1"),
        ([1.5], "seed is 1.5"),
        ([float("nan")], "seed is nan"),
        ([2**64], "seed is 18446744073709551616"),
        ([[1, 2], [3]], r"seed is \[1, 2\]"),
    ],
)
def test_seeds_that_cannot_be(seeds: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        require_seeds(seeds)

"""Arrivals: rates that change with time and between sources."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fauno_flwr.config.loading import choices, load_config
from sim_env.network.topology import TopologySpec, build_topology
from sim_env.policies.heuristics import POLICIES
from sim_env.scenario import Scenario, ScenarioSpec
from sim_env.workload.schedule import Step
from sim_env.workload.workload import (
    Schedule,
    WorkloadSpec,
    build_jobs,
    multipliers,
    rates_per_tick,
    source_rates,
)
from sim_env.world import World


@pytest.mark.parametrize("name", choices("workload"))
def test_every_workload_makes_a_scenario_with_the_load_it_states(name: str) -> None:
    scenario = load_config("ether2", [f"workload={name}"]).build_scenario()
    assert 0.05 < scenario.rho < 1
    assert scenario.net.arrivals.sum() > 0


def test_work_scale_multiplies_the_instructions_only() -> None:
    once, tenth = (build_jobs(WorkloadSpec(jobs="light", work_scale=s)) for s in (1.0, 0.1))
    assert tenth.instructions == pytest.approx(once.instructions / 10)
    assert np.array_equal(tenth.input_bits, once.input_bits)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sources.csv"
    path.write_text(text)
    return path


def at_slots(schedule: Schedule, slots: int) -> list[float]:
    """Return the multiplier in the middle of each slot."""
    return multipliers(schedule, slots * 10, schedule.slot / 10)[5::10].tolist()


def test_schedules_of_the_original() -> None:
    assert at_slots(Schedule(), 3) == [1, 1, 1]
    assert at_slots(Schedule(kind="linear"), 12) == [*range(1, 11), 10, 10]
    up = list(range(1, 11))
    assert at_slots(Schedule(kind="zigzag"), 32) == [*up, *up[::-1], *up, 10, 9]
    uniform = at_slots(Schedule(kind="uniform", seed=3), 500)
    assert at_slots(Schedule(kind="uniform", seed=3), 500) == uniform
    assert len(set(uniform)) == 500
    assert 1 <= min(uniform) < 1.2
    assert 9.8 < max(uniform) < 10


def test_schedules_stay_between_their_ends() -> None:
    zigzag = at_slots(Schedule(kind="zigzag", low=0.5, high=2.2, step=0.8), 8)
    assert zigzag == pytest.approx([0.5, 1.3, 2.1, 2.2, 1.4, 0.6, 0.5, 1.3])
    assert at_slots(Schedule(kind="linear", low=0.5, high=1, step=9), 3) == [0.5, 1, 1]


def test_steps_last_as_long_as_they_say_and_the_last_one_stays() -> None:
    schedule = Schedule(kind="steps", steps=[Step(1, 0.3), Step(2.5, 0.7), Step(0, 1)])
    assert multipliers(schedule, 15, 0.1).tolist() == [1.0] * 3 + [2.5] * 7 + [0.0] * 5


@given(st.sampled_from(["linear", "zigzag", "uniform"]), st.integers(1, 40), st.integers(0, 500))
def test_a_change_comes_with_the_first_tick_of_a_slot(kind: str, ticks: int, count: int) -> None:
    schedule = Schedule(kind=kind, slot=ticks * 0.1)
    values = multipliers(schedule, count, 0.1)
    assert values.shape == (count,)
    changes = np.flatnonzero(np.diff(values)) + 1
    assert not np.any(changes % ticks)


def test_rates_per_tick_are_tasks() -> None:
    spec = WorkloadSpec(rate=2.0, schedule=Schedule(kind="steps", steps=[Step(1, 1), Step(3, 1)]))
    assert rates_per_tick(spec, 20, 0.1) == pytest.approx([0.2] * 10 + [0.6] * 10)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"kind": "zig"}, "schedule.kind is 'zig': must be one of"),
        ({"low": float("nan")}, "schedule.low is nan"),
        ({"high": float("nan")}, "schedule.high is nan"),
        ({"slot": 1e-300}, "schedule.slot is 1e-300: must be a finite number at least 0.01"),
        ({"seed": 1.5}, "schedule.seed is 1.5: must be a whole number"),
        ({"steps": None}, "schedule.steps is None: must be a list of steps, such as"),
        ({"steps": "1-100"}, "schedule.steps is '1-100': must be a list of steps, such as"),
        ({"steps": [Step(1, np.nan)]}, r"steps\[0\]: seconds is nan: must be"),
        ({"low": 5.0, "high": 2.0}, "schedule.high is 2.0: must be a finite number"),
        ({"slot": 0.0}, "schedule.slot is 0.0"),
        ({"kind": "steps"}, r"schedule.steps is \[\]: must have at least one step"),
        ({"steps": [Step(1, 2), 3]}, r"steps\[1\] is 3: must be a Step"),
        ({"steps": [Step(1, 0)]}, r"steps\[0\]: seconds is 0: must be"),
        ({"steps": [Step(-1, 5)]}, r"steps\[0\]: multiplier is -1: must be"),
        ({"steps": [Step(1, 5), Step(np.nan, 5)]}, r"steps\[1\]: multiplier is nan: must be"),
        ({"kind": "steps", "steps": [Step(0, 5)]}, "must have a multiplier above 0"),
    ],
)
def test_schedules_that_cannot_be(changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Schedule(**changes)


def test_the_last_key_that_fits_a_source_counts() -> None:
    topology = build_topology(TopologySpec(clusters=1))
    spec = WorkloadSpec(rate=2.0, source_rates={"rpi": 1.0, "rpi_[12]": 3.0, "rpi_2": 0.0})
    rates = dict(zip(topology.names, source_rates(spec, topology), strict=True))
    assert rates == {
        **dict.fromkeys(topology.names, 0.0),
        **{"rpi_0": 1.0, "rpi_1": 3.0, "rpi_3": 1.0},
    }
    net = Scenario(ScenarioSpec(workload=spec), topology=topology).net
    assert net.arrivals == pytest.approx(source_rates(spec, topology) * 0.1)


def test_named_sources_replace_those_of_the_network(tmp_path: Path) -> None:
    topology = build_topology(TopologySpec(clusters=1))
    path = write(tmp_path, "rate,node\n3,nuc_0\n,server_0\n0,rpi_1\n")
    rates = source_rates(WorkloadSpec(sources=str(path), rate=5.0), topology)
    found = dict(zip(topology.names, rates.tolist(), strict=True))
    assert {name: rate for name, rate in found.items() if rate} == {"nuc_0": 3, "server_0": 5}
    spec = ScenarioSpec(workload=WorkloadSpec(sources=str(path)))
    assert Scenario(spec, topology=topology).net.arrivals == pytest.approx(
        source_rates(spec.workload, topology) * 0.1
    )


@pytest.mark.parametrize(
    ("text", "changes", "sentence"),
    [
        ("node,rate\nrpi_99,1\n", {}, r"line 2: column node is 'rpi_99': must be a node of the"),
        ("node,rate\nrpi_9x,1\n", {}, r"did you mean rpi_\d\?"),
        ("node,rate\nrpi_0,1\nrpi_0,1\n", {}, "line 3: column node is 'rpi_0' again"),
        ("node,rate\nrpi_0,-1\n", {}, "column rate is -1.0: must be a finite number at least 0"),
        ("node,rate\nrpi_0,1e6\n", {}, "at most 100000"),
        ("node,rate\nrpi_0,0\n", {}, "must have a node with a rate above 0"),
        ("node\n", {}, "must have a node with a rate above 0"),
        ("nod\nrpi_0\n", {}, "column 1 is 'nod': .*did you mean node"),
        ("node,rate\nrpi_0,1\n", {"rate": 4.0}, "workload.rate is 4.0: must be 2.0, the default"),
        ("", {"path": "/none.csv"}, r"cannot be read \(No such file"),
    ],
)
def test_sources_that_cannot_be(tmp_path: Path, text: str, changes: dict, sentence: str) -> None:
    path = changes.pop("path", str(write(tmp_path, text)))
    with pytest.raises(ValueError, match=rf"^[^\n]*{sentence}[^\n]*$"):
        Scenario(ScenarioSpec(workload=WorkloadSpec(sources=path, **changes)))


def test_sources_by_file_and_by_setting_exclude_each_other() -> None:
    with pytest.raises(ValueError, match=r"source_rates is \{'rpi': 1.0\}: must be left out with"):
        WorkloadSpec(sources="sources.csv", source_rates={"rpi": 1.0})


@pytest.mark.parametrize(
    ("rates", "sentence"),
    [
        (
            {"nuc_0": 1.0},
            r"source_rates.nuc_0 is 1.0: must be for a source of this network \(rpi_0",
        ),
        ({"rpi": 0.0}, "source_rates are all 0"),
    ],
)
def test_source_rates_that_cannot_be(rates: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Scenario(ScenarioSpec(workload=WorkloadSpec(source_rates=rates)))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rate": 0}, r"workload.rate is 0: must be a finite number above 0"),
        ({"rate": float("nan")}, "workload.rate is nan"),
        ({"rate": 1e6}, "workload.rate is 1000000.0: .* at most 100000"),
        ({"work_scale": 0}, "workload.work_scale is 0"),
        ({"source_rates": {"rpi": -1}}, "workload.source_rates.rpi is -1: must be"),
        ({"source_rates": {"rpi": float("nan")}}, "workload.source_rates.rpi is nan"),
        ({"source_rates": {"rpi": 1e300}}, r"source_rates.rpi is 1e\+300: .* at most 100000"),
        ({"source_rates": [1]}, r"workload.source_rates is \[1\]: must be a mapping"),
        ({"source_rates": {3: 1.0}}, "key of workload.source_rates is 3"),
        ({"deadline_factors": {"rpi": 0.0}}, "workload.deadline_factors.rpi is 0.0: must be"),
        (
            {"deadline_factors": {"rpi": 1e6}},
            r"deadline_max times the largest of workload.deadline_factors is .* at most 1e\+07",
        ),
        (
            {"deadline_min": 0, "deadline_max": 0, "deadline_factors": {"rpi": 2.0}},
            r"deadline_factors is \{'rpi': 2.0\}: has no effect with workload.deadline_max=0",
        ),
        ({"deadline_min": 5, "deadline_max": 1}, "deadline_max is 1: .* at least 5"),
        ({"deadline_max": 1e12}, r"deadline_max is 1000000000000.0: .* at most 1e\+07"),
        ({"schedule": "zigzag"}, "workload.schedule is 'zigzag': must be a Schedule"),
        (
            {"schedule": Schedule("steps", steps=[Step(1e300, 5)])},
            r"largest rate of workload times the highest multiplier .* is 2e\+300: must be",
        ),
        ({"schedule": Schedule("linear", high=1e5), "rate": 2}, "is 200000.0: must be"),
        ({"jobs": "types", "types": None}, "workload.types is None: must be a list"),
        ({"jobs": "file", "path": 3}, "workload.path is 3: must be the path of a file"),
    ],
)
def test_workloads_that_cannot_be(changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        WorkloadSpec(**changes)


def test_highest_is_the_largest_multiplier() -> None:
    for schedule in (
        Schedule(),
        Schedule("linear", high=3),
        Schedule("zigzag", high=3.5),
        Schedule("uniform", seed=1),
        Schedule("steps", steps=[Step(1, 2), Step(7, 1), Step(0, 1)]),
    ):
        values = multipliers(schedule, 20_000, 1.0)
        assert schedule.highest * 0.95 <= values.max() <= schedule.highest


@given(
    kind=st.sampled_from(["constant", "linear", "zigzag", "uniform", "steps"]),
    start=st.integers(0, 400),
    ticks=st.integers(1, 300),
)
def test_multipliers_from_a_later_tick_on_are_a_part_of_all(
    kind: str, start: int, ticks: int
) -> None:
    steps = {"steps": [Step(1, 3), Step(2, 9), Step(0.5, 1)]}
    slots = {"low": 1.0, "high": 4.0, "slot": 0.7}
    schedule = Schedule(kind, **{"constant": {}, "steps": steps}.get(kind, slots))
    whole = multipliers(schedule, start + ticks, 0.1)
    assert multipliers(schedule, ticks, 0.1, start).tolist() == whole[start:].tolist()


def test_an_old_world_does_not_remember_all_of_its_schedule() -> None:
    spec = ScenarioSpec(TopologySpec(), WorkloadSpec(schedule=Schedule("zigzag", slot=0.5)))
    old, young = (World(Scenario(spec), [3]) for _ in range(2))
    old.now = 10**7
    assert len(old._factors_of(old.now, 100)) == 100
    assert len(old._factors) <= 2**17
    young.run(POLICIES["sed"], 200_000, np.random.default_rng(0))
    assert len(young._factors) <= 2**18

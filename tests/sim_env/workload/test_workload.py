"""Arrivals: tables of jobs, files, rates that change with time and between sources."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from fauno_flwr.config.loading import choices, load_config
from sim_env.network.topology import TopologySpec, build_topology
from sim_env.policies.heuristics import POLICIES
from sim_env.scenario import Scenario, ScenarioSpec
from sim_env.workload.jobs import MEGABYTE, alibaba_jobs, rows_by_weight
from sim_env.workload.schedule import Step
from sim_env.workload.workload import (
    JobTable,
    Schedule,
    TaskType,
    WorkloadSpec,
    build_jobs,
    multipliers,
    rates_per_tick,
    read_jobs,
    source_rates,
)
from sim_env.world import World
from tests.paths import SHARED_DATA

ALIBABA = SHARED_DATA / "alibaba_jobs_x0.1.csv"
with_data = pytest.mark.skipif(not ALIBABA.is_file(), reason="the Alibaba jobs are not here")


@with_data
def test_generated_jobs_have_the_statistics_of_the_trace() -> None:
    trace, report = read_jobs(ALIBABA)
    assert (report.rows, report.bad) == (16_749, 0)
    made = alibaba_jobs()
    for field in ("instructions", "input_bits"):
        ours, theirs = getattr(made, field), getattr(trace, field)
        assert ours.mean() == pytest.approx(theirs.mean(), rel=0.01)
        assert ours.max() == pytest.approx(theirs.max(), rel=0.01)
        levels = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
        assert np.quantile(ours, levels) == pytest.approx(np.quantile(theirs, levels), rel=0.03)
    correlation = [spearmanr(t.instructions, t.input_bits).statistic for t in (made, trace)]
    assert correlation[0] == pytest.approx(correlation[1], abs=0.05)


def test_generated_jobs_have_the_published_quantiles() -> None:
    jobs = alibaba_jobs()
    assert np.array_equal(jobs.input_bits, jobs.output_bits)
    assert jobs.instructions.mean() == pytest.approx(6.16e7, rel=1e-3)
    assert np.quantile(jobs.instructions, 0.5) == pytest.approx(4.8e6, rel=0.01)
    assert jobs.input_bits.mean() / MEGABYTE == pytest.approx(37.9, rel=1e-3)


@pytest.mark.parametrize("name", choices("workload"))
def test_every_workload_makes_a_scenario_with_the_load_it_states(name: str) -> None:
    scenario = load_config("ether2", [f"workload={name}"]).build_scenario()
    assert 0.05 < scenario.rho < 1
    assert scenario.net.arrivals.sum() > 0


def test_types_take_the_share_of_their_weight() -> None:
    spec = load_config("ether2", ["workload=types"]).workload
    jobs = build_jobs(spec)
    assert sorted(jobs.instructions) == [1e7] * 6 + [4e7] * 3 + [32e7]
    assert jobs.input_bits[-1] == 80 * MEGABYTE
    assert jobs.output_bits[-1] == 8 * MEGABYTE
    assert np.array_equal(jobs.input_bits[:-1], jobs.output_bits[:-1])


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=5))
def test_shares_of_types_are_right_to_a_ten_thousandth(weights: list[float]) -> None:
    types = [TaskType(instructions=float(i), weight=weight) for i, weight in enumerate(weights)]
    jobs = JobTable.from_types(types)
    assert len(jobs.instructions) <= 10_000
    share = np.bincount(jobs.instructions.astype(int)) / len(jobs.instructions)
    assert share == pytest.approx(np.array(weights) / sum(weights), abs=1.01e-4)


@pytest.mark.parametrize(
    ("types", "sentence"),
    [
        ([], "task types are 0: must be at least one and at most 1,000"),
        ([TaskType()] * 1001, "task types are 1001: must be .* at most 1,000"),
        ([TaskType(), 3], "task type 1 is 3: must be a TaskType"),
        ([{"weight": 1}], r"task type 0 is \{'weight': 1\}: must be a TaskType"),
        ([TaskType(weight=1e-9), TaskType()], "weight of task type 0 is 1e-09: must be at least"),
    ],
)
def test_types_that_cannot_be(types: list[TaskType], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        JobTable.from_types(types)


@pytest.mark.parametrize("field", ["instructions", "input_bits", "output_bits"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_table_names_the_job_that_cannot_be(field: str, value: float) -> None:
    columns = {name: np.ones(3) for name in ("instructions", "input_bits", "output_bits")}
    columns[field][1] = value
    with pytest.raises(ValueError, match=f"{field} of job 1 is {value}: must be a finite number"):
        JobTable(**columns)


def test_a_table_needs_jobs_and_columns_of_one_length() -> None:
    with pytest.raises(ValueError, match=r"instructions has the shape \(0,\)"):
        JobTable(np.ones(0), np.ones(0), np.ones(0))
    with pytest.raises(ValueError, match=r"input_bits has the shape \(2,\): .* 3 jobs"):
        JobTable(np.ones(3), np.ones(2), np.ones(3))


def test_work_scale_multiplies_the_instructions_only() -> None:
    once, tenth = (build_jobs(WorkloadSpec(jobs="light", work_scale=s)) for s in (1.0, 0.1))
    assert tenth.instructions == pytest.approx(once.instructions / 10)
    assert np.array_equal(tenth.input_bits, once.input_bits)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "jobs.csv"
    path.write_text(text)
    return path


def test_a_file_of_pairs(tmp_path: Path) -> None:
    path = write(tmp_path, "instructions,size_mb\n1e6,10\n\n2e6, 20.5\r\n0,0")
    jobs, report = read_jobs(path)
    assert jobs.instructions.tolist() == [1e6, 2e6, 0]
    assert jobs.input_bits.tolist() == jobs.output_bits.tolist() == [8e7, 16.4e7, 0]
    assert (report.rows, report.bad, report.cut) == (3, 0, False)
    assert np.array_equal(
        build_jobs(WorkloadSpec(jobs="file", path=str(path))).instructions, jobs.instructions
    )


def task(
    job: str,
    status: str = "Terminated",
    start: str = "100",
    end: str = "110",
    cpu: str = "100",
    memory: str = "0.5",
) -> str:
    """Return a row of batch_task.csv."""
    return f"M1,1,{job},1,{status},{start},{end},{cpu},{memory}\n"


def test_the_trace_is_added_up_job_by_job(tmp_path: Path) -> None:
    rows = [
        task("j_2", cpu="50", memory="0.2"),
        task("j_1"),
        task("j_2", end="130", cpu="200", memory="0.1"),
        task("j_1", status="Failed", end="", cpu="900"),
        task("j_3", status="Running"),
    ]
    jobs, report = read_jobs(write(tmp_path, "".join(rows)))
    # max cpu / 100 * total seconds / 1000 * 2.4e9, and max memory * 100 MB; j_2 comes first.
    assert jobs.instructions == pytest.approx([2.0 * 40 / 1000 * 2.4e9, 10 / 1000 * 2.4e9])
    assert jobs.input_bits == pytest.approx(np.array([20, 50]) * MEGABYTE)
    assert (report.rows, report.skipped, report.bad) == (5, 2, 0)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (task("j", cpu="")[:-1] + ",7\n", "10 columns instead of 9"),
        (task("j", cpu=""), "plan_cpu is '', not a number"),
        (task("j", cpu="-1"), "plan_cpu is -1, not a finite number at least 0"),
        (task("j", memory="nan"), "plan_mem is nan, not a finite number"),
        (task("j", memory="101"), "plan_mem is 101, not between 0 and 100"),
        (task("j", start="0"), "start_time is 0 and end_time 110"),
        (task("j", start="200"), "start_time is 200 and end_time 110"),
    ],
)
def test_bad_rows_of_the_trace_are_named(tmp_path: Path, row: str, reason: str) -> None:
    path = write(tmp_path, task("good") + row + task("better"))
    jobs, report = read_jobs(path)
    assert len(jobs.instructions) == 2
    assert (report.rows, report.bad, report.cut) == (3, 1, False)
    assert f"line 2: {reason}" in str(report)
    with pytest.warns(UserWarning, match="1 of 3 rows are bad"):
        build_jobs(WorkloadSpec(jobs="file", path=str(path)))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("instructions,input_mb\n1,1\nx,1\n", "line 3: column instructions is 'x': must be a"),
        ("instructions,size_mb\n1,1\n1,-2\n", "line 3: column size_mb is -2.0: must be a finite"),
        ("instructions,size_mb\n1,1\n\n1\n", r"line 4 has 1 cells: must have 2, .*size_mb\)"),
        ("instructions,size_mb\n1,1\n2", "line 3 has 1 cells: must have 2"),
        ("instructions,input_mb\n1,\n", "line 2: column input_mb is empty: must have a value"),
        ("instructions,input_mb\n1,1e400\n", "column input_mb is inf: must be a finite number"),
        ("instructions,input_mb\n1e31,1\n", r"instructions is 1e\+31: must be .* at most 1e\+30"),
        ("instructions,input_mb,weight\n1,1,0\n", "weight is 0.0: must be a finite number above 0"),
        ("instructions,input_mb,weight\n1,1,1\n1,1,1e-9\n", "line 3: column weight is 1e-09: must"),
        ("instructions,input_mb,output_mb\n1,1,x\n", "column output_mb is 'x'"),
        ("instructions,input\n1,1\n", r"column 2 is 'input': .*did you mean input_mb\?"),
        ("instructions,input_mb,deadline\n1,1,1\n", "column 3 is 'deadline': must be one of"),
        ("instructions,size_mb,output_mb\n1,1,1\n", "column 3 is 'output_mb': must be one of"),
        ("input_mb,weight\n1,1\n", "has no column instructions: must have instructions and input"),
        ("instructions\n1\n", r"has no column input_mb: .*\(its columns are instructions\)"),
        ("instructions,input_mb,weight,weight\n1,1,1,1\n", "column weight is there twice"),
        ("instructions,input_mb,\n1,1,\n", "column 3 is '': must have a name"),
        ('instructions,input_mb\n1,"1\n', "line 2: unexpected end of data: must be a row"),
        ("instructions;input_mb\n1;1,5\n", "line 2: column input_mb is '1,5'"),
        ("instructions,input_mb\n", "no row below its header: must hold at least one job"),
    ],
)
def test_a_wrong_table_is_refused_with_line_column_and_value(
    tmp_path: Path, text: str, sentence: str
) -> None:
    with pytest.raises(ValueError, match=rf"^jobs file '[^\n]*{sentence}[^\n]*$"):
        read_jobs(write(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        "instructions,input_mb,output_mb,weight\n1,10,1,\n2,20,,3\n",
        "\ufeffweight;output_mb;input_mb;instructions\r\n;1;10;1\r\n3;;20;2\r\n",
        'weight\tinput_mb\toutput_mb\tinstructions\n\t10\t1\t1\n3.0\t20\t\t"2"\n\t\t\t\n',
    ],
    ids=["commas", "semicolons of a spreadsheet, another order", "tabs"],
)
def test_a_table_with_named_columns(tmp_path: Path, text: str) -> None:
    jobs, report = read_jobs(write(tmp_path, text))
    assert jobs.instructions.tolist() == [1, 2, 2, 2]
    assert (jobs.input_bits / MEGABYTE).tolist() == [10, 20, 20, 20]
    assert (jobs.output_bits / MEGABYTE).tolist() == [1, 20, 20, 20]
    assert (report.rows, report.bad) == (2, 0)


@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=30),
    st.sampled_from([1.0, 0.1, 1 / 3, 7e10]),
)
def test_weights_that_are_multiples_of_a_number_are_kept_exactly(
    weights: list[int], unit: float
) -> None:
    rows = rows_by_weight(np.array(weights) * unit)
    wanted = np.array(weights) / sum(weights)
    assert np.abs(rows / rows.sum() - wanted).max() <= 1e-6
    if sum(weights) <= 1000:
        assert rows / rows.sum() == pytest.approx(wanted, abs=1e-12)


def test_a_long_table_of_equal_weights_is_kept_as_it_is() -> None:
    assert (rows_by_weight(np.full(1_500_000, 0.3)) == 1).all()


def test_many_bad_rows_are_counted_and_the_first_ones_named(tmp_path: Path) -> None:
    _, report = read_jobs(write(tmp_path, task("a") + "a,b\n" * 30))
    assert report.bad == 30
    assert [reason.split(":")[0] for reason in report.reasons] == [f"line {n}" for n in range(2, 7)]
    assert "30 of 31 rows are bad" in str(report)
    assert str(report).count("line") == 5
    assert "and 25 more" in str(report)


@pytest.mark.parametrize(
    "text",
    [
        task("a") + task("b")[:20],
    ],
)
def test_a_cut_file_is_a_bad_row_to_the_reader_and_an_error_in_a_scenario(
    tmp_path: Path, text: str
) -> None:
    path = write(tmp_path, text)
    jobs, report = read_jobs(path)
    assert len(jobs.instructions) == 1
    assert report.cut
    assert report.bad == 1
    spec = ScenarioSpec(workload=WorkloadSpec(jobs="file", path=str(path)))
    with pytest.raises(ValueError, match="must not end in the middle of a row"):
        Scenario(spec)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty: must have a first line with the names of the columns"),
        ("a,b,c\n1,2,3\n", "begins with 'a,b,c'"),
        (task("j", status="Failed"), "must hold at least one job"),
    ],
)
def test_a_file_without_jobs_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_jobs(write(tmp_path, text))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be read \(No such file"):
        read_jobs(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"workload.path is ''"):
        WorkloadSpec(jobs="file")


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


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        (([], [], []), r"instructions has the shape \(0,\): .* at least one"),
        ((None, [1.0], [1.0]), "instructions is of object: must be numbers"),
        ((["a"], [1.0], [1.0]), "instructions is of <U1: must be numbers"),
        ((1.0, 1.0, 1.0), r"instructions has the shape \(\)"),
        (([1e308], [1.0], [1.0]), r"instructions of job 0 is 1e\+308: .* at most 1e\+30"),
    ],
)
def test_columns_that_are_no_jobs(columns: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        JobTable(*columns)


def test_lists_make_a_table() -> None:
    assert JobTable([1, 2], [3, 4], [5, 6]).instructions.dtype == float  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [bytes(range(256)) * 10, b"\0" * 1000, b"\x1f\x8b\x08" * 99])
def test_a_file_of_bytes_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "jobs.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^jobs file [^\n]*must be a CSV file[^\n]*$"):
        read_jobs(path)


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

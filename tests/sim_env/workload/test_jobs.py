"""Tables of jobs: built in, of task types, and from files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from fauno_flwr.config.loading import load_config
from sim_env.scenario import Scenario, ScenarioSpec
from sim_env.workload.jobs import MEGABYTE, alibaba_jobs, rows_by_weight
from sim_env.workload.workload import (
    JobTable,
    TaskType,
    WorkloadSpec,
    build_jobs,
    read_jobs,
)
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

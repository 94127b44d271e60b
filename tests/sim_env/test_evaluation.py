"""The metrics of a comparison, from known counts."""

import numpy as np
import pytest
from scipy import stats

from sim_env.engine.state import BINS
from sim_env.evaluation import by_world, interval, run_policies, run_policy, summarise
from sim_env.policies.heuristics import POLICIES
from sim_env.scenario import load_scenario
from sim_env.world import Metrics, World


def metrics(finished: list[int], response: list[int], created: int = 100) -> Metrics:
    """Return the metrics of worlds of 100 tasks; those not finished were lost."""
    count = np.array(finished)
    lost = created - count
    histogram = np.zeros((len(finished), BINS), np.int64)
    for b, each in enumerate(finished):
        histogram[b, 10] = each // 2
        histogram[b, 200] = each - each // 2
    zeros = np.zeros_like(count)
    return Metrics(
        created=np.full(len(finished), created),
        finished=count,
        overflow=np.minimum(lost, 1),
        deadline=lost - np.minimum(lost, 1),
        client=zeros,
        failure=zeros,
        inside=zeros,
        response_sum=np.array(response),
        histogram=histogram,
        born_at=np.tile([created // 2, created // 2], (len(finished), 1)),
        finished_at=np.stack([count // 2, count - count // 2], axis=1),
        served_by=np.stack([count, zeros], axis=1),
        tick=0.1,
    )


def test_interval_is_that_of_students_t() -> None:
    values = np.array([1.0, 4.0, 2.5, 3.0])
    known = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    ours = interval(values)
    assert (ours.mean, ours.low, ours.high) == pytest.approx((2.625, known.low, known.high))


def test_interval_leaves_out_what_is_not_defined() -> None:
    assert interval(np.array([np.nan, 2.0, 4.0])).mean == 3.0
    assert np.isnan(interval(np.array([np.nan])).mean)
    assert interval(np.array([5.0])).high == float("inf")


def test_a_row_holds_means_quantile_losses_and_paired_differences() -> None:
    ours, base = metrics([90, 96], [1800, 2880]), metrics([80, 88], [800, 880])
    row, other = summarise({"random": ours, "lq": base}, baselines=("lq",))
    assert row["finished_ratio"]["mean"] == pytest.approx(0.93)
    assert row["response_mean"]["mean"] == pytest.approx((2.0 + 3.0) / 2)
    assert row["response_p95"] == pytest.approx(20.0)
    assert ours.response_quantile(0.5) == pytest.approx(1.0)
    assert row["lost"] == pytest.approx(
        {"overflow": 0.01, "deadline": 0.06, "client": 0.0, "failure": 0.0}
    )
    assert row["created"] == 200
    assert row["finished"] == 186
    assert row["served_by"] == [186, 0]
    difference = row["minus"]["lq"]
    assert difference["finished_ratio"]["mean"] == pytest.approx(0.09)
    assert difference["response_mean"]["mean"] == pytest.approx((1.0 + 2.0) / 2)
    paired = stats.ttest_rel([0.90, 0.96], [0.80, 0.88]).confidence_interval(0.95)
    assert difference["finished_ratio"]["low"] == pytest.approx(paired.low)
    assert other["minus"] == {}


def test_fairness_is_jains_index() -> None:
    even, odd = metrics([80], [100]), metrics([80], [100])
    odd.finished_at[:] = [[50, 30]]
    assert even.fairness == pytest.approx(1.0)
    assert odd.fairness == pytest.approx((1.0 + 0.6) ** 2 / (2 * (1.0 + 0.36)))


def test_every_policy_meets_the_same_tasks() -> None:
    scenario = load_scenario("balanced")
    born = [
        run_policy(scenario, policy, [3, 4], warmup=50, window=100).born_at
        for policy in POLICIES.values()
    ]
    assert born[0].sum() > 1000
    assert all(np.array_equal(born[0], each) for each in born)


def test_policies_in_threads_and_one_after_the_other_have_the_same_results() -> None:
    scenario = load_scenario("ether2")
    policies = {name: POLICIES[name] for name in ("sed", "random", "lq", "threshold")}
    policies["python"] = lambda seen, rng: rng.integers(0, 2, len(seen)) * seen.mask[:, 1]
    alone, beside = (
        run_policies(scenario, policies, [7, 8], warmup=50, window=200, threads=threads)
        for threads in (1, 3)
    )
    assert [row["policy"] for row in beside] == list(policies)
    assert beside == alone


def test_the_cohort_is_followed_to_its_end() -> None:
    """Tasks of the window all end, those born before and after are not counted."""
    scenario = load_scenario("balanced")
    counted = run_policy(scenario, POLICIES["lq"], [1], warmup=100, window=50)
    assert counted.inside.sum() == 0
    assert counted.created.sum() == pytest.approx(50 * scenario.net.arrivals.sum(), rel=0.2)
    assert counted.histogram.sum() == counted.finished.sum() == counted.finished_at.sum()
    assert counted.response_sum.sum() == (counted.histogram * np.arange(BINS)).sum()


def test_the_order_of_the_heuristics_is_that_of_the_feasibility_study() -> None:
    """balanced, rho .985: SED loses least, then LeastQueue; Random a third, Local two thirds."""
    rows = run_policies(load_scenario("balanced"), POLICIES, range(4), warmup=100, window=500)
    ratio = {row["policy"]: row["finished_ratio"]["mean"] for row in rows}
    assert ratio["sed"] > 0.99
    assert 0.95 < ratio["lq"] < ratio["sed"]
    assert ratio["random"] == pytest.approx(0.69, abs=0.05)
    assert ratio["local"] == pytest.approx(0.304, abs=0.03)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seeds": []}, "seeds are"),
        ({"policy": "lq"}, "policy is 'lq': must be a function"),
        ({"warmup": -1}, "warmup is -1: must be a whole number at least 0"),
        ({"window": 0}, "window is 0: must be a whole number at least 1"),
        ({"window": 1.5}, "window is 1.5: must be a whole number"),
        ({"window": 10**9}, r"window is 1000000000: .* at most 9.99994e\+07"),
    ],
)
def test_runs_that_cannot_be(changes: dict, sentence: str) -> None:
    arguments = {"policy": POLICIES["lq"], "seeds": [0], "warmup": 600, "window": 100, **changes}
    with pytest.raises(ValueError, match=sentence):
        run_policy(load_scenario("ether2"), **arguments)


def test_rows_by_world_add_up_to_the_row_of_a_policy() -> None:
    results = {"random": metrics([90, 96], [1800, 2880]), "lq": metrics([0, 88], [0, 880])}
    rows = by_world(results, [7, 8])
    assert [(row["policy"], row["seed"]) for row in rows] == [
        ("random", 7),
        ("random", 8),
        ("lq", 7),
        ("lq", 8),
    ]
    for name, row in zip(results, summarise(results), strict=True):
        mine = [each for each in rows if each["policy"] == name]
        assert sum(each["finished"] for each in mine) == row["finished"]
        ratios = np.array([each["finished_ratio"] for each in mine])
        assert interval(ratios).mean == pytest.approx(row["finished_ratio"]["mean"])
    for row in rows:
        ended = sum(value for key, value in row.items() if key.startswith("lost_"))
        assert row["created"] == row["finished"] + ended + row["unfinished_at_end"]
    assert rows[0]["response_mean"] == pytest.approx(2.0)
    assert rows[0]["response_p95"] == pytest.approx(20.0)
    assert np.isnan(rows[2]["response_mean"])
    assert np.isnan(rows[2]["response_p95"])


@pytest.mark.parametrize("policy", ["sed", "random", "local"])
def test_who_served_whom_adds_up(policy: str) -> None:
    """By server it is what each node served, by origin no more than was born there."""
    world = World(load_scenario("ether2"), [1, 2])
    world.measure(50, 2000, exchange=True)
    world.run(POLICIES[policy], 2500, np.random.default_rng(0))
    exchange, metrics = world.state.exchange, world.metrics()
    np.testing.assert_array_equal(exchange.sum(axis=1), metrics.served_by)
    assert np.all(exchange.sum(axis=2) <= metrics.born_at)
    assert np.all(exchange.sum(axis=2) >= metrics.finished_at)
    own = np.einsum("bnn->b", exchange)
    assert np.all((own == exchange.sum(axis=(1, 2))) == (policy == "local"))
    world.measure(0, 10)
    assert world.state.exchange.size == 0

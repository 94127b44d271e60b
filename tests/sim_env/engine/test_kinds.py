"""Nodes that differ in kind: in deadlines, in what they are paid for, in what they state."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from sim_env.engine.features import BACKLOG, EXECUTE, QUEUE, SEND, SPEED, WAIT
from sim_env.engine.observation import Observation
from sim_env.engine.reward import REWARDS, RewardSpec
from sim_env.engine.state import CREATED, DEADLINE, FINISHED, FREE, OVERFLOW
from sim_env.policies.heuristics import POLICIES
from sim_env.scenario import PhysicsSpec, Scenario, balanced
from sim_env.world import World

LOCAL, SED = POLICIES["local"], POLICIES["sed"]
ONE = {"*": 1.0}


def scenario(reward: dict | None = None, **groups: dict) -> Scenario:
    """Compile the balanced scenario with another reward and some settings of its groups changed."""
    base = balanced()
    changed = {name: replace(getattr(base, name), **some) for name, some in groups.items()}
    return Scenario(replace(base, reward=RewardSpec(**(reward or {})), **changed))


def run(made: Scenario, policy=SED, ticks: int = 400, seeds: Sequence[int] = (3,)) -> World:
    world = World(made, seeds)
    world.run(policy, ticks, np.random.default_rng(0))
    return world


def seen_after(made: Scenario) -> Observation:
    """Return what the nodes observe after ticks of random decisions."""
    return run(made, POLICIES["random"], 100, range(8)).observe()


def nodes(made: Scenario, *roles: str) -> np.ndarray:
    return np.isin(made.topology.roles, roles)


@pytest.mark.parametrize("kind", REWARDS)
def test_factors_of_1_change_no_byte(kind: str) -> None:
    reward = {"kind": kind, "loss_factors": ONE}
    if kind in ("delay", "peersimgym_dense"):
        reward["delay_factors"] = ONE
    plain = scenario(reward={"kind": kind})
    other = scenario(
        reward=reward,
        workload={"deadline_factors": ONE},
        physics={"stated_speed_factors": ONE},
    )
    worlds = [run(made) for made in (plain, other)]
    views = [world.observe() for world in worlds]
    for name in ("local", "destination", "mask", "reward"):
        one, two = (getattr(view, name).tobytes() for view in views)
        assert one == two
    assert worlds[0].collect().tobytes() == worlds[1].collect().tobytes()
    one, two = (world.snapshot() for world in worlds)
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)


# ---- deadlines ----------------------------------------------------------------------------------


def test_a_deadline_factor_is_that_of_the_origin() -> None:
    """The tasks are the same, born at the same times; some have a third of the time."""
    some = {"workload": {"deadline_min": 6.0, "deadline_max": 12.0}}
    plain = scenario(**some)
    some["workload"]["deadline_factors"] = {"rpi_[02]": 1 / 3}
    other = scenario(**some)
    chosen = np.isin(plain.topology.names, ["rpi_0", "rpi_2"])
    tasks = []
    for made in (plain, other):
        state = run(made, SED, 20).state
        alive = np.flatnonzero(state.kind[0] != FREE)
        alive = alive[np.argsort(state.serial[0, alive])]
        names = ("serial", "origin", "born", "deadline")
        tasks.append({name: getattr(state, name)[0, alive] for name in names})
    serials, one, two = np.intersect1d(tasks[0]["serial"], tasks[1]["serial"], return_indices=True)
    assert len(serials) > 50
    for name in ("origin", "born"):
        assert np.array_equal(tasks[0][name][one], tasks[1][name][two])
    slack = [each["deadline"] - each["born"] for each in tasks]
    ratio = slack[1][two] / slack[0][one]
    short = chosen[tasks[0]["origin"][one]]
    assert 5 < short.sum() < len(short) - 5
    assert np.all(ratio[~short] == 1)
    np.testing.assert_allclose(ratio[short], 1 / 3, atol=0.02)


def test_tasks_with_less_time_are_lost_more_often() -> None:
    plain, other = (
        run(scenario(workload={"deadline_factors": some}), ticks=1500, seeds=(1, 2)).metrics()
        for some in ({}, {"rpi_0": 0.2})
    )
    assert np.array_equal(plain.born_at, other.born_at)
    before, after = (each.finished_at.sum(axis=0) for each in (plain, other))
    assert after[0] < 0.9 * before[0]


def test_a_deadline_factor_needs_a_source() -> None:
    with pytest.raises(ValueError, match=r"deadline_factors\.server_0 is 2\.0: must be for a sour"):
        scenario(workload={"deadline_factors": {"server_0": 2.0}})
    rates = {"source_rates": {"rpi_0": 0.0}, "deadline_factors": {"rpi_0": 2.0}}
    with pytest.raises(ValueError, match=r"deadline_factors\.rpi_0 is 2\.0: .* \(rpi_1, "):
        scenario(workload=rates)


# ---- rewards ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["delay", "peersimgym_dense"])
def test_the_terms_of_a_decision_are_weighted_by_the_node_that_decides(kind: str) -> None:
    """With one factor 0 a node earns without that term; the terms add up."""

    def earned(**factors: dict) -> np.ndarray:
        reward = {"kind": kind, "utility": 10.0, **factors}
        return seen_after(scenario(reward=reward)).reward

    made = scenario()
    seen = seen_after(made)
    rpi = (nodes(made, "rpi")[seen.node])[:, None] & seen.mask
    assert rpi.any()
    assert (seen.mask & ~rpi).any()
    full = earned()
    no_delay, no_loss = (
        earned(**{name: {"rpi": 0.0}}) for name in ("delay_factors", "loss_factors")
    )
    for part in (no_delay, no_loss):
        assert np.array_equal(part[~rpi], full[~rpi])
        assert not np.allclose(part[rpi], full[rpi])
    both = earned(delay_factors={"rpi": 2.0}, loss_factors={"rpi": 0.5})
    delay, loss = no_delay - full, no_loss - full
    np.testing.assert_allclose(both[rpi], (10.0 - 2.0 * delay - 0.5 * loss)[rpi], atol=1e-9)
    assert np.all(loss[rpi] >= 0)


def test_reward_factors_need_a_node_that_decides() -> None:
    base = balanced()
    base.topology.kind = "full"
    made = Scenario(base)
    made.topology.is_agent[3] = False
    spec = replace(base, reward=RewardSpec(loss_factors={made.topology.names[3]: 2.0}))
    with pytest.raises(ValueError, match=r"loss_factors\..* must be for a node that decides of"):
        Scenario(spec, topology=made.topology)


def test_under_sparse_a_drop_costs_the_node_its_factor() -> None:
    reward, rates = {"kind": "sparse", "utility": 2.0}, {"rate": 12.0}
    made = scenario(reward=reward, workload=rates)
    other = scenario(reward={**reward, "loss_factors": {"rpi_0": 5.0}}, workload=rates)
    worlds = [run(each, LOCAL, 600) for each in (made, other)]
    plain, weighted = (world.collect()[0] for world in worlds)
    finished = 2.0 * worlds[0].state.finished_at[0]
    assert np.array_equal(plain[1:], weighted[1:])
    dropped = finished - plain
    assert dropped[0] > 0
    assert weighted[0] == finished[0] - 5.0 * dropped[0]
    total = worlds[0].state.total[0]
    assert dropped.sum() == 2.0 * (total[OVERFLOW] + total[DEADLINE])


# ---- stated speeds ------------------------------------------------------------------------------


def test_the_observation_follows_the_stated_speed_and_nothing_else() -> None:
    made = scenario(physics={"stated_speed_factors": {"nuc": 4.0}})
    plain, other = seen_after(scenario()), seen_after(made)
    nuc = nodes(made, "nuc")
    for row, node in enumerate(other.node):
        here = made.net.destinations(node)
        factor = np.where(nuc[here], 4.0, 1.0)
        one, two = plain.destination[row, : len(here)], other.destination[row, : len(here)]
        np.testing.assert_allclose(two[:, SPEED], factor * one[:, SPEED])
        for column in (WAIT, EXECUTE):
            np.testing.assert_allclose(two[:, column], one[:, column] / factor)
        assert np.array_equal(two[:, [QUEUE, SEND]], one[:, [QUEUE, SEND]])
        assert other.local[row, BACKLOG] * factor[0] == pytest.approx(plain.local[row, BACKLOG])
    assert not np.allclose(plain.features()[1], other.features()[1])


@pytest.mark.parametrize("kind", ["delay", "peersimgym_dense"])
def test_rewards_are_by_the_true_speed(kind: str) -> None:
    """So a node can learn what its observation hides."""
    plain, other = (
        seen_after(scenario(reward={"kind": kind}, physics={"stated_speed_factors": some}))
        for some in ({}, {"*": 0.1, "rpi": 5.0})
    )
    assert len(plain) > 20
    np.testing.assert_allclose(other.reward, plain.reward, rtol=1e-12)


def test_the_physics_follow_the_true_speed() -> None:
    """Who keeps everything does not notice; who chooses by the expected delay is misled."""
    stated = {"server": 0.001, "nuc": 0.001, "rpi": 100.0}
    plain, other = scenario(), scenario(physics={"stated_speed_factors": stated})
    kept = [run(made, LOCAL).snapshot() for made in (plain, other)]
    assert all(kept[0][name].tobytes() == kept[1][name].tobytes() for name in kept[0])
    ratio = [run(made, SED, 1500).metrics().finished_ratio[0] for made in (plain, other)]
    assert ratio[1] < ratio[0] - 0.1


def test_a_stated_speed_needs_a_node() -> None:
    with pytest.raises(
        ValueError, match=r"physics\.stated_speed_factors\.pi is 2\.0: must be for a"
    ):
        scenario(physics={"stated_speed_factors": {"pi": 2.0}})
    with pytest.raises(
        ValueError, match=r"stated_speed_factors\.rpi is 0: must be a finite number"
    ):
        PhysicsSpec(stated_speed_factors={"rpi": 0})


def test_a_world_of_kinds_goes_on_from_a_snapshot() -> None:
    made = scenario(
        workload={"deadline_factors": {"rpi_0": 0.3}},
        reward={"kind": "outcome", "loss_factors": {"rpi_1": 3.0}},
        physics={"stated_speed_factors": {"nuc": 0.5}},
    )
    world, other = run(made), World(made, [9])
    other.restore(world.snapshot())
    for each in (world, other):
        each.run(SED, 300, np.random.default_rng(1))
    assert world.collect().tobytes() == other.collect().tobytes()
    one, two = world.snapshot(), other.snapshot()
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)
    count = world.state.total[0]
    assert count[CREATED] > count[FINISHED] > 0

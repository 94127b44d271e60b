"""The vector environment against gymnasium's contract, and against gymnasium's own vectors."""

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from sim_env.engine.physics import PhysicsSpec, Quirks
from sim_env.envs.layout import LAYOUTS
from sim_env.envs.vector import EdgeVectorEnv
from sim_env.network.failures import DynamicsSpec
from sim_env.policies.heuristics import POLICIES
from sim_env.scenario import Scenario, ScenarioSpec
from sim_env.workload.workload import WorkloadSpec

WORLDS = 3
BUSY = Scenario(ScenarioSpec(workload=WorkloadSpec(rate=5.0)))
RANDOM_ORDER = PhysicsSpec(quirks=Quirks(tick_order="random", intake_period=3))
QUIRKY = Scenario(replace(BUSY.spec, physics=RANDOM_ORDER))
MODES = [mode.value for mode in AutoresetMode]


def assert_equal(one: Any, other: Any) -> None:
    """Compare nested dicts, tuples and arrays."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, tuple) or (isinstance(one, np.ndarray) and one.dtype == object):
        for each, its in zip(one, other, strict=True):
            assert_equal(each, its)
    else:
        assert np.array_equal(one, other)


def both(**settings: Any) -> tuple[gym.vector.VectorEnv, gym.vector.VectorEnv]:
    """Return the compiled vector and gymnasium's synchronous one."""
    mode = settings.pop("autoreset_mode", AutoresetMode.NEXT_STEP.value)
    name, worlds = "fauno/Ether2-v0", {"scenario": BUSY, "num_envs": WORLDS, **settings}
    return (
        gym.make_vec(name, autoreset_mode=mode, **worlds),
        gym.make_vec(
            name, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **worlds
        ),
    )


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "Disabled"])
@pytest.mark.parametrize("peers", ["self", "lq", "lqrand", "sed"])
@pytest.mark.parametrize("layout", ["parts", "flat"])
def test_compiled_and_sync_vectors_are_the_same_worlds(mode: str, peers: str, layout: str) -> None:
    """Over several episodes, also where peers draw: each world has streams of its own."""
    compiled, sync = both(
        autoreset_mode=mode, peers=peers, layout=layout, node=0, horizon=40, warmup=20
    )
    assert compiled.observation_space == sync.observation_space
    assert compiled.single_action_space == sync.single_action_space
    assert_equal(compiled.reset(seed=5), sync.reset(seed=5))
    compiled.action_space.seed(1)
    decisions = 0
    for _ in range(130):
        actions = compiled.action_space.sample()
        assert_equal(compiled.step(actions), sync.step(actions))
        decisions += int((compiled.unwrapped.action_masks().sum(axis=1) > 1).sum())
    assert decisions > 20
    seeds = [7, None, 2**40]
    assert_equal(compiled.reset(seed=seeds), sync.reset(seed=seeds))


def test_all_seeds_of_a_list_count_and_none_goes_on() -> None:
    def first(seeds: list[int | None]) -> list[bytes]:
        env = EdgeVectorEnv(num_envs=WORLDS, warmup=50)
        env.reset(seed=1)
        env.reset(seed=seeds)
        assert env.world is not None
        return [env.world.state.rng[b].tobytes() for b in range(WORLDS)]

    first_three, with_none = first([11, 12, 13]), first([11, None, 12])
    assert first_three == first([11, 12, 13])
    assert with_none[0] == first_three[0]
    assert with_none[2] == first_three[1]
    assert with_none[1] not in first_three
    assert len(set(first_three)) == WORLDS


@pytest.mark.parametrize("seed", [[1, 2], [1, 2, 3, 4], []])
def test_seeds_that_are_not_one_per_world_are_named(seed: list[int]) -> None:
    with pytest.raises(ValueError, match=f"seed has {len(seed)} values: must have one for each"):
        EdgeVectorEnv(num_envs=WORLDS).reset(seed=seed)


@pytest.mark.parametrize("peers", ["random", "lq"])
@pytest.mark.parametrize("scenario", [BUSY, QUIRKY])
def test_reset_mask_resets_those_worlds_only_as_the_sync_vector_does(
    scenario: Scenario, peers: str
) -> None:
    compiled, sync = both(
        scenario=scenario, autoreset_mode="Disabled", peers=peers, node=0, horizon=60
    )
    assert_equal(compiled.reset(seed=5), sync.reset(seed=5))
    rng, split = np.random.default_rng(0), 0
    for tick in range(400):
        actions = rng.integers(0, 3, WORLDS)
        got, expected = compiled.step(actions), sync.step(actions)
        assert_equal(got, expected)
        mask = got[3].copy()
        if tick % 25 == 24:
            mask[rng.integers(WORLDS)] = True
        if mask.any():
            seed = [tick, None, tick] if tick % 2 else None
            assert_equal(
                compiled.reset(seed=seed, options={"reset_mask": mask}),
                sync.reset(seed=seed, options={"reset_mask": mask.copy()}),
            )
        split = max(split, len(compiled.unwrapped.worlds))
    assert split == WORLDS


def test_worlds_that_began_apart_are_no_single_world() -> None:
    env = EdgeVectorEnv(num_envs=WORLDS)
    assert env.world is None
    env.reset(seed=0)
    env.step(np.zeros(WORLDS, int))
    assert env.world is not None
    env.reset(options={"reset_mask": np.array([False, True, False])})
    assert [members.tolist() for members, _ in env.worlds] == [[0, 2], [1]]
    assert [world.now for _, world in env.worlds] == [1, 0]
    with pytest.raises(ValueError, match="the worlds began at 2 different times"):
        env.world  # noqa: B018
    env.reset()
    assert env.world is not None


def test_failures_of_the_other_worlds_go_on_after_a_reset_of_some() -> None:
    dynamics = DynamicsSpec(node_mttf=6.0, node_mttr=2.0, link_mttf=9.0)
    scenario = Scenario(ScenarioSpec(workload=BUSY.spec.workload, dynamics=dynamics))
    alone, partly = (EdgeVectorEnv(scenario, 0, WORLDS, "lq") for _ in range(2))
    assert_equal(alone.reset(seed=3), partly.reset(seed=3))
    down = 0
    for tick in range(300):
        if tick == 40:
            partly.reset(options={"reset_mask": np.array([True, False, False])})
        actions = np.full(WORLDS, tick % 3)
        one, other = alone.step(actions), partly.step(actions)
        assert_equal({k: v[1:] for k, v in one[0].items()}, {k: v[1:] for k, v in other[0].items()})
        assert_equal(one[1][1:], other[1][1:])
        assert alone.world is not None
        down += int((~alone.world.state.up[1:]).sum())
    assert down > 0


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros(WORLDS, bool),
        np.ones(WORLDS, int),
        np.ones(WORLDS + 1, bool),
        [True] * WORLDS,
    ],
)
def test_bad_masks_are_named(mask: Any) -> None:
    env = EdgeVectorEnv(num_envs=WORLDS)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"reset_mask is .*: must be an array of bool of shape"):
        env.reset(options={"reset_mask": mask})


def test_the_first_reset_is_one_of_all() -> None:
    env = EdgeVectorEnv(num_envs=WORLDS)
    with pytest.raises(gym.error.ResetNeeded, match="reset all worlds"):
        env.reset(options={"reset_mask": np.array([True, False, False])})
    for method in (env.action_masks, lambda: env.step(np.zeros(WORLDS, int))):
        with pytest.raises(gym.error.ResetNeeded):
            method()


def test_without_autoreset_a_world_that_is_over_must_be_reset() -> None:
    env = EdgeVectorEnv(num_envs=WORLDS, horizon=2, autoreset_mode="Disabled")
    env.reset(seed=0)
    actions = np.zeros(WORLDS, int)
    assert [env.step(actions)[3].all() for _ in range(2)] == [False, True]
    env.reset(options={"reset_mask": np.array([False, True, True])})
    with pytest.raises(gym.error.ResetNeeded, match=r"worlds \[0\] are over: call reset with"):
        env.step(actions)
    with pytest.raises(ValueError, match="autoreset_mode is 'Never': must be one of NextStep"):
        EdgeVectorEnv(autoreset_mode="Never")


def test_peers_that_draw_by_a_function_of_the_users_draw_the_same_again() -> None:
    """A copy of `random` without a compiled twin: one stream for all, by the seed of the first."""

    def run() -> bytes:
        env = EdgeVectorEnv(BUSY, 0, WORLDS, horizon=30)
        env.set_actor(lambda seen, rng: POLICIES["random"](seen, rng))
        env.reset(seed=4)
        return b"".join(env.step(np.zeros(WORLDS, int))[1].tobytes() for _ in range(100))

    assert run() == run()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", MODES)
def test_action_masks_are_those_of_the_last_observation(layout: str, mode: str) -> None:
    env = EdgeVectorEnv(BUSY, 0, WORLDS, "lq", 50, layout=layout, autoreset_mode=mode)
    single = gym.make("fauno/Ether2-v0", scenario=BUSY, node=0, layout=layout, peers="lq")
    view, _ = env.reset(seed=2)
    single.reset(seed=2)
    assert np.array_equal(single.unwrapped.action_masks(), env.action_masks()[0])
    rng, seen = np.random.default_rng(0), set()
    for _ in range(300):
        masks = env.action_masks()
        assert masks.dtype == np.bool_
        shown = view[:, -env.slots :] if layout == "flat" else view["action_mask"]
        assert np.array_equal(masks, shown > 0)
        seen |= set(masks.sum(axis=1).tolist())
        view, _, _, truncated, _ = env.step(rng.integers(0, env.slots, WORLDS))
        if mode == "Disabled" and truncated.any():
            view, _ = env.reset(options={"reset_mask": truncated})
    assert len(seen) > 1

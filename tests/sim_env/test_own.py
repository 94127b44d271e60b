"""Policies, rewards, observations, topologies and workloads by import path."""

from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import parallel_api_test

from sim_env.engine.features import NUM_DESTINATION, NUM_LOCAL
from sim_env.engine.physics import PhysicsSpec, Quirks
from sim_env.engine.reward import RewardSpec
from sim_env.envs.parallel import EdgeParallelEnv
from sim_env.envs.single import EdgeEnv
from sim_env.envs.vector import EdgeVectorEnv
from sim_env.evaluation import run_policies
from sim_env.network.topology import TopologySpec, build_topology
from sim_env.policies.heuristics import POLICIES, get_policy
from sim_env.scenario import Scenario, ScenarioSpec, load_scenario
from sim_env.workload.workload import WorkloadSpec, build_jobs
from sim_env.world import World
from tests.sim_env import own

SMALL = TopologySpec(clusters=1)


def scenario(**changes: object) -> Scenario:
    return Scenario(replace(ScenarioSpec(topology=SMALL), **changes))


# ---- policies ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sed", "Sed"])
def test_a_heuristic_by_import_path_runs_like_a_built_in_one(name: str) -> None:
    mine = get_policy(f"{own.PATH}:{name}")
    policies = {"mine": mine, "sed": POLICIES["sed"]}
    rows = run_policies(load_scenario("balanced"), policies, range(2), warmup=50, window=200)
    first, second = ({**row, "policy": "", "minus": {}} for row in rows)
    assert first == second


@pytest.mark.parametrize("quirks", [Quirks(), Quirks(tick_order="random", queue_order="lifo")])
def test_a_compiled_twin_runs_instead_of_the_function(quirks: Quirks) -> None:
    both = scenario(physics=PhysicsSpec(quirks=quirks), workload=WorkloadSpec(rate=6.0))
    worlds = [World(both, [1, 2]) for _ in range(2)]
    for world, policy in zip(worlds, (own.fast_sed, POLICIES["sed"]), strict=True):
        world.run(policy, 300, np.random.default_rng(0))
    mine, built_in = (world.state for world in worlds)
    for column, other in zip(mine, built_in, strict=True):
        assert np.array_equal(column, other)
    assert mine.total.sum() > 1000


def test_peers_may_follow_a_heuristic_of_ones_own() -> None:
    envs = [EdgeEnv("balanced", 0, peers=peers) for peers in (f"{own.PATH}:Sed", "sed")]
    views = [env.reset(seed=3)[0] for env in envs]
    for _ in range(150):
        assert all(np.array_equal(views[0][key], views[1][key]) for key in views[0])
        views = [env.step(0)[0] for env in envs]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("lqq", "policy is 'lqq': must be one of sed, threshold"),
        ("no_such:x", "policy is 'no_such:x': cannot be imported"),
        (f"{own.PATH}:NeedsArguments", "NeedsArguments': raised TypeError"),
        (f"{own.PATH}:PAPER", "must be a function of an observation and a generator"),
    ],
)
def test_impossible_policies_get_one_sentence(name: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        get_policy(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("actions", [np.zeros(1000, int), 0.5])
def test_impossible_actions_get_one_sentence(actions: object) -> None:
    def policy(observation, rng) -> np.ndarray:
        return np.broadcast_to(actions, np.shape(actions) or len(observation))

    with pytest.raises(ValueError, match="one for each decision"):
        World("balanced", [0]).run(policy, 50, np.random.default_rng(0))
    env = EdgeVectorEnv("balanced", warmup=50)
    env.set_actor(policy)
    with pytest.raises(ValueError, match="one for each decision"):
        env.reset(seed=0)


def test_a_twin_that_numba_did_not_compile_is_refused() -> None:
    def policy(observation, rng) -> np.ndarray:
        return np.zeros(len(observation), int)

    policy.compiled = lambda local, destination, mask: 0
    with pytest.raises(ValueError, match=r"must be a function compiled by numba\.njit"):
        World("balanced", [0]).run(policy, 5, np.random.default_rng(0))


# ---- rewards -----------------------------------------------------------------------------------


def test_a_reward_by_import_path_equals_the_compiled_one() -> None:
    busy = WorkloadSpec(rate=6.0)
    kinds = (f"{own.PATH}:delay", "delay")
    made, built_in = (scenario(reward=RewardSpec(kind), workload=busy) for kind in kinds)
    assert (made.is_compiled, built_in.is_compiled) == (False, True)
    worlds, rng = [World(each, [1, 2]) for each in (made, built_in)], np.random.default_rng(0)
    rows = 0
    for _ in range(300):
        mine, theirs = (world.observe() for world in worlds)
        expected = np.where(theirs.mask, theirs.reward, 0.0)
        np.testing.assert_allclose(mine.reward, expected, rtol=1e-12)
        rows += len(mine)
        actions = rng.integers(0, 3, (2, worlds[0].num_nodes)).astype(np.int32)
        for world in worlds:
            world.step(actions)
    assert rows > 500


def test_environments_pay_a_reward_of_ones_own() -> None:
    kinds = (f"{own.PATH}:delay", "delay")
    worlds = [scenario(reward=RewardSpec(kind, no_op=-0.25)) for kind in kinds]
    singles, parallels = [EdgeEnv(w, 0, peers="lq") for w in worlds], map(EdgeParallelEnv, worlds)
    for env in singles:
        env.reset(seed=5)
    for tick in range(200):
        paid = [env.step(tick % 3)[1] for env in singles]
        assert paid[0] == pytest.approx(paid[1], rel=1e-12)
    earned = []
    for env in parallels:
        env.reset(seed=5)
        steps = [env.step(dict.fromkeys(env.agents, tick % 3))[1] for tick in range(200)]
        earned.append([list(step.values()) for step in steps])
    np.testing.assert_allclose(earned[0], earned[1], rtol=1e-12)
    assert len(np.unique(earned[0])) > 100


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("wrong_shape", r"gave float64 of shape \(3,\): must be numbers of shape \(\d+, 8\)"),
        ("texts", r"gave <U4 of shape"),
        ("not_finite", "gave inf: must be a finite number for every action"),
    ],
)
def test_impossible_rewards_get_one_sentence(name: str, sentence: str) -> None:
    world = World(scenario(reward=RewardSpec(f"{own.PATH}:{name}")), range(8))
    with pytest.raises(ValueError, match=f"reward '{own.PATH}:{name}' {sentence}"):
        world.run(own.sed, 100, np.random.default_rng(0))


# ---- observations ------------------------------------------------------------------------------


def test_an_observation_by_import_path_equals_the_compiled_one() -> None:
    made, built_in = scenario(observation=f"{own.PATH}:PAPER"), scenario(observation="paper")
    assert (made.is_compiled, built_in.is_compiled) == (False, True)
    envs = [EdgeVectorEnv(each, 0, 4, peers="lq") for each in (made, built_in)]
    views = [env.reset(seed=5)[0] for env in envs]
    for tick in range(300):
        for key in views[0]:
            np.testing.assert_allclose(views[0][key], views[1][key], rtol=1e-6)
        views = [env.step(np.full(4, tick % 3))[0] for env in envs]


def test_environments_with_rules_of_ones_own_pass_the_checkers() -> None:
    mine = scenario(observation=f"{own.PATH}:PAPER", reward=RewardSpec(f"{own.PATH}:delay"))
    check_env(gym.make("fauno/Ether2-v0", scenario=mine).unwrapped)
    parallel_api_test(EdgeParallelEnv(mine), num_cycles=200)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("NAN", "gave features that are not finite"),
        ("NO_MARK", "gave 0.5 as first local feature: must be 1"),
        ("UNMASKED", "gave features of slots that the mask excludes: must be 0"),
    ],
)
def test_impossible_features_get_one_sentence(name: str, sentence: str) -> None:
    """When the scenario is compiled, and whenever they occur later."""
    with pytest.raises(ValueError, match=f"observation '{own.PATH}:{name}' {sentence}"):
        scenario(observation=f"{own.PATH}:{name}")
    wrong = replace(getattr(own, name), name=name)
    mask = np.array([[True, False]])
    with pytest.raises(ValueError, match=f"observation '{name}' {sentence}"):
        wrong.features(np.ones((1, NUM_LOCAL)), np.ones((1, 2, NUM_DESTINATION)), mask)


# ---- topologies and workloads ------------------------------------------------------------------


def test_a_topology_by_import_path_is_a_graph_or_a_topology() -> None:
    star = build_topology(TopologySpec(f"{own.PATH}:star", nodes=5))
    assert [len(row) for row in star.neighbours] == [4, 1, 1, 1, 1]
    assert build_topology(TopologySpec(f"{own.PATH}:pair")).names == ["a", "b"]
    world = World(scenario(topology=TopologySpec(f"{own.PATH}:star", nodes=4)), [1])
    world.run(POLICIES["sed"], 200, np.random.default_rng(0))
    assert world.metrics().created.sum() > 20


def test_jobs_by_import_path_are_scaled_like_any() -> None:
    jobs = build_jobs(WorkloadSpec(f"{own.PATH}:equal_jobs", work_scale=0.5))
    assert jobs.instructions.tolist() == [5e6]
    assert scenario(workload=WorkloadSpec(f"{own.PATH}:equal_jobs")).net.mean_work == 1e7


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"topology": TopologySpec("no_such:x")}, "topology.kind is 'no_such:x': cannot be imp"),
        ({"topology": TopologySpec(f"{own.PATH}:fails")}, r"raised KeyError \('no such thing'\)"),
        ({"topology": TopologySpec(f"{own.PATH}:three")}, "must return a Topology or a networkx"),
        (
            {"topology": TopologySpec(f"{own.PATH}:empty_graph")},
            "topology.kind is .*: a network",
        ),
        ({"topology": TopologySpec(f"{own.PATH}:PATH")}, "must be a function, not 'tests"),
        ({"workload": WorkloadSpec("no_such:x")}, "workload.jobs is 'no_such:x': cannot be imp"),
        ({"workload": WorkloadSpec(f"{own.PATH}:fails")}, "workload.jobs is .*: raised KeyError"),
        ({"workload": WorkloadSpec(f"{own.PATH}:words")}, "must return a JobTable, not 'words'"),
        ({"reward": RewardSpec("no_such:x")}, "reward.kind is 'no_such:x': cannot be imported"),
        ({"reward": RewardSpec(f"{own.PATH}:PAPER")}, "must be a function of an observation"),
        ({"observation": "no_such:x"}, "observation is 'no_such:x': cannot be imported"),
        ({"observation": f"{own.PATH}:sed"}, "must be an Encoding"),
    ],
)
def test_what_cannot_be_used_gets_one_sentence_when_the_scenario_is_compiled(
    changes: dict, sentence: str
) -> None:
    spec = replace(ScenarioSpec(topology=SMALL), **changes)
    with pytest.raises(ValueError, match=sentence) as caught:
        Scenario(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: TopologySpec("rings"), r"topology.kind is 'rings': .*did you mean ring\?"),
        (lambda: WorkloadSpec("alibab"), r"workload.jobs is 'alibab': .*did you mean alibaba\?"),
        (lambda: RewardSpec("delays"), r"reward.kind is 'delays': .*did you mean delay\?"),
        (lambda: ScenarioSpec(observation="ful"), "observation is 'ful': must be one of full"),
    ],
)
def test_a_mistyped_name_is_refused_before_anything_is_imported(make, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


# ---- entry points ------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a distribution that registers rules of every group under names."""
    info = tmp_path / "own_rules-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-rules\nVersion: 1.0\n")
    entries = {
        "policies": "own-sed = tests.sim_env.own:Sed",
        "rewards": "own-delay = tests.sim_env.own:delay",
        "observations": "own-paper = tests.sim_env.own:PAPER",
        "topologies": "own-star = tests.sim_env.own:star",
        "workloads": "own-jobs = tests.sim_env.own:equal_jobs",
    }
    lines = [f"[fauno.{group}]\n{entry}\n" for group, entry in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("installed")
def test_rules_of_an_installed_package_are_named_by_their_entry_points() -> None:
    made = Scenario(
        ScenarioSpec(
            topology=TopologySpec("own-star", nodes=4),
            workload=WorkloadSpec("own-jobs"),
            reward=RewardSpec("own-delay"),
            observation="own-paper",
        )
    )
    assert (made.encoding.local, made.jobs.instructions.tolist()) == (7, [1e7])
    env = EdgeEnv(made, 1, peers="own-sed")  # a source of tasks
    env.reset(seed=1)
    assert any(env.step(0)[1] for _ in range(100))
    assert isinstance(get_policy("own-sed"), own.Sed)


@pytest.mark.usefixtures("installed")
def test_a_mistyped_entry_point_names_the_installed_ones() -> None:
    with pytest.raises(ValueError, match=r"policy is 'own-sedd': .*did you mean own-sed\?"):
        get_policy("own-sedd")

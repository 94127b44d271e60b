"""Every setting has an effect on the world or on the run, or is refused."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.federation.sizing import Sizer
from fauno_flwr.tasks.edge import EdgeTask
from sim_env.engine.reward import REWARDS
from sim_env.envs.vector import EdgeVectorEnv
from sim_env.network.topology import KINDS
from sim_env.scenario import ScenarioSpec
from sim_env.workload.schedule import SLOTS, multipliers
from sim_env.workload.workload import JOB_TABLES
from tests.fauno_flwr.config.effects import as_bytes, leaves, require_effect, write_files
from tests.sim_env import own

WORLD = [item.name for item in fields(ScenarioSpec)]
# What a choice needs besides its name, if only so that tasks are lost within a few ticks.
NEEDS = {
    **{
        f"reward.kind={kind}": ["workload.deadline_min=1", "workload.deadline_max=3"]
        for kind in ("sparse", "outcome")
    },
    "topology.kind=file": ["topology.path=a.json"],
    "workload.jobs=file": ["workload.path=a.csv"],
    "workload.jobs=types": ["workload.types=[{instructions: 1e6}]"],
    "workload.schedule.kind=steps": ["workload.schedule.steps=[{multiplier: 2, seconds: 1}]"],
}
KINDS_OF = [
    *([f"topology.kind={kind}"] for kind in KINDS),
    *([f"workload.jobs={jobs}"] for jobs in JOB_TABLES),
    *([f"workload.schedule.kind={kind}"] for kind in (*SLOTS, "steps")),
    *([f"reward.kind={kind}"] for kind in (*REWARDS, f"{own.PATH}:delay")),
    *([f"physics.link={link}"] for link in ("wireless", "fixed")),
    *([f"dynamics.{each}_mttf=100"] for each in ("node", "link")),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("settings")
    write_files(made)
    return made


def world_of(config: RunConfig) -> bytes:
    """Return everything of a compiled world that is read, but for rewards."""
    scenario = config.build_scenario()
    net = scenario.net._asdict()
    net.pop("reward")
    if not net["message_noise"]:
        del net["signal"], net["bandwidth"]
    factors = multipliers(config.workload.schedule, 12_000, config.physics.tick)
    changes = list(scenario.outages([1, 2]).due(30_000))
    parts = [*net.values(), scenario.observation_number, scenario.encoding.local, factors, changes]
    return as_bytes([*parts, scenario.topology.names])


def rewards_of(config: RunConfig) -> bytes:
    """Return what a node earns in some ticks, the idle ones among them."""
    scenario = config.build_scenario()
    env = EdgeVectorEnv(scenario, int(scenario.agents[0]), 2, "random", horizon=60)
    env.reset(seed=1)
    return as_bytes([env.step(np.full(2, tick % 2))[1] for tick in range(60)])


@pytest.mark.parametrize(
    "base",
    [[], *(pytest.param(base, marks=pytest.mark.slow) for base in KINDS_OF)],
    ids=lambda base: " ".join(base) or "default",
)
def test_every_setting_of_the_world_has_an_effect_or_is_refused(
    base: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every kind of network, jobs, schedule, reward, link and dynamics."""
    monkeypatch.chdir(folder)
    settings = ["workload.rate=4", *base, *NEEDS.get("".join(base), [])]
    config = load_config("ether2", settings)
    groups = [base[0].partition(".")[0]] if base else WORLD
    for fingerprint, some in ((world_of, set(groups) - {"reward"}), (rewards_of, {"reward"})):
        if some & set(groups):
            expected = fingerprint(config)
            for key, _ in leaves(config):
                if key.partition(".")[0] in some:
                    require_effect(settings, key, fingerprint, expected, folder)


def experience_of(config: RunConfig) -> bytes:
    """Return the decisions of a node in copies of the network of its own."""
    task = EdgeTask(config, config.build_scenario())
    population = task.make_population(1)
    with task.open(0, {}, population, 1, np.random.default_rng(1)) as experience:
        return as_bytes(list(vars(experience.collect(population)).values()))


def rollouts_of(config: RunConfig) -> bytes:
    """Return the rollouts that a fast node is asked for in its second message."""
    sizer = Sizer(config.training, lambda node_id: 0)
    sizer.request(1)
    sizer.observe_reply(1, 0.01)
    return as_bytes(sizer.request(1))


@pytest.mark.parametrize(
    ("key", "fingerprint"),
    [("training.peers", experience_of), ("training.seconds_per_message", rollouts_of)],
)
def test_settings_that_a_co_simulation_refuses_have_an_effect_through_flower(
    key: str, fingerprint: Callable[[RunConfig], bytes], folder: Path
) -> None:
    base = ["topology=ether1", "workload.rate=4", "training.ticks=60"]
    expected = fingerprint(load_config("ether2", base, "simulate"))
    require_effect(base, key, fingerprint, expected, folder, "simulate")

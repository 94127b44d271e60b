"""Pictures of the network."""

import gc
import subprocess
import sys
import warnings
import weakref
from pathlib import Path

import gymnasium as gym
import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from matplotlib.image import imread

import sim_env
from sim_env.envs import render
from sim_env.envs.parallel import EdgeParallelEnv
from sim_env.envs.picture import NetworkPicture
from sim_env.envs.places import places
from sim_env.envs.render import draw_world, save_frames
from sim_env.envs.single import EdgeEnv
from sim_env.network.topology import Topology, TopologySpec
from sim_env.scenario import Scenario, ScenarioSpec, load_scenario
from sim_env.world import World

SHAPE = (700, 1000, 3)
IDS = [f"fauno/{name.capitalize()}-v0" for name in sim_env.SCENARIOS]


def run(world: World, ticks: int) -> World:
    for _ in range(ticks):
        world.step(np.zeros((world.num_worlds, world.num_nodes), np.int32))
    return world


def lattice(position: np.ndarray) -> Topology:
    """Build a path of nodes with unknown roles."""
    nodes = len(position)
    return Topology(
        names=[f"node_{i}" for i in range(nodes)],
        roles=[f"role_{i % 3}" for i in range(nodes)],
        speed=np.full(nodes, 1e8),
        capacity=np.full(nodes, 5),
        position=position,
        neighbours=[[j for j in (i - 1, i + 1) if 0 <= j < nodes] for i in range(nodes)],
        is_agent=np.ones(nodes, bool),
        is_source=np.ones(nodes, bool),
    )


def test_a_frame_shows_the_loads() -> None:
    world = World(load_scenario("balanced"), [1, 2])
    empty = draw_world(world)
    assert empty.shape == SHAPE
    assert empty.dtype == np.uint8
    assert np.array_equal(empty, draw_world(world, 1))
    run(world, 200)
    assert (draw_world(world) != empty).any()
    assert (draw_world(world) != draw_world(world, 1)).any()
    assert np.array_equal(draw_world(world), draw_world(world))
    with pytest.raises(ValueError, match="index is 2: must be between 0 and 1"):
        draw_world(world, 2)


@pytest.mark.parametrize(
    "spec",
    [
        TopologySpec(clusters=4),
        TopologySpec(kind="random", nodes=20),
        TopologySpec(kind="random", nodes=100, radius=18),
    ],
)
def test_networks_of_many_sizes_are_drawn(spec: TopologySpec) -> None:
    world = run(World(Scenario(ScenarioSpec(topology=spec)), [0]), 50)
    assert len(np.unique(draw_world(world).reshape(-1, 3), axis=0)) > 100


@pytest.mark.parametrize(
    ("position", "to_scale"),
    [
        (np.zeros((9, 2)), False),
        (np.array([[0.0, 0], [10, 10], [10, 10], [0, 10]]), False),
        (np.array([[0.0, 0], [1e-3, 0], [1e6, 0]]), True),
        (np.zeros((1, 2)), False),
    ],
)
def test_marks_do_not_cover_each_other(position: np.ndarray, to_scale: bool) -> None:
    radius = np.full(len(position), 7.0)
    place, metre = places(lattice(position), np.array([560.0, 430.0]), radius)
    assert np.isfinite(place).all()
    apart = nx.utils.pairwise(sorted(map(tuple, place)))
    assert all(np.hypot(a[0] - b[0], a[1] - b[1]) > 14 for a, b in apart)
    assert (metre is not None) == to_scale


def test_unknown_roles_are_drawn() -> None:
    world = World(Scenario(ScenarioSpec(), topology=lattice(np.eye(9, 2))), [0])
    assert draw_world(world).shape == SHAPE


def test_the_figure_is_used_again_and_goes_with_its_scenario() -> None:
    before = set(plt.get_fignums())
    world = World(load_scenario("ether2"), [0])
    draw_world(world)
    picture = render._PICTURES[world.scenario]
    draw_world(run(world, 5))
    assert isinstance(picture, NetworkPicture)
    assert render._PICTURES[world.scenario] is picture
    alive = weakref.ref(picture)
    del picture, world
    gc.collect()
    assert alive() is None
    assert set(plt.get_fignums()) == before


def test_frames_are_saved_in_order(tmp_path: Path) -> None:
    world = World(load_scenario("ether2"), [0])
    film = save_frames((run(world, 100) for _ in range(3)), tmp_path / "film")
    assert [path.name for path in film] == [f"frame_0000{i}.png" for i in range(3)]
    frames = [np.round(imread(path)[..., :3] * 255).astype(np.uint8) for path in film]
    assert all(frame.shape == SHAPE for frame in frames)
    assert (frames[0] != frames[1]).any()
    assert np.array_equal(frames[2], draw_world(world))
    assert len(save_frames(world, tmp_path / "still")) == 1
    assert len(save_frames([draw_world(world)] * 2, tmp_path / "arrays")) == 2
    with pytest.raises(FileExistsError, match="holds frames already"):
        save_frames(world, tmp_path / "still")


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("mode", [None, "rgb_array"])
def test_registered_ids_pass_the_checker_in_every_mode(env_id: str, mode: str | None) -> None:
    env = gym.make(env_id, render_mode=mode)
    check_env(env.unwrapped)  # tries the other modes by itself
    env.close()


@pytest.mark.parametrize("kind", [EdgeEnv, EdgeParallelEnv])
def test_environments_return_frames(kind: type[EdgeEnv] | type[EdgeParallelEnv]) -> None:
    env = kind(render_mode="rgb_array")
    with pytest.raises(gym.error.ResetNeeded):
        env.render()
    env.reset(seed=0)
    frame = env.render()
    assert frame is not None
    assert frame.shape == SHAPE
    env.close()
    env = kind()
    env.reset(seed=0)
    assert env.render() is None


def test_without_a_display_human_mode_says_so_and_runs_on() -> None:
    plt.switch_backend("agg")
    with pytest.warns(UserWarning, match="render_mode='human' needs a display"):
        env = EdgeParallelEnv(render_mode="human")
    before = plt.get_fignums()
    env.reset(seed=0)
    env.step({})
    assert env.render() is None
    assert plt.get_fignums() == before


def test_human_mode_keeps_one_window_and_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "FILE_BACKENDS", set())  # takes Agg's figure for a window
    monkeypatch.delenv("DISPLAY", raising=False)
    before = len(plt.get_fignums())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = EdgeEnv(render_mode="human")
    env.reset(seed=0)
    for _ in range(3):
        env.step(0)
    assert env.render() is None
    assert len(plt.get_fignums()) == before + 1
    env.close()
    env.close()
    assert len(plt.get_fignums()) == before


def test_matplotlib_is_imported_only_to_draw() -> None:
    code = "import sys, sim_env.envs.parallel; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

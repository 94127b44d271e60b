"""Version 0 from another run: newcomers begin with what others have learned."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.cosim.grid import CosimGrid
from fauno_flwr.federation.run import Run
from fauno_flwr.learning.agents import Arrays
from fauno_flwr.learning.registry import make_population
from fauno_flwr.results.directory import RunDirectory
from fauno_flwr.tasks.edge import EdgeTask
from fauno_flwr.tasks.start import first_version, start_agents
from tests.fauno_flwr.tiny import TINY

SETTINGS = [*TINY, "federation.versions=1", "evaluation.policies=[]"]


def read(path: Path, *overrides: str) -> tuple[RunConfig, Arrays]:
    config = load_config("ether2", [*SETTINGS, f"federation.start={path}", *overrides])
    return config, first_version(config, make_population(2, config, config.build_scenario()))


@pytest.fixture(scope="module")
def critic(tmp_path_factory) -> tuple[Path, Arrays]:
    """Write a critic that differs from an initial one."""
    config = load_config("ether2", SETTINGS)
    shared = make_population(1, config, config.build_scenario()).get_shared("critic")
    rng = np.random.default_rng(0)
    arrays = {n: rng.normal(size=a.shape).astype(a.dtype) for n, a in shared.items()}
    path = tmp_path_factory.mktemp("start") / "critic.safetensors"
    save_file(arrays, path)
    return path, arrays


def test_version_0_is_the_file(critic: tuple[Path, Arrays]) -> None:
    path, arrays = critic
    config, found = read(path)
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    agents = start_agents(config, make_population(2, config, config.build_scenario()))
    for agent in range(2):
        shared = agents.get_shared("critic", agent)
        assert all(np.array_equal(shared[name], arrays[name]) for name in arrays)


def test_a_network_of_another_size_takes_the_same_critic(critic: tuple[Path, Arrays]) -> None:
    _, found = read(critic[0], "topology=random10")
    assert all(np.array_equal(found[name], array) for name, array in critic[1].items())


def test_every_node_begins_with_it(critic: tuple[Path, Arrays], tmp_path: Path) -> None:
    """At a rate of almost 0 nobody moves away from the start, and "before training" is there."""
    path, arrays = critic
    config, _ = read(path, "agent.learning_rate=1e-12")
    scenario = config.build_scenario()
    grid, task = CosimGrid(config, scenario), EdgeTask(config, scenario)
    rows = Run(grid, config, task, RunDirectory(tmp_path / "run")).execute()
    last = load_file(tmp_path / "run" / "checkpoints" / "critic.safetensors")
    for name, array in arrays.items():
        np.testing.assert_allclose(last[name], array, atol=1e-6)
    by_policy = {row["policy"]: row for row in rows}
    assert by_policy["fauno"]["finished_ratio"] == by_policy["untrained"]["finished_ratio"]
    config = replace(config, federation=replace(config.federation, start=""))
    initial = EdgeTask(config, scenario).evaluate(grid.population)[1]
    assert initial["policy"] == "untrained"
    assert initial["response_mean"] != by_policy["untrained"]["response_mean"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["agent.hidden=8"], r"its array \S+ has the shape .*must be of a run with the same agent"),
        (["federation.share=model"], r"its array actor\.\S+ is missing, and here has the shape"),
        (["federation.share=nothing"], r"has no effect with federation.share=nothing"),
    ],
)
def test_a_file_of_other_agents_is_refused(
    critic: tuple[Path, Arrays], overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read(critic[0], *overrides)


def test_a_file_that_holds_no_critic_is_refused(
    critic: tuple[Path, Arrays], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"none.safetensors': must be a file, as checkpoints/"):
        read(tmp_path / "none.safetensors")
    (tmp_path / "broken").write_text("{")
    with pytest.raises(ConfigError, match=r"broken': cannot be read: "):
        read(tmp_path / "broken")
    name, array = next(iter(critic[1].items()))
    save_file({**critic[1], name: np.full_like(array, np.nan)}, tmp_path / "nan")
    with pytest.raises(ConfigError, match=rf"its array {name} has values that are not finite"):
        read(tmp_path / "nan")

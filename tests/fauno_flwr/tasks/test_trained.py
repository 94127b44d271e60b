"""Trained actors in Python, from the folder of a run."""

import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pettingzoo
import pytest
from safetensors.numpy import save_file

import fauno_flwr
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.learning.registry import make_population
from fauno_flwr.tasks.gym import GymTask
from sim_env.evaluation import run_policy
from sim_env.scenario import Scenario
from tests.paths import ROOT

RNG = np.random.default_rng


def write_run(folder: Path, *overrides: str) -> Path:
    """Write the folder of a run whose actors are random, each another one."""
    config = load_config("ether2", ["federation.collect_actors=true", *overrides])
    scenario, rng = config.build_scenario(), RNG(1)
    population = make_population(len(scenario.agents), config, scenario)
    arrays = {}
    for agent, node in enumerate(scenario.agents):
        for name, array in population.get_actor(agent).items():
            noise = rng.normal(0, 0.3, array.shape)
            arrays[f"{scenario.topology.names[node]}.{name}"] = (array + noise).astype(np.float32)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(config.to_yaml())
    save_file(arrays, folder / "checkpoints" / "actors.safetensors")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "padded", "agent=paper", "observation=paper")


def test_importing_the_package_stays_cheap() -> None:
    script = "import sys, fauno_flwr; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert not set(done.stdout.split()) & {"torch", "sim_env", "numpy", "flwr"}


def test_the_example_of_the_docstring_runs(run: Path) -> None:
    text = fauno_flwr.load_agents.__doc__ or ""
    code = re.sub(r"^    ", "", text[text.index("        import gymnasium") :], flags=re.MULTILINE)
    names: dict = {}
    exec(re.sub("^    ", "", code, flags=re.MULTILINE).replace("results/cosim", str(run)), names)
    assert names["truncated"]
    assert names["env"].unwrapped.world.now == 200


def test_the_example_of_the_page_runs(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "learners.md").read_text()
    (code,) = re.findall(r"```python\n(.+?)```", page, re.DOTALL)
    exec(code.replace("results/cosim", str(run)), {})
    assert re.search(r"^fauno 0\.\d+$\n^sed 0\.\d+$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("kind", ["run", "padded"])
def test_one_node_all_nodes_and_the_joint_policy_agree(
    kind: str, greedy: bool, request: pytest.FixtureRequest
) -> None:
    """Decisions about the same observations: of the parallel environment, node by node, jointly."""
    agents = fauno_flwr.load_agents(request.getfixturevalue(kind), greedy=greedy)
    env = pettingzoo.make("parallel", "fauno/Ether2-v0", horizon=150, scenario=agents.scenario)
    observations, _ = env.reset(seed=1)
    decisions = agreed = 0
    while env.agents:
        seen = env.world.observe()
        joint = agents.policy(seen, RNG(0))
        actions = agents.act_all(observations)
        for row, node in enumerate(seen.node):
            name = agents.scenario.topology.names[node]
            assert observations[name]["action_mask"][actions[name]]
            decisions += 1
            agreed += int(actions[name] == joint[row])
        observations, *_ = env.step(actions)
    assert decisions > 100
    assert agreed == decisions if greedy else agreed < decisions


def test_sampled_actions_follow_the_probabilities_and_repeat_with_a_seed(run: Path) -> None:
    agents = fauno_flwr.load_agents(run, greedy=False, seed=5)
    env = gymnasium.make_vec("fauno/Ether2-v0", num_envs=128, warmup=100)
    observation, _ = env.reset(seed=1)
    deciding = np.flatnonzero(observation["local"][:, 0])[0]
    view = {name: array[deciding] for name, array in observation.items()}
    many = {name: np.repeat(array[None], 4000, axis=0) for name, array in view.items()}
    node = agents.names[0]
    chosen = agents.act(node, many)
    again = fauno_flwr.load_agents(run, greedy=False, seed=5).act(node, many)
    np.testing.assert_array_equal(chosen, again)
    scores = agents.policy.scores(
        0, view["local"][None], view["destinations"][None], view["action_mask"][None] > 0
    )[0]
    p = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    found = np.bincount(chosen, minlength=len(p)) / len(chosen)
    assert np.abs(found - p).max() < 4 * 0.5 / np.sqrt(len(chosen))
    assert (found > 0).sum() > 1


def test_agents_go_to_another_network_by_name_and_role(run: Path) -> None:
    larger = load_config("ether2", ["topology=ether4"]).build_scenario()
    agents, own = fauno_flwr.load_agents(run, larger), fauno_flwr.load_agents(run)
    assert len(agents.names) > len(own.names)
    for name in set(agents.names) & set(own.names):
        mine = agents.population.get_actor(agents.names.index(name))
        theirs = own.population.get_actor(own.names.index(name))
        assert all(np.array_equal(array, theirs[key]) for key, array in mine.items())
    metrics = run_policy(larger, agents.policy, [1], warmup=20, window=100)
    assert metrics.finished.sum() > 0


def test_agents_of_a_gymnasium_run(tmp_path: Path) -> None:
    config = load_config("cartpole", ["federation.collect_actors=true", "world.nodes=2"])
    task = GymTask(config)
    actor = task.make_population(1).get_actor()
    arrays = {f"{node}.{key}": array for node in task.names for key, array in actor.items()}
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    save_file(arrays, tmp_path / "checkpoints" / "actors.safetensors")
    agents = fauno_flwr.load_agents(tmp_path)
    assert agents.names == ["node_0", "node_1"]
    observation, _ = gymnasium.make("CartPole-v1").reset(seed=1)
    assert agents.act("node_1", observation) in (0, 1)
    assert agents.act("node_1", observation, mask=np.array([False, True])) == 1
    with pytest.raises(ConfigError, match=r"learned 'CartPole-v1'"):
        fauno_flwr.load_agents(tmp_path, "ether2")


def test_what_cannot_be_loaded_is_one_sentence(run: Path, padded: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no config.yaml: must be the folder of a run"):
        fauno_flwr.load_agents(tmp_path)
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    with pytest.raises(ConfigError, match=r"holds no actors: train with federation.collect"):
        fauno_flwr.load_agents(tmp_path)
    with pytest.raises(ConfigError, match=r"holds no best actors: train with evaluation.every=N"):
        fauno_flwr.load_agents(run, best=True)
    best = tmp_path / "checkpoints" / "best"
    best.mkdir(parents=True)
    best.joinpath("actors.safetensors").write_bytes(
        (run / "checkpoints" / "actors.safetensors").read_bytes()
    )
    with pytest.raises(ConfigError, match=r"was not finished: the best so far can be had"):
        fauno_flwr.load_agents(tmp_path)
    assert fauno_flwr.load_agents(tmp_path, best=True).names
    (tmp_path / "checkpoints" / "actors.safetensors").write_bytes(b"damaged")
    with pytest.raises(ConfigError, match="cannot be read"):
        fauno_flwr.load_agents(tmp_path)
    with pytest.raises(ConfigError, match=r"node is 'rpi_99': must be one of rpi_0, "):
        fauno_flwr.load_agents(run).act("rpi_99", {})
    other = Scenario(load_config("ether2", ["observation=paper"]).scenario_spec)
    with pytest.raises(ConfigError, match="the actors of the run do not fit"):
        fauno_flwr.load_agents(run, other)

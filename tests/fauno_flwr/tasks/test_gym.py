"""Environments of gymnasium instead of a network: conventions, refusals, learning."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from fauno_flwr import client_app
from fauno_flwr.config.agent import PADDED, STATE, DDQNConfig, PPOConfig
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.federation.run import Run
from fauno_flwr.learning.ddqn import QPopulation
from fauno_flwr.learning.ppo import Population
from fauno_flwr.learning.targets import advantages
from fauno_flwr.learning.transitions import Decisions, stack
from fauno_flwr.results.directory import RunDirectory, read_lines
from fauno_flwr.results.report import format_rows
from fauno_flwr.tasks.gym import Flat, GymWorlds
from fauno_flwr.tasks.registry import make_task
from fauno_flwr.tasks.trained import read_actors
from strategies.grids import InMemoryGrid
from tests.paths import ROOT


class Counter(gym.Env):
    """Shows how many steps an episode has had; every third episode is truncated.

    Action `first` + 1 is legal in odd steps only.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Discrete(2, start=5)

    def __init__(self, length: int = 4) -> None:
        self.length, self.episodes = length, 0

    def _told(self) -> tuple[np.ndarray, dict[str, Any]]:
        mask = np.array([1, self.step_count % 2], np.int8)
        return np.array([self.step_count, self.episodes], float), {"action_mask": mask}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.step_count, self.episodes = 0, self.episodes + 1
        return self._told()

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert action == 5 or (action == 6 and self.step_count % 2 == 1)
        self.step_count += 1
        over, cut = self.step_count == self.length, self.episodes % 3 == 0
        seen, info = self._told()
        return seen, float(self.step_count), over and not cut, over and cut, info


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    odd = {
        "Counter-v0": Counter,
        "Continuous-v0": lambda: odd_env(Counter.observation_space, spaces.Box(0, 1)),
        "Words-v0": lambda: odd_env(spaces.Text(5), spaces.Discrete(2)),
        "Huge-v0": lambda: odd_env(spaces.Box(0, 1, (200, 200)), spaces.Discrete(2)),
    }
    for name, entry in odd.items():
        gym.register(f"tests/{name}", entry, disable_env_checker=True, order_enforce=False)
    yield
    for name in odd:
        gym.registry.pop(f"tests/{name}")


def odd_env(seen: gym.Space, choice: gym.Space) -> gym.Env:
    env = Counter()
    env.observation_space, env.action_space = seen, choice
    return env


def population(actions: int = 2, local: int = 2) -> Population:
    return Population(1, PPOConfig(network=PADDED), 0, Flat(local), actions)


def collect(rollouts: int, worlds: int = 3, ticks: int = 21, seed: int = 0) -> list[Decisions]:
    with_rng = np.random.default_rng(seed)
    lanes = GymWorlds("tests/Counter-v0", worlds, ticks, with_rng)
    try:
        return [lanes.collect(population()) for _ in range(rollouts)]
    finally:
        lanes.close()


def test_terminated_and_truncated_episodes_are_told_apart() -> None:
    """Every row is followed by the next one of its episode, ends it, or lends its value."""
    first, second = collect(2)
    for taken in (first, second):
        assert (~taken.last).sum() == 3 * 21
        assert not (taken.last & taken.terminal).any()
        step, episode = taken.local.T
        for t in range(len(taken)):
            ends = step[t] == 3  # the fourth step of an episode
            truncated = episode[t] % 3 == 0
            assert taken.terminal[t] == (ends and not truncated)
            if not taken.last[t] and not taken.terminal[t]:
                assert (step[t + 1], episode[t + 1]) == (step[t] + 1, episode[t])
            assert taken.reward[t] == (0 if taken.last[t] else step[t] + 1)
            assert taken.mask[t].tolist() == [True, step[t] % 2 == 1]
            assert taken.mask[t, taken.action[t]]
    assert first.terminal.any()
    assert (first.last & (first.local[:, 0] == 4)).any()
    start, end = second.local[0], first.local[np.flatnonzero(first.last)[-1]]
    assert start[1] >= 1
    assert end[1] >= 5


def test_the_same_seed_gives_the_same_decisions() -> None:
    for one, two in zip(collect(2, seed=7), collect(2, seed=7), strict=True):
        for name, column in vars(one).items():
            np.testing.assert_array_equal(column, getattr(two, name))


def test_advantages_end_with_an_episode() -> None:
    """With lambda 1 an advantage is the return minus the value; bootstrapped if truncated."""
    rng = np.random.default_rng(1)
    reward, value = rng.standard_normal((2, 7))
    terminal = np.array([0, 0, 1, 0, 0, 0, 1], bool)
    last = np.array([0, 0, 0, 0, 1, 0, 0], bool)
    gamma = 0.9
    got = advantages(reward, value, last, gamma, 1.0, terminal)
    returns = np.zeros(7)
    returns[2] = reward[2]
    returns[1] = reward[1] + gamma * returns[2]
    returns[0] = reward[0] + gamma * returns[1]
    returns[3] = reward[3] + gamma * value[4]
    returns[4] = value[4]
    returns[6] = reward[6]
    returns[5] = reward[5] + gamma * returns[6]
    np.testing.assert_allclose(got, returns - value)


def test_a_critic_learns_where_episodes_end() -> None:
    """Reward 1 in every step of two: values are 1 + gamma and 1, not those of an endless task."""
    rows = 400
    step = np.arange(rows) % 2
    batch = Decisions(
        local=np.stack([step, 1 - step], 1).astype(np.float32),
        destination=np.zeros((rows, 2, 0), np.float32),
        mask=np.ones((rows, 2), np.bool_),
        action=np.zeros(rows, np.int64),
        reward=np.ones(rows, np.float32),
        last=np.zeros(rows, np.bool_),
        terminal=step == 1,
    )
    config = PPOConfig(network=PADDED, gamma=0.9, critic=STATE)
    learner = Population(1, config, 0, Flat(2), 2)
    rng = np.random.default_rng(0)
    for _ in range(30):
        learner.update([batch[:200]], 5e-3, [rng])
    local, destination, mask, _ = stack([batch[:2]])
    features = learner.critic.features(local, destination, mask)
    value = learner.critic.values(*features).detach().numpy()[0]
    np.testing.assert_allclose(value, [1.9, 1.0], atol=0.1)
    # The same of double DQN, whose target must not look behind the end.
    settings = DDQNConfig(network=PADDED, gamma=0.9, target_period=8)
    other = QPopulation(1, settings, 0, Flat(2), 2)
    for _ in range(60):
        other.update([batch[-100:]], 5e-3, [rng])
    scores = other.actor.logits(local, destination, mask).detach().numpy()[0]
    np.testing.assert_allclose(scores[:, 0], [1.9, 1.0], atol=0.15)


@pytest.mark.parametrize(
    ("env_id", "sentence"),
    [
        ("", "must name an environment"),
        ("NoSuchThing-v0", "cannot be made"),
        ("no_such_package:Thing-v0", "cannot be made"),
        ("tests/Continuous-v0", r"its action space is Box\(.*must be Discrete"),
        ("tests/Words-v0", r"its observation space is Text\(.*must be a Box"),
        ("tests/Huge-v0", "of at most 4096 numbers"),
    ],
)
def test_what_cannot_be_learned_is_refused_in_a_sentence(env_id: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make_task(load_config("ether2", ["world=gym", f"world.env_id={env_id or chr(39) * 2}"]))


def test_commands_that_need_a_network_say_so() -> None:
    with pytest.raises(ConfigError, match="with a network"):
        load_config("cartpole").build_scenario()
    with pytest.raises(ConfigError, match="must be at most 4, the number of nodes that learn"):
        make_task(load_config("cartpole", ["federation.buffer_size=5"]))


def test_a_federation_learns_cart_pole(tmp_path: Path) -> None:
    """The preset, half as long: better than twice the random policy."""
    config = load_config("cartpole", ["evaluation.worlds=8", "federation.versions=10"])
    task = make_task(config)
    grid = InMemoryGrid(client_app.app, 4)
    rows = Run(grid, config, task, RunDirectory(tmp_path / "run")).execute()
    trained, random = rows
    assert trained["policy"] == "fauno"
    assert trained["return"]["mean"] > 2 * random["return"]["mean"]
    assert set(trained["by_node"]) == set(task.names)
    assert "return per episode" in format_rows(rows, None, 8)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["env_id"] == "CartPole-v1"
    assert summary["table"] == rows
    assert (tmp_path / "run" / "figures" / "comparison.png").exists()
    assert (tmp_path / "run" / "figures" / "learning.png").exists()
    replies = [e for e in read_lines(tmp_path / "run" / "events.jsonl") if e["event"] == "reply"]
    assert all(e["metrics"]["num-steps"] == 2 * 8 * 128 for e in replies)
    assert {e["name"] for e in replies} == set(task.names)


def test_a_critic_of_actions_is_shared_in_an_environment_too(tmp_path: Path) -> None:
    small = ["training.worlds=2", "training.ticks=32", "evaluation.worlds=2"]
    settings = ["agent=ppo", "federation.share=critic", "federation.versions=2", *small]
    config = load_config("cartpole", settings)
    grid = InMemoryGrid(client_app.app, 4)
    rows = Run(grid, config, make_task(config), RunDirectory(tmp_path / "run")).execute()
    assert [row["policy"] for row in rows] == ["fauno", "random"]
    (actor, *_) = read_actors(tmp_path / "run").values()
    assert {name.partition(".")[0] for name in actor} == {"actor", "critic"}


def test_an_evaluation_during_training_starts_in_other_states() -> None:
    """It is the return of the table from the initial states of the validation seeds."""
    settings = ["evaluation.worlds=3", "evaluation.window=60"]
    config = load_config("cartpole", settings)
    task = make_task(config)
    agents = task.make_population(4)
    first = config.evaluation.validation_seeds.start
    other = make_task(load_config("cartpole", [*settings, f"evaluation.seed={first}"]))
    assert task.validate(agents)["return"] == other.evaluate(agents)[0]["return"]["mean"]
    assert not set(config.evaluation.seeds) & set(config.evaluation.validation_seeds)


def test_the_example_of_the_docs_is_learned() -> None:
    """The page's own environment, as it stands there, by one node."""
    page = (ROOT / "docs" / "bring_your_own.md").read_text()
    (code,) = re.findall(r"```python\n(.+?)```", page, re.DOTALL)
    exec(compile(code, "bring_your_own.md", "exec"), {"__name__": "__main__"})
    try:
        settings = ["world.env_id=Lift-v0", "world.nodes=1", "evaluation.worlds=4"]
        task = make_task(load_config("cartpole", settings))
        learner, rng = task.make_population(1), np.random.default_rng(0)
        with task.open(0, {}, learner, 8, rng) as experience:
            for _ in range(8):
                learner.update([experience.collect(learner)], 2.5e-3, [rng])
        trained, random = task.evaluate(learner)
    finally:
        gym.registry.pop("Lift-v0")
    assert trained["return"]["mean"] > random["return"]["mean"]
    assert trained["length"]["mean"] <= 9

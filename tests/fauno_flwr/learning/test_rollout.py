"""Compiled choices against the scores of torch, and the recorder against plain bookkeeping."""

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fauno_flwr.cli.main import app
from fauno_flwr.config.agent import CRITICS
from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.learning import rollout
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.policy import ActorPolicy
from fauno_flwr.learning.recorder import Recorder
from fauno_flwr.learning.registry import make_population
from fauno_flwr.learning.rollout import Weights
from fauno_flwr.learning.transitions import Decisions
from sim_env.engine.compilation import OPTIONS
from sim_env.policies.compiled import LQRAND
from sim_env.scenario import Scenario
from sim_env.world import World

SEEDS = [5, 6, 7]
KINDS = [(network, seen) for network in ("equivariant", "padded") for seen in ("full", "paper")]


class Setting(NamedTuple):
    """One Ether cluster under high load, with actors of random weights."""

    config: RunConfig
    scenario: Scenario
    population: AgentStack
    nodes: np.ndarray

    def weights(self, greedy: bool) -> Weights:
        """Return the parameters of the actors."""
        return self.population.weights(self.nodes, greedy)

    def recorder(self, keep: int) -> Recorder:
        """Return the recorder of new worlds."""
        return Recorder(World(self.scenario, SEEDS), len(self.scenario.agents), keep)


def setting(*overrides: str) -> Setting:
    config = load_config("balanced", ["topology=ether1", *overrides])
    scenario = config.build_scenario()
    agents = len(scenario.agents)
    population = make_population(agents, config, scenario)
    rng = np.random.default_rng(0)
    for agent in range(agents):
        actor = population.get_actor(agent)
        noisy = {k: v + rng.normal(0, 0.4, v.shape).astype(np.float32) for k, v in actor.items()}
        population.set_actor(noisy, agent)
    nodes = np.full(scenario.topology.num_nodes, -1)
    nodes[scenario.agents] = np.arange(agents)
    return Setting(config, scenario, population, nodes)


def by_agent(made: Setting, weights: Weights, ticks: int = 400) -> list[Decisions]:
    recorder = made.recorder(ticks)
    recorder.roll(weights, ticks)
    return [recorder.take(agent) for agent in range(len(made.scenario.agents))]


def scores(made: Setting, agent: int, taken: Decisions) -> np.ndarray:
    one = made.population.select([agent])
    rows = [torch.from_numpy(x)[None] for x in (taken.local, taken.destination, taken.mask)]
    with torch.no_grad():
        return sum(
            weight * one.networks[name].logits(*rows)[0].numpy()
            for name, weight in one.acting.items()
        )


@pytest.mark.parametrize(("network", "observation"), KINDS)
@pytest.mark.parametrize("critic", CRITICS)
def test_the_greedy_choice_is_that_of_torch(critic: str, network: str, observation: str) -> None:
    settings = f"agent.network={network}", f"observation={observation}", f"agent.critic={critic}"
    made = setting(*settings)
    clear = total = 0
    for agent, taken in enumerate(by_agent(made, made.weights(greedy=True))):
        logits = scores(made, agent, taken)
        best = logits.argmax(1)
        others = logits.copy()
        others[np.arange(len(taken)), best] = -np.inf
        decided = logits.max(1) - others.max(1) > 1e-4  # neighbours that look the same tie
        assert np.array_equal(best[decided], taken.action[decided])
        chosen = logits[np.arange(len(taken)), taken.action]
        assert np.all(chosen >= logits.max(1) - 1e-4)
        clear, total = clear + int(decided.sum()), total + len(taken)
    assert total > 1000
    assert clear > 0.7 * total


@pytest.mark.parametrize("network", ["equivariant", "padded"])
@pytest.mark.parametrize(("critic", "epsilon"), [("state", None), ("action", None), ("state", 0.3)])
def test_sampled_actions_have_the_frequencies_of_torch(
    network: str, critic: str, epsilon: float | None
) -> None:
    """Softmax, or epsilon-greedy; counts of each slot within five standard deviations."""
    made = setting(f"agent.network={network}", f"agent.critic={critic}")
    agents = len(made.scenario.agents)
    weights = made.weights(greedy=epsilon is not None)
    if epsilon is not None:
        weights = weights._replace(epsilon=np.full(agents, epsilon))
    total = 0
    for agent, taken in enumerate(by_agent(made, weights)):
        logits = torch.from_numpy(scores(made, agent, taken))
        chance = torch.softmax(logits, 1).numpy().astype(np.float64)
        if epsilon is not None:
            chance = epsilon * taken.mask / taken.mask.sum(1, keepdims=True)
            chance[np.arange(len(taken)), logits.argmax(1)] += 1 - epsilon
        assert taken.mask[np.arange(len(taken)), taken.action].all()
        counts = np.bincount(taken.action, minlength=taken.mask.shape[1])
        spread = np.sqrt((chance * (1 - chance)).sum(0))
        assert np.all(np.abs(counts - chance.sum(0)) <= 5 * spread + 1e-6)
        total += len(taken)
    assert total > 1000


@pytest.mark.parametrize("critic", CRITICS)
def test_what_agents_think_of_actions_is_what_torch_says(critic: str) -> None:
    """Probabilities are the softmax of what acts; values those of a critic of actions."""
    made = setting(f"agent.critic={critic}")
    world = World(made.scenario, SEEDS)
    world.run(made.population.policy(made.nodes), 100, np.random.default_rng(0))
    seen = world.observe()
    assert len(seen) > 5
    probabilities, values = made.population.scores(made.nodes)(seen)
    local, destination = map(torch.from_numpy, seen.features())
    mask = torch.from_numpy(seen.mask)
    agents = made.nodes[seen.node]
    for row, agent in enumerate(agents.tolist()):
        alone = made.population.select([agent])
        one = (local[None, row : row + 1], destination[None, row : row + 1], mask[None, [row]])
        with torch.no_grad():
            logits = alone.actor.logits(*one)[0, 0]
            if critic == "action":
                value = alone.networks["critic"].logits(*one)[0, 0]  # type: ignore[operator]
                logits = logits + value / made.config.agent.temperature
                legal = value.numpy()[seen.mask[row]]
                assert values is not None
                np.testing.assert_allclose(values[row][seen.mask[row]], legal, atol=1e-4)
        chance = torch.softmax(logits, 0).numpy()
        np.testing.assert_allclose(probabilities[row], chance, atol=1e-4)
    assert (values is not None) == (critic == "action")


def test_an_epsilon_greedy_agent_takes_the_best_action_or_any() -> None:
    config = load_config("balanced", ["topology=ether1", "agent=ddqn", "federation.share=model"])
    scenario = config.build_scenario()
    population = make_population(len(scenario.agents), config, scenario)
    nodes = scenario.agent_of_node
    world = World(scenario, SEEDS)
    world.run(population.policy(nodes), 100, np.random.default_rng(0))
    seen = world.observe()
    probabilities, values = population.scores(nodes)(seen)
    _, epsilon = population.exploration()
    assert values is not None
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    best = np.where(seen.mask, values, -np.inf).argmax(axis=1)
    expected = 1 - epsilon[0] + epsilon[0] / seen.mask.sum(axis=1)
    np.testing.assert_allclose(probabilities[np.arange(len(seen)), best], expected)
    assert (probabilities[~seen.mask] == 0).all()


class RowWisePolicy(ActorPolicy):
    """Equivariant actors without BLAS: equal neighbours get equal scores, wherever they stand.

    In a matrix product of BLAS the position of a row may change its rounding, and with it which of
    two equal neighbours is chosen; on some processors it does.
    """

    def scores(
        self, agent: int, local: np.ndarray, destination: np.ndarray, mask: np.ndarray
    ) -> np.ndarray:
        """Compute the scores of one agent, shape (R, K); minus infinity where illegal."""
        w = self.weights
        best = np.where(mask[:, :, None], destination, np.float32(np.inf)).min(axis=1)
        base = np.einsum("rf,fh->rh", local, w.local[agent]) + w.bias[agent]
        base -= np.einsum("rd,dh->rh", best, w.best[agent])
        x = np.tanh(base[:, None] + np.einsum("rkd,dh->rkh", destination, w.slot[agent, 0]))
        middle = w.middle[agent]
        blocks = x.reshape(*x.shape[:2], -1, middle.shape[1])
        second = np.einsum("rknh,nhg->rkng", blocks, middle.reshape(-1, *2 * middle.shape[1:]))
        x = np.tanh(second.reshape(x.shape) + w.middle_bias[agent])
        scores = np.einsum("rkg,g->rk", x, w.last[agent, 0]) + w.last_bias[agent, 0]
        return np.where(mask, scores, np.float32(-np.inf))


class Book:
    """The expected record, kept tick by tick in plain Python."""

    def __init__(self, made: Setting) -> None:
        self.made, self.world = made, World(made.scenario, SEEDS)
        self.policy = RowWisePolicy(made.weights(greedy=True))
        self.rows: dict[int, list[dict]] = defaultdict(list)
        self.newest: dict[tuple[int, int], dict] = {}

    def run(self, ticks: int) -> None:
        """Advance the worlds, and record the decisions."""
        no_op = self.made.config.reward.no_op
        for _ in range(ticks):
            seen = self.world.observe()
            actions = np.zeros((self.world.num_worlds, self.world.num_nodes), np.int32)
            local, destination = seen.features()
            chosen = self.policy(seen, np.random.default_rng(0))
            idle = {
                (b, a) for b in range(len(SEEDS)) for a in range(len(self.made.scenario.agents))
            }
            for row in range(len(seen)):
                world, node = int(seen.world[row]), int(seen.node[row])
                agent = int(self.made.nodes[node])
                slots = int(self.made.scenario.net.slots[node])
                entry = {
                    "tick": self.world.now,
                    "world": world,
                    "local": local[row].copy(),
                    "destination": destination[row, :slots].copy(),
                    "mask": seen.mask[row, :slots].copy(),
                    "action": int(chosen[row]),
                    "reward": float(seen.reward[row, chosen[row]]),
                }
                self.rows[agent].append(entry)
                self.newest[world, agent] = entry
                idle.discard((world, agent))
                actions[world, node] = chosen[row]
            for place in idle:
                if place in self.newest:
                    self.newest[place]["reward"] += no_op
            self.world.step(actions)
            earned = self.world.collect()
            for (world, agent), entry in self.newest.items():
                entry["reward"] += earned[world, self.made.scenario.agents[agent]]

    def take(self, agent: int, since: int) -> list[dict]:
        """Take the rows of an agent, ordered by world."""
        mine = [entry for entry in self.rows.pop(agent, []) if entry["tick"] >= since]
        self.newest = {place: e for place, e in self.newest.items() if place[1] != agent}
        return sorted(mine, key=lambda entry: entry["world"])


def assert_same(taken: Decisions, rows: list[dict]) -> None:
    assert len(taken) == len(rows)
    worlds = [entry["world"] for entry in rows]
    last = [i + 1 == len(rows) or worlds[i + 1] != worlds[i] for i in range(len(rows))]
    assert taken.last.tolist() == last
    assert taken.action.tolist() == [entry["action"] for entry in rows]
    expected = [entry["reward"] for entry in rows]
    np.testing.assert_allclose(taken.reward, expected, rtol=1e-5, atol=1e-5)
    for i, entry in enumerate(rows):
        slots = len(entry["mask"])
        np.testing.assert_allclose(taken.local[i], entry["local"], rtol=1e-6)
        np.testing.assert_allclose(taken.destination[i, :slots], entry["destination"], rtol=1e-6)
        assert taken.mask[i, :slots].tolist() == entry["mask"].tolist()
        assert not taken.mask[i, slots:].any()


@pytest.mark.parametrize(
    "overrides",
    [
        ("reward.no_op=-0.25",),
        ("reward.kind=outcome", "reward.no_op=0.5"),
        ("reward.kind=sparse", "dynamics.nodes.rpi_0=[{down: 3, up: 6}]"),
        ("reward.kind=sparse", "physics=peersimgym", "workload.rate=20"),
    ],
    ids=["decisions", "outcome", "failures", "events"],
)
def test_the_recorder_returns_what_plain_bookkeeping_does(overrides: tuple[str, ...]) -> None:
    """Decisions of agents are taken at different times, some with a filter, of the last at the end.

    The rows of 300 ticks are more than the first room, and most of them are taken again, so that
    the room both grows and is cleared.
    """
    made = setting(*overrides)
    agents = len(made.scenario.agents)
    recorder, book = made.recorder(keep=1000), Book(made)
    decisions, sizes = 0, []
    for turn, ticks in enumerate((1, 31, 40, 5, 90, 60, 73)):
        recorder.roll(made.weights(greedy=True), ticks)
        book.run(ticks)
        sizes.append((int(recorder._rows.used[0]), len(recorder._rows.world)))
        for agent in range(agents) if turn == 4 else [turn % (agents - 1)]:
            since = recorder.world.now - 30 if turn % 2 else 0
            taken = recorder.take(agent, since)
            assert_same(taken, book.take(agent, since))
            decisions += len(taken)
    for agent in range(agents):
        assert_same(recorder.take(agent), book.take(agent, 0))
    used, room = zip(*sizes, strict=True)
    assert len(set(room)) > 1
    assert any(after < before for before, after in pairwise(used))
    assert decisions > 300


def test_decisions_that_are_never_taken_do_not_fill_the_memory() -> None:
    made = setting()
    recorder, book = made.recorder(keep=50), Book(made)
    recorder.roll(made.weights(greedy=True), 50)
    room = len(recorder._rows.world)
    for _ in range(10):
        recorder.roll(made.weights(greedy=True), 50)
        recorder.take(0)
    assert len(recorder._rows.world) <= 4 * room
    book.run(550)
    since = recorder.world.now - 50
    assert_same(recorder.take(1, since), book.take(1, since))


OWN = "tests.sim_env.own"


@pytest.mark.parametrize(
    ("own", "built_in"),
    [
        ((f"reward.kind={OWN}:delay",), ("reward.kind=delay",)),
        ((f"observation={OWN}:PAPER",), ("observation=paper",)),
        ((f"observation={OWN}:PAPER", "physics=peersimgym"), ("observation=paper",) * 2),
    ],
    ids=["reward", "observation", "events"],
)
def test_the_loop_in_python_records_what_the_compiled_one_does(
    own: tuple[str, ...], built_in: tuple[str, ...]
) -> None:
    """A reward and an observation of one's own that compute in numpy what built-in ones do."""
    common = ("reward=paper", "reward.no_op=-0.25", "dynamics.nodes.rpi_0=[{down: 3, up: 6}]")
    both = [setting(*common, *own), setting(*common, *built_in[:1], *own[1:])]
    assert [made.scenario.is_compiled for made in both] == [False, True]
    recorders = [made.recorder(keep=1000) for made in both]
    decisions = 0
    for ticks in (1, 70, 200):
        for made, recorder in zip(both, recorders, strict=True):
            recorder.roll(made.weights(greedy=True), ticks)
        for agent in range(len(both[0].scenario.agents)):
            mine, theirs = (recorder.take(agent) for recorder in recorders)
            assert_equal_decisions(mine, theirs, exact=False)
            decisions += len(mine)
    assert decisions > 300


@pytest.mark.parametrize("overrides", [(), ("reward=outcome",), ("physics=peersimgym",)])
@pytest.mark.parametrize("network", ["equivariant", "padded"])
def test_the_loop_in_python_draws_the_random_numbers_of_the_compiled_one(
    network: str, overrides: tuple[str, ...]
) -> None:
    """The same encoding, once as a user's own: equal to the byte, sampled and with exploration."""
    names = (f"{OWN}:FULL", "full")
    both = [
        setting(f"agent.network={network}", f"observation={name}", *overrides) for name in names
    ]
    recorders = [made.recorder(keep=1000) for made in both]
    agents = len(both[0].scenario.agents)
    nodes = both[0].nodes.copy()
    nodes[both[0].scenario.agents[0]] = -1  # a heuristic decides for the first one
    decisions = 0
    for made, recorder in zip(both, recorders, strict=True):
        weights = made.population.weights(nodes, False)
        weights = weights._replace(epsilon=np.full(agents, 0.1), otherwise=LQRAND)
        recorder.roll(weights, 200)
    for agent in range(agents):
        mine, theirs = (recorder.take(agent) for recorder in recorders)
        assert_equal_decisions(mine, theirs, exact=True)
        decisions += len(mine)
    assert decisions > 200
    for column, other in zip(recorders[0].world.state, recorders[1].world.state, strict=True):
        assert np.array_equal(column, other)


def assert_equal_decisions(mine: Decisions, theirs: Decisions, *, exact: bool) -> None:
    for name in vars(theirs):
        one, two = getattr(mine, name), getattr(theirs, name)
        if exact or one.dtype.kind != "f":
            assert np.array_equal(one, two), name
        else:
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6, err_msg=name)


def test_actors_drive_worlds_whose_observation_is_ones_own() -> None:
    both = [setting(f"observation={name}") for name in (f"{OWN}:FULL", "full")]
    worlds = [World(made.scenario, SEEDS) for made in both]
    for made, world in zip(both, worlds, strict=True):
        made.population.policy(made.nodes).drive(world, 100)
        assert world.now == 100
    for column, other in zip(worlds[0].state, worlds[1].state, strict=True):
        assert np.array_equal(column, other)


def test_fauno_train_learns_with_a_reward_and_an_observation_of_ones_own(tmp_path: Path) -> None:
    small = ["topology=ether1", "training.worlds=2", "training.ticks=48", "training.rollouts=1"]
    small += ["training.warmup=20", "federation.versions=3", "evaluation.worlds=1"]
    small += ["evaluation.warmup=10", "evaluation.window=50", "evaluation.policies=[lq]"]
    own = [f"reward.kind={OWN}:delay", f"observation={OWN}:PAPER"]
    out = tmp_path / "run"
    done = CliRunner().invoke(app, ["train", *small, *own, "--out", str(out)])
    assert done.exit_code == 0, done.output
    rows = json.loads((out / "summary.json").read_text())["table"]
    assert [row["policy"] for row in rows] == ["fauno", "untrained", "lq"]


@numba.njit(**OPTIONS)
def take_tanh(x: np.ndarray) -> None:
    """Call a part of the rollouts from Python."""
    rollout.tanh(x)


def test_the_tanh_of_rollouts_is_that_of_numpy() -> None:
    """To 4e-7, and not finite where the argument is not a number: divergence must be seen."""
    x = np.concatenate([np.linspace(-12, 12, 200_001), [0.0, -0.0, np.inf, -np.inf, 1e-30, 1e30]])
    found = x.astype(np.float32)
    expected = np.tanh(found)
    take_tanh(found)
    np.testing.assert_allclose(found, expected, rtol=4e-7, atol=1e-37)
    assert np.all(np.abs(found) <= 1 + 1e-6)
    odd = np.array([np.nan, 0.5], np.float32)
    take_tanh(odd)
    assert np.isnan(odd[0])
    assert odd[1] == pytest.approx(np.tanh(0.5), rel=4e-7)

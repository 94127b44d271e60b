"""What PPO and double DQN share, and double DQN against a reference; both kinds of networks."""

import numpy as np
import pytest
import torch

from fauno_flwr.config.agent import ACTION, CONFIGS, CRITICS, PPOConfig
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.ddqn import QPopulation
from fauno_flwr.learning.registry import ALGORITHMS, make_population
from fauno_flwr.learning.transitions import Decisions
from sim_env.engine.features import OBSERVATIONS
from sim_env.engine.observation import Observation
from sim_env.world import World
from tests.fauno_flwr.learning.test_ppo import some_decisions

torch.set_num_threads(1)  # small matrices: more threads would wait for each other
LEARNERS = ("ppo state", "ppo action", "ddqn")  # PPO with each critic
KINDS = [(algorithm, network) for algorithm in LEARNERS for network in ("equivariant", "padded")]
SLOTS = 6
all_kinds = pytest.mark.parametrize(("algorithm", "network"), KINDS)


def make(algorithm: str, network: str, agents: int = 1, seed: int = 0, **settings) -> AgentStack:
    name, _, critic = algorithm.partition(" ")
    if critic:
        settings["critic"] = critic
    return ALGORITHMS[name](agents, CONFIGS[name](network=network, **settings), seed, "full", SLOTS)


def rngs(*seeds: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in seeds]


def tensors(stack: AgentStack, agent: int) -> list[np.ndarray]:
    return [tensor[agent].detach().numpy().copy() for tensor in stack._tensors()]


def assert_close(one: list[np.ndarray], other: list[np.ndarray], atol: float = 2e-5) -> None:
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=atol)


BATCHES = [some_decisions(seed, rows, 2 + seed) for seed, rows in enumerate((50, 9, 1, 80))]


@all_kinds
def test_an_agent_learns_the_same_alone_and_among_others(algorithm: str, network: str) -> None:
    """The same parameters after two updates, also beside an agent with nothing to learn from."""
    settings = {"target_period": 20} if algorithm == "ddqn" else {}
    together = make(algorithm, network, 4, **settings)
    start = tensors(together, 0)
    streams = rngs(0, 1, 2, 3)
    for _ in range(2):
        together.update(BATCHES, 1e-3, streams)
    for agent, batch in enumerate(BATCHES):
        alone = make(algorithm, network, **settings)
        (stream,) = rngs(agent)
        for _ in range(2):
            alone.update([batch], 1e-3, [stream])
        assert_close(tensors(alone, 0), tensors(together, agent))
        changed = any(
            not np.array_equal(a, b) for a, b in zip(start, tensors(alone, 0), strict=True)
        )
        assert changed == (len(batch) > 1)


@all_kinds
def test_selected_agents_learn_as_in_place_and_are_put_back(algorithm: str, network: str) -> None:
    whole, parts = make(algorithm, network, 4), make(algorithm, network, 4)
    for stack in (whole, parts):
        stack.update(BATCHES, 1e-3, rngs(0, 1, 2, 3))
    untouched = tensors(parts, 1)
    some = parts.select([3, 0])
    for place, agent in enumerate((3, 0)):
        for mine, theirs in zip(tensors(some, place), tensors(parts, agent), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    some.update([BATCHES[3], BATCHES[0]], np.array([1e-3, 2e-3]), rngs(7, 8))
    whole.update(BATCHES, np.array([2e-3, 0.0, 0.0, 1e-3]), rngs(8, 9, 9, 7))
    parts.put(3, some, 0)
    parts.put(0, some, 1)
    assert_close(tensors(parts, 3), tensors(whole, 3))
    assert_close(tensors(parts, 0), tensors(whole, 0))
    for mine, before in zip(tensors(parts, 1), untouched, strict=True):
        np.testing.assert_array_equal(mine, before)


@all_kinds
def test_saved_and_loaded_goes_on_the_same(algorithm: str, network: str) -> None:
    first, second = make(algorithm, network), make(algorithm, network, seed=9)
    first.update([BATCHES[0]], 1e-3, rngs(0))
    second.load(first.save())
    for stack in (first, second):
        stack.update([BATCHES[1]], 1e-3, rngs(1))
    assert first.save() == second.save()


@all_kinds
def test_what_is_shared_comes_back(algorithm: str, network: str) -> None:
    """Whole models: the other agent then acts the same, and says that it acts differently."""
    stack = make(algorithm, network, 2)
    stack.update(BATCHES[:2], 1e-2, rngs(0, 1))
    shared = stack.get_shared("model", 0)
    assert stack.set_shared(shared, 1)
    batch = BATCHES[0]
    rows = (batch.local, batch.destination, batch.mask)
    policy = stack.policy()
    np.testing.assert_array_equal(policy.scores(0, *rows), policy.scores(1, *rows))


@pytest.mark.parametrize("network", ["equivariant", "padded"])
@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("critic", CRITICS)
def test_the_numpy_policy_equals_the_torch_networks(
    critic: str, network: str, observation: str
) -> None:
    config = PPOConfig(network=network, critic=critic)
    population = ALGORITHMS["ppo"](3, config, 1, observation, SLOTS)
    for agent in range(3):
        noisy = {k: v + 0.1 * agent for k, v in population.get_actor(agent).items()}
        population.set_actor(noisy, agent)
    batch = some_decisions(5, encoding=OBSERVATIONS[observation])
    rows = [
        torch.from_numpy(np.stack([x] * 3)) for x in (batch.local, batch.destination, batch.mask)
    ]
    with torch.no_grad():
        expected = population.actor.logits(*rows).numpy()
        if critic == ACTION:
            expected += population.critic.logits(*rows).numpy() / config.temperature
    for agent in range(3):
        scores = population.policy().scores(agent, batch.local, batch.destination, batch.mask)
        np.testing.assert_allclose(scores, expected[agent], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", ["equivariant", "padded"])
def test_illegal_actions_have_no_probability_and_no_gradient(network: str) -> None:
    """Not even where an illegal destination has features."""
    actor = make("ppo", network).actor
    batch = some_decisions(2)
    noise = torch.randn(batch.destination.shape, generator=torch.Generator().manual_seed(0))
    destination = noise[None].requires_grad_()
    mask = torch.from_numpy(batch.mask)[None]
    log = torch.log_softmax(actor.logits(torch.from_numpy(batch.local)[None], destination, mask), 2)
    assert torch.all(log.exp()[~mask] == 0)
    torch.logsumexp(log.masked_fill(~mask, 0.0), (1, 2)).backward()
    assert destination.grad is not None
    assert torch.all(destination.grad[~mask] == 0)
    assert torch.any(destination.grad[mask] != 0)


def test_a_padded_network_does_not_mind_empty_slots() -> None:
    """Up to its number of slots, more illegal ones at the end change nothing."""
    stack = make("ppo", "padded", critic="state")
    batch = some_decisions(3)
    wide = (
        batch.local,
        np.pad(batch.destination, ((0, 0), (0, SLOTS - 4), (0, 0))),
        np.pad(batch.mask, ((0, 0), (0, SLOTS - 4))),
    )
    rows = (batch.local, batch.destination, batch.mask)
    narrow = stack.policy().scores(0, *rows)
    np.testing.assert_allclose(stack.policy().scores(0, *wide)[:, :4], narrow, atol=1e-6)
    with torch.no_grad():
        critic = stack.networks["critic"]
        values = [
            critic.values(*critic.features(*(torch.from_numpy(x)[None] for x in each)))
            for each in (rows, wide)
        ]
    torch.testing.assert_close(*values)


def test_padded_agents_are_refused_in_a_network_with_other_slots() -> None:
    settings = ["agent.network=padded", "topology=ether1"]
    config = load_config("balanced", settings)
    home, away = config.build_scenario(), load_config("balanced", settings[:1]).build_scenario()
    population = make_population(1, config, home)
    policy = population.policy()

    def asked(seen: Observation, rng: np.random.Generator) -> np.ndarray:
        return policy(seen, rng)  # not as a driver: tick by tick

    for way in (policy, asked):
        World(home, [1]).run(way, 50, np.random.default_rng(0))
        with pytest.raises(ValueError, match="padded actors act only in one of"):
            World(away, [1]).run(way, 50, np.random.default_rng(0))
    elsewhere = make_population(1, config, away)
    with pytest.raises(ValueError, match=r"has the shape .*: must be .* largest number of slots"):
        elsewhere.set_actor(population.get_actor())
    with pytest.raises(ValueError, match="has 9 slots: must be at most"):
        population.update([some_decisions(0, slots=9)], 1e-3, rngs(0))


def reference_step(stack: QPopulation, old: AgentStack, batch: Decisions, rows: list[int]) -> None:
    """One step of double DQN with torch alone, transition by transition."""
    losses = []
    for i in rows:
        now, after = (
            [torch.from_numpy(x[j : j + 1])[None] for x in (batch.local, batch.destination)]
            + [torch.from_numpy(batch.mask[j : j + 1])[None]]
            for j in (i, i + 1)
        )
        q = stack.actor.logits(*now)[0, 0, batch.action[i]]
        with torch.no_grad():
            best = stack.actor.logits(*after)[0, 0].argmax()
            later = old.actor.logits(*after)[0, 0, best]
        target = float(batch.reward[i]) + stack.config.gamma * later
        losses.append(0.5 * (target - q) ** 2)
    torch.stack(losses).mean().backward()


@pytest.mark.parametrize("network", ["equivariant", "padded"])
def test_double_dqn_equals_a_reference_written_with_torch_alone(network: str) -> None:
    """Three steps: targets of the old network at the best action of the new one, clip, Adam."""
    settings = {"epochs": 3, "minibatches": 1, "target_period": 1000}
    ours, theirs = (make("ddqn", network, seed=3, **settings) for _ in range(2))
    old = make("ddqn", network, seed=3, **settings)
    batch = some_decisions(1)
    metrics = ours.update([batch], 1e-2, rngs(4))[0]
    usable = np.flatnonzero(~batch.last)
    (stream,) = rngs(4)
    adam = torch.optim.Adam(theirs.actor.parameters(), lr=1e-2, eps=1e-5)
    for _ in range(3):
        adam.zero_grad()
        rows = usable[stream.integers(len(usable), size=len(usable))]
        reference_step(theirs, old, batch, rows.tolist())
        torch.nn.utils.clip_grad_norm_(theirs.actor.parameters(), 0.5)
        adam.step()
    assert metrics["steps"] == len(usable)
    for mine, reference in zip(ours.actor.parameters(), theirs.actor.parameters(), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-5)


def test_the_target_network_follows_by_periods_and_exploration_falls() -> None:
    stack = make("ddqn", "equivariant", 2, target_period=32, epsilon=0.1, epsilon_steps=64)
    start = stack.get_actor()
    batches = [some_decisions(0), some_decisions(0, rows=1)]
    softmax, epsilon = stack.exploration()
    assert not softmax
    assert epsilon.tolist() == [1, 1]

    def target() -> dict[str, torch.Tensor]:
        named = stack.networks["target"].named_parameters()
        return {name: tensor.detach().numpy()[0] for name, tensor in named}

    stack.update(batches, 1e-2, rngs(0, 0))  # 16 steps
    assert all(np.array_equal(target()[name], start[name]) for name in start)
    stack.update(batches, 1e-2, rngs(0, 0))
    newest = stack.get_actor()
    assert all(np.array_equal(target()[name], newest[name]) for name in start)
    assert not all(np.array_equal(newest[name], start[name]) for name in start)
    np.testing.assert_allclose(stack.exploration()[1], [0.55, 1])
    for _ in range(3):
        stack.update(batches, 1e-2, rngs(0, 0))
    np.testing.assert_allclose(stack.exploration()[1], [0.1, 1])
    assert stack.weights(np.zeros(1), greedy=True).epsilon.tolist() == [0, 0]


@pytest.mark.parametrize("network", ["equivariant", "padded"])
@pytest.mark.parametrize("algorithm", ["ppo", "ddqn"])
def test_refreshed_weights_are_those_of_the_agents_now(algorithm: str, network: str) -> None:
    stack = make(algorithm, network, 3)
    nodes = np.array([2, 0, 1])
    before, weights = (stack.weights(nodes, greedy=False) for _ in range(2))
    stack.update([some_decisions(seed) for seed in range(3)], 1e-2, rngs(0, 1, 2))
    stack.refresh(weights, [2, 0])
    now = stack.weights(nodes, greedy=False)
    for name, refreshed in weights._asdict().items():
        if name in ("padded", "agent_of_node", "softmax", "otherwise"):
            continue
        old, new = getattr(before, name), getattr(now, name)
        np.testing.assert_array_equal(refreshed[[0, 2]], new[[0, 2]])
        np.testing.assert_array_equal(refreshed[1], old[1])
    assert not np.array_equal(before.middle[0], now.middle[0])
    stack.refresh(weights, [1])
    np.testing.assert_equal(weights._asdict(), now._asdict())


def test_the_replay_buffer_keeps_the_newest_and_never_joins_two_worlds() -> None:
    stack = make("ddqn", "equivariant", replay=100)
    batches = [some_decisions(seed, rows=60, slots=3) for seed in range(4)]
    for batch in batches:
        stack.update([batch], 1e-3, rngs(0))
    (kept,) = stack.replay
    assert len(kept) == 100
    for name in ("local", "destination", "mask", "action", "reward", "last"):
        newest = np.concatenate([getattr(batches[i], name) for i in (2, 3)])[-100:]
        np.testing.assert_array_equal(getattr(kept, name), newest)
    assert kept.last[-1]


def test_double_dqn_learns_what_pays_later() -> None:
    """Only the decision after the one to slot 1 is paid: its value reaches back by the discount."""
    rng = np.random.default_rng(0)
    stack = make("ddqn", "equivariant", gamma=0.9, target_period=16)
    for _ in range(30):
        batch = some_decisions(int(rng.integers(2**31)), rows=200, slots=2)
        batch.mask[:] = True
        batch.destination[:] = 0
        batch.destination[:, 1, 0] = 1
        batch.action = rng.integers(2, size=200)
        batch.local[:] = 0
        batch.local[1:, 0] = np.where(batch.last[:-1], 0, batch.action[:-1])
        batch.reward = batch.local[:, 0].copy()
        stack.update([batch], 3e-3, [rng])
    scores = stack.policy().scores(0, batch.local, batch.destination, batch.mask)
    np.testing.assert_allclose(scores[:, 1] - scores[:, 0], 0.9, atol=0.2)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["agent.algorithm=dqn"], "agent.algorithm is 'dqn': must be one of ppo, ddqn"),
        (["agent.network=flat"], "agent.network is 'flat': must be one of equivariant, padded"),
        (["agent=ddqn"], "federation.share is 'critic': must be model or nothing"),
        (["agent=ddqn", "agent.epsilon=1.5"], "agent.epsilon is 1.5"),
        (["agent=ddqn", "agent.replay=1"], "agent.replay is 1"),
    ],
)
def test_settings_that_cannot_be(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("ether2", overrides).build_scenario()
    assert sentence in str(caught.value)


def test_the_paper_preset_is_padded_and_sees_and_earns_as_the_original() -> None:
    config = load_config("paper")
    scenario = config.build_scenario()
    population = make_population(len(scenario.agents), config, scenario)
    slots = int(scenario.net.slots.max())
    assert (config.observation, config.reward.kind) == ("paper", "peersimgym_dense")
    assert population.get_actor()["weights.0"].shape[0] == 7 + slots * (3 + 1)
    assert population.get_actor()["weights.2"].shape[1] == slots
    shapes = [
        {name: array.shape for name, array in population.get_shared("critic", agent).items()}
        for agent in range(population.agents)
    ]
    assert all(each == shapes[0] for each in shapes)


def test_a_prior_starts_from_the_shortest_expected_delay() -> None:
    batch, delay = some_decisions(7, 200), OBSERVATIONS["full"].delay
    shortest = np.where(batch.mask, batch.destination[:, :, delay], np.inf).argmin(1)

    def agreement(prior: float) -> float:
        policy = make("ppo", "equivariant", prior=prior).policy()
        scores = policy.scores(0, batch.local, batch.destination, batch.mask)
        return float((scores.argmax(1) == shortest).mean())

    assert agreement(0.0) < 0.6
    assert agreement(10.0) > 0.9
    assert agreement(1000.0) == 1.0


@pytest.mark.parametrize(("network", "observation"), [("padded", "full"), ("equivariant", "paper")])
def test_a_prior_needs_an_observation_of_delays_and_one_score_per_slot(
    network: str, observation: str
) -> None:
    without, with_prior = (
        ALGORITHMS["ppo"](1, PPOConfig(network=network, prior=prior), 3, observation, SLOTS)
        for prior in (0.0, 10.0)
    )
    for mine, theirs in zip(tensors(without, 0), tensors(with_prior, 0), strict=True):
        np.testing.assert_array_equal(mine, theirs)

"""The learner against short references, and agents that do not disturb each other."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fauno_flwr.config.agent import ACTION, CRITICS, STATE, PPOConfig
from fauno_flwr.learning import dense, ppo
from fauno_flwr.learning.agents import get
from fauno_flwr.learning.networks import EquivariantActor
from fauno_flwr.learning.ppo import Population
from fauno_flwr.learning.targets import advantages
from fauno_flwr.learning.transitions import Decisions
from fauno_flwr.tasks.own_worlds import collect
from sim_env.engine.features import OBSERVATIONS, Encoding
from sim_env.envs.vector import EdgeVectorEnv

FULL = OBSERVATIONS["full"]


def some_decisions(
    seed: int, rows: int = 60, slots: int = 4, encoding: Encoding = FULL
) -> Decisions:
    """Random decisions; about a third of the neighbours are illegal."""
    rng = np.random.default_rng(seed)
    mask = rng.random((rows, slots)) < 0.7
    mask[:, 0] = True
    action = np.array([rng.choice(np.flatnonzero(row)) for row in mask], np.int64)
    last = rng.random(rows) < 0.1
    last[-1:] = True
    return Decisions(
        local=rng.standard_normal((rows, encoding.local)).astype(np.float32),
        destination=rng.standard_normal((rows, slots, encoding.destinations)).astype(np.float32)
        * mask[:, :, None],
        mask=mask,
        action=action,
        reward=rng.standard_normal(rows).astype(np.float32),
        last=last,
    )


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
def test_advantages_equal_the_sum_that_defines_them(seed: int, gamma: float, lam: float) -> None:
    rng = np.random.default_rng(seed)
    reward, value = rng.standard_normal((2, 20))
    last = rng.random(20) < 0.2
    last[-1] = True
    expected = np.zeros(20)
    for t in range(20):
        weight, k = 1.0, t
        while not last[k]:
            expected[t] += weight * (reward[k] + gamma * value[k + 1] - value[k])
            weight, k = weight * gamma * lam, k + 1
    np.testing.assert_allclose(advantages(reward, value, last, gamma, lam), expected, atol=1e-9)


@pytest.mark.parametrize("network", ["equivariant", "padded"])
def test_one_update_equals_a_reference_written_with_torch_alone(network: str) -> None:
    """One agent, one pass, one minibatch: clipped surrogate, value loss, entropy, clip, Adam."""
    config = PPOConfig(
        network=network, epochs=1, minibatches=1, entropy=0.03, critic=STATE, critic_rate=1.0
    )
    ours, theirs = (Population(1, config, 3, "full", 5) for _ in range(2))
    batch = some_decisions(1)
    stats = ppo.update(ours, [batch], 1e-2, [np.random.default_rng(0)])[0]

    keep = np.flatnonzero(~batch.last)
    rows = [torch.from_numpy(x)[None] for x in (batch.local, batch.destination, batch.mask)]
    value = theirs.critic.values(*theirs.critic.features(*rows))[0]
    numbers = value.detach().numpy().astype(np.float64)
    gae = advantages(batch.reward, numbers, batch.last, config.gamma, config.gae_lambda)
    target = torch.from_numpy((gae + numbers).astype(np.float32))
    gain = torch.from_numpy((gae - gae[keep].mean()) / (gae[keep].std() + 1e-8)).float()
    chosen = torch.distributions.Categorical(logits=theirs.actor.logits(*rows)[0])
    log = chosen.log_prob(torch.from_numpy(batch.action))
    ratio = (log - log.detach()).exp()
    policy = -torch.minimum(ratio * gain, ratio.clamp(0.8, 1.2) * gain)
    loss = policy + 0.5 * (value - target) ** 2 - 0.03 * chosen.entropy()
    loss[torch.from_numpy(keep)].mean().backward()
    for module in (theirs.actor, theirs.critic):
        torch.nn.utils.clip_grad_norm_(module.parameters(), config.max_grad_norm)
        torch.optim.Adam(module.parameters(), lr=1e-2, eps=1e-5).step()

    assert stats["steps"] == len(keep)
    # The softmax cancels the actor's last bias: its gradient is rounding, and means nothing.
    for mine, reference in zip(
        (*list(ours.actor.parameters())[:-1], *ours.critic.parameters()),
        (*list(theirs.actor.parameters())[:-1], *theirs.critic.parameters()),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-6)


def values_of(population: Population, batch: Decisions) -> tuple[np.ndarray, ...]:
    """Return Q(s, a) of the actions taken, and V(s), of a critic of actions, each (R,)."""
    rows = [torch.from_numpy(x)[None] for x in (batch.local, batch.destination, batch.mask)]
    with torch.no_grad():
        q = population.critic.logits(*rows)[0].masked_fill(~rows[2][0], 0.0)
        logits = population.actor.logits(*rows)[0] + q / population.config.temperature
        value = (torch.softmax(logits, 1) * q).sum(1).numpy().astype(np.float64)
    return q.numpy()[np.arange(len(batch)), batch.action].astype(np.float64), value


@pytest.mark.parametrize("network", ["equivariant", "padded"])
def test_an_update_with_a_critic_of_actions_equals_a_reference(network: str) -> None:
    """As above; the policy is softmax(actor + Q / T), the target of Q is r + gamma V(s')."""
    config = PPOConfig(
        network=network, epochs=1, minibatches=1, critic=ACTION, temperature=0.4, critic_rate=3.0
    )
    ours, theirs = (Population(1, config, 3, "full", 5) for _ in range(2))
    for population in (ours, theirs):  # values that are not close to 0
        arrays = population.get_critic()
        population.set_critic({**arrays, "weights.2": 50 * arrays["weights.2"]})
    batch = some_decisions(1)
    ppo.update(ours, [batch], 1e-2, [np.random.default_rng(0)])

    keep = np.flatnonzero(~batch.last)
    rows = [torch.from_numpy(x)[None] for x in (batch.local, batch.destination, batch.mask)]
    _, value = values_of(theirs, batch)
    gae = advantages(batch.reward, value, batch.last, config.gamma, config.gae_lambda)
    gain = torch.from_numpy((gae - gae[keep].mean()) / (gae[keep].std() + 1e-8)).float()
    q = theirs.critic.logits(*rows)[0]
    chosen = torch.distributions.Categorical(
        logits=theirs.actor.logits(*rows)[0] + q.detach() / 0.4
    )
    action = torch.from_numpy(batch.action)
    log = chosen.log_prob(action)
    ratio = (log - log.detach()).exp()
    policy = -torch.minimum(ratio * gain, ratio.clamp(0.8, 1.2) * gain)
    target = torch.from_numpy(batch.reward + config.gamma * np.append(value[1:], 0)).float()
    error = q.gather(1, action[:, None])[:, 0] - target
    loss = policy + 0.5 * error**2 - config.entropy * chosen.entropy()
    loss[torch.from_numpy(keep)].mean().backward()
    for module, rate in ((theirs.actor, 1e-2), (theirs.critic, 3e-2)):
        torch.nn.utils.clip_grad_norm_(module.parameters(), config.max_grad_norm)
        torch.optim.Adam(module.parameters(), lr=rate, eps=1e-5).step()
    for mine, reference in zip(
        (*list(ours.actor.parameters())[:-1], *ours.critic.parameters()),
        (*list(theirs.actor.parameters())[:-1], *theirs.critic.parameters()),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-3, atol=2e-6)


@given(st.integers(0, 2**32 - 1))
def test_no_gradient_of_the_policy_reaches_a_critic_of_actions(seed: int) -> None:
    """Where every target equals its value, the critic stays as it is, and the actor learns."""
    config = PPOConfig(critic=ACTION, entropy=0.5, epochs=1, minibatches=1)
    population = Population(1, config, 0)
    batch = some_decisions(seed)
    taken, value = values_of(population, batch)
    batch.reward = (taken - config.gamma * np.append(value[1:], 0)).astype(np.float32)
    actor, critic = population.get_actor(), population.get_critic()
    ppo.update(population, [batch], 1e-3, [np.random.default_rng(0)])
    for name, array in population.get_critic().items():
        np.testing.assert_allclose(array, critic[name], atol=2e-5)
    moved = max(
        float(np.abs(array - actor[name]).max())
        for name, array in population.get_actor().items()
        if name.startswith("actor.")
    )
    assert moved > 5e-4


def test_the_critic_of_actions_travels_alone_and_changes_the_policy() -> None:
    population = Population(2, PPOConfig(critic=ACTION), 0)
    batch = some_decisions(1)
    ppo.update(population, [batch, batch], 1e-2, [np.random.default_rng(k) for k in (0, 1)])
    shared, actor = population.get_shared("critic", 0), get(population.actor, 1)
    assert set(shared) == {name for name, _ in population.critic.named_parameters()}
    before = population.policy().scores(1, batch.local, batch.destination, batch.mask)
    assert population.set_shared(shared, 1)
    after = population.policy().scores(1, batch.local, batch.destination, batch.mask)
    assert np.abs(after[batch.mask] - before[batch.mask]).max() > 1e-6
    for name, array in get(population.actor, 1).items():
        np.testing.assert_array_equal(array, actor[name])


def test_an_agent_without_decisions_stays_as_it_is() -> None:
    population = Population(1, PPOConfig(), 0)
    before = population.save()
    stats = ppo.update(population, [some_decisions(0, rows=1)], 1e-3, [np.random.default_rng(0)])
    assert population.save() == before
    assert stats[0]["steps"] == 0


def test_the_actor_does_not_care_about_the_order_of_neighbours() -> None:
    population = Population(1, PPOConfig(), 1)
    batch = some_decisions(6)
    order = np.array([0, 3, 1, 2])
    policy = population.policy()
    scores = policy.scores(0, batch.local, batch.destination, batch.mask)
    turned = policy.scores(0, batch.local, batch.destination[:, order], batch.mask[:, order])
    np.testing.assert_allclose(turned, scores[:, order], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("critic", CRITICS)
def test_ppo_learns_what_pays(critic: str) -> None:
    """Reward is the first feature of the chosen destination; nine tenths of it can be had."""
    rng = np.random.default_rng(0)
    population = Population(1, PPOConfig(critic=critic, critic_rate=1.0), 0)
    for _ in range(25):
        batch = some_decisions(int(rng.integers(2**31)), rows=200)
        policy = population.policy()
        scores = policy.scores(0, batch.local, batch.destination, batch.mask)
        batch.action = (scores + rng.gumbel(size=scores.shape)).argmax(1)
        batch.reward = batch.destination[np.arange(200), batch.action, 0]
        ppo.update(population, [batch], 3e-3, [rng])
    scores = policy.scores(0, batch.local, batch.destination, batch.mask)
    paid = np.where(batch.mask, batch.destination[:, :, 0], -np.inf)
    learned = paid[np.arange(200), scores.argmax(1)].mean()
    by_chance = batch.destination[:, :, 0].sum() / batch.mask.sum()
    assert learned - by_chance > 0.9 * (paid.max(1).mean() - by_chance)


@pytest.mark.parametrize(("node", "at_least"), [(0, 50), (22, 5)])
def test_collected_decisions_are_those_of_the_node(node: int, at_least: int) -> None:
    """Worlds one after the other, legal actions, and the reward that the action announces."""
    env = EdgeVectorEnv("balanced", node, num_envs=3, horizon=60)
    population = Population(1, PPOConfig(), 0)
    view, _ = env.reset(seed=1)
    env.set_actor(population.policy())
    decisions, _ = collect(env, view, population, 60, np.random.default_rng(0))
    rows = np.arange(len(decisions))
    assert len(decisions) > at_least
    assert decisions.last.sum() == 3
    assert decisions.mask[rows, decisions.action].all()
    assert np.all(decisions.local[:, 0] == 1)
    # balanced: reward = 1 - delay / 2 s, and the last destination feature is delay / 20 s
    delay = decisions.destination[rows, decisions.action, 9] * 20
    low = delay < 55
    np.testing.assert_allclose(decisions.reward[low], 1 - delay[low] / 2, atol=1e-4)


class ScriptedEnv:
    """Two worlds with decisions and rewards by script; a view says who decides next."""

    num_envs = 2

    def __init__(self, deciding: list[tuple[int, int]], rewards: list[tuple[float, float]]) -> None:
        self.deciding, self.rewards, self.tick = deciding, rewards, 0

    def view(self) -> dict[str, np.ndarray]:
        """Zeros but for who decides; a second feature tells the decisions apart."""
        local = np.zeros((2, FULL.local), np.float32)
        local[:, 0] = self.deciding[self.tick]
        local[:, 1] = self.tick * local[:, 0]
        mask = np.ones((2, 3), np.int8)
        return {
            "local": local,
            "destinations": np.zeros((2, 3, FULL.destinations), np.float32),
            "action_mask": mask,
        }

    def step(self, actions: np.ndarray) -> tuple:
        """Return the next line of the script."""
        reward = np.array(self.rewards[self.tick])
        self.tick += 1
        return self.view(), reward, None, None, {}


def test_what_comes_between_two_decisions_belongs_to_the_earlier_one() -> None:
    """World 0 decides in ticks 1 and 4, world 1 in tick 0; the rewards before that are dropped."""
    env = ScriptedEnv(
        [(0, 1), (1, 0), (0, 0), (0, 0), (1, 0), (0, 0), (0, 0)],
        [(64.0, 1.0), (1.0, 0.0), (2.0, 5.0), (0.0, 0.0), (8.0, 0.5), (16.0, 0.0)],
    )
    population = Population(1, PPOConfig(), 0)
    decisions, _ = collect(env, env.view(), population, 6, np.random.default_rng(0))
    assert decisions.local[:, 1].tolist() == [1, 4, 0]
    assert decisions.last.tolist() == [False, True, True]
    assert decisions.reward.tolist() == [1 + 2, 8 + 16, 1 + 5 + 0.5]


@pytest.mark.parametrize("critic", CRITICS)
@pytest.mark.parametrize("learn_actor", [True, False])
@pytest.mark.parametrize(("hidden", "slots"), [(32, 4), (7, 4), (32, 600)])
def test_updates_in_numpy_and_in_torch_are_equal(
    critic: str, learn_actor: bool, hidden: int, slots: int
) -> None:
    """Over some updates: parameters, moments and metrics; also of agents with little or no data."""
    config = PPOConfig(critic=critic, entropy=0.03, hidden=hidden)
    config.learn_actor = learn_actor
    sizes = (60, 3, 0, 1, 25) if slots < 100 else (20, 5)
    ours, theirs = (Population(len(sizes), config, 0, "full", slots) for _ in range(2))
    assert ours.learns_one_by_one
    rates = np.linspace(1e-3, 3e-3, len(sizes), dtype=np.float32)
    for seed in range(3):
        batches = [some_decisions(seed + 10 * size, size, slots) for size in sizes]
        rngs = [[np.random.default_rng(agent) for agent in range(len(sizes))] for _ in range(2)]
        mine = ours.learn(batches, rates, rngs[0])
        reference = ppo.update(theirs, batches, rates, rngs[1])
        for found, expected in zip(mine, reference, strict=True):
            assert found == pytest.approx(expected, abs=2e-4)
    for population in (ours, theirs):
        # A softmax has no gradient in it: what Adam makes of the rounding error is arbitrary.
        population.actor.biases[2].data[:] = 0
    for left, right in zip(ours._tensors(), theirs._tensors(), strict=True):
        torch.testing.assert_close(left, right, atol=2e-5, rtol=1e-3)


def test_networks_of_others_and_padded_ones_are_trained_by_autograd() -> None:
    assert not Population(1, PPOConfig(network="padded"), 0, "full", 5).learns_one_by_one

    class Other(EquivariantActor):
        """An actor that may compute anything."""

    population = Population(1, PPOConfig(), 0)
    population.actor.__class__ = Other
    assert not population.learns_one_by_one


@given(st.integers(0, 600), st.integers(1, 70), st.integers(1, 40))
def test_outputs_of_any_number_of_rows_are_those_of_autograd(
    rows: int, hidden: int, seed: int
) -> None:
    population = Population(1, PPOConfig(hidden=hidden), seed)
    actor = population.actor
    x = np.random.default_rng(seed).standard_normal((rows, actor.weights[0].shape[1]))
    x = x.astype(np.float32)
    values = dense.DenseNetwork(population.optimizers["actor"], 0).values(x)
    expected = torch.from_numpy(x)[None]
    for layer in range(3):
        expected = torch.bmm(expected, actor.weights[layer]) + actor.biases[layer]
        expected = expected.tanh() if layer < 2 else expected
    np.testing.assert_allclose(values, expected[0, :, 0].detach().numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("network", ["equivariant", "padded"])
def test_a_learner_leaves_the_stack_as_it_is_until_it_writes(network: str) -> None:
    config = PPOConfig(network=network)
    stack, beside = (Population(2, config, 0, "full", 4) for _ in range(2))
    before = [tensor.clone() for tensor in stack._tensors()]
    batch = some_decisions(3, 60, 4)
    learner = stack.learner(1)
    metrics = learner.learn(batch, 1e-3, np.random.default_rng(1))
    assert all(torch.equal(a, b) for a, b in zip(stack._tensors(), before, strict=True))
    learner.write()
    one = beside.select([1])
    assert one.update([batch], 1e-3, [np.random.default_rng(1)]) == [metrics]
    beside.put(1, one)
    assert all(torch.equal(a, b) for a, b in zip(stack._tensors(), beside._tensors(), strict=True))

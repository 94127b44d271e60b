"""Compiled rollouts: worlds advance under stacked actors, and record every decision.

The actors are those of :mod:`fauno_flwr.learning.networks`; a test compares their choices with the
scores of torch. Where observation or reward of a scenario is a Python function, the loop over ticks
is in Python (:func:`advance`), with the same compiled choices and the same record.
"""

from typing import NamedTuple

import numpy as np

from fauno_flwr.learning.arithmetic import add_product, tanh
from sim_env.engine.compilation import compiled, part
from sim_env.engine.events import event_tick
from sim_env.engine.features import NUM_DESTINATION, NUM_LOCAL, Encoding, encode
from sim_env.engine.kernel import has_room, tick
from sim_env.engine.observation import look, undecided
from sim_env.engine.reward import decision_reward, ends_reward
from sim_env.engine.state import GOLDEN, mix
from sim_env.policies.compiled import LOCAL, Loop
from sim_env.policies.compiled import choose as heuristic_choice
from sim_env.world import World


class Weights(NamedTuple):
    """Parameters of stacked actors; F features of a decision, D of a slot, H hidden units.

    These are the units of all G networks that act side by side, see
    :func:`fauno_flwr.learning.agents.side_by_side`.

    For padded actors, S is the number of slots that they know; for equivariant ones it is 1,
    because they score all slots with the same weights.
    """

    padded: bool
    local: np.ndarray  # float32 (A, F, H): first layer, features of the decision
    slot: np.ndarray  # float32 (A, S, D, H): features of a slot, absolute and relative parts summed
    best: np.ndarray  # float32 (A, D, H): minimum of each feature over the slots, if equivariant
    present: np.ndarray  # float32 (A, S, H): bit of a legal slot, if padded
    bias: np.ndarray  # float32 (A, H)
    middle: np.ndarray  # float32 (A, H, H / G): row h is for the units of its own network
    middle_bias: np.ndarray  # float32 (A, H)
    last: np.ndarray  # float32 (A, S, H)
    last_bias: np.ndarray  # float32 (A, S)
    agent_of_node: np.ndarray  # int32 (N,): actor of each node, -1 for none
    softmax: bool  # sample from the softmax of the scores; else take the highest
    epsilon: np.ndarray  # float64 (A,): probability of a uniform legal action instead
    otherwise: int = LOCAL  # heuristic of agents without an actor, which are not recorded


class Rows(NamedTuple):
    """R decisions in the order of time, and their M slots, concatenated."""

    tick: np.ndarray  # int32 (R,)
    world: np.ndarray  # int32 (R,)
    agent: np.ndarray  # int32 (R,)
    slots: np.ndarray  # int32 (R,): number of slots of the node, legal or not
    first: np.ndarray  # int64 (R,): index of its first slot among the M
    action: np.ndarray  # int32 (R,)
    reward: np.ndarray  # float64 (R,)
    local: np.ndarray  # float32 (R, F)
    destination: np.ndarray  # float32 (M, D)
    legal: np.ndarray  # bool (M,)
    newest: np.ndarray  # int64 (B, A): row of an agent's newest decision in a world, -1 for none;
    #                     agents from A on act without being recorded
    used: np.ndarray  # int64 (2,): rows and slots in use


class Seen(NamedTuple):
    """Decisions of one tick, ordered by world and node, with features computed in Python."""

    world: np.ndarray  # int32 (R,)
    node: np.ndarray  # int32 (R,)
    raw_local: np.ndarray  # float64 (R, 10)
    raw_destination: np.ndarray  # float64 (R, K, 8)
    mask: np.ndarray  # bool (R, K)
    reward: np.ndarray  # float64 (R, K)
    local: np.ndarray  # float32 (R, F)
    destination: np.ndarray  # float32 (R, K, D)


class Scratch(NamedTuple):
    """Scratch space for one decision."""

    raw_local: np.ndarray  # float64 (1, 10)
    raw_destination: np.ndarray  # float64 (1, K, 8)
    mask: np.ndarray  # bool (1, K)
    local: np.ndarray  # float32 (1, F)
    destination: np.ndarray  # float32 (1, K, D)
    base: np.ndarray  # float32 (H,)
    hidden: np.ndarray  # float32 (2, H)


@part
def uniform(st, b):
    """Draw a random number in (0, 1) from the policy stream of a world."""
    state = st.policy_rng[b] + GOLDEN
    st.policy_rng[b] = state
    return (float(mix(state) >> np.uint64(11)) + 0.5) * (1.0 / 9007199254740992.0)


@part
def prepare(weights, a, scratch, slots):
    """Compute what all slots share: of the first layer, and for padded actors the second layer."""
    local, base = scratch.local[0], scratch.base
    for h in range(len(base)):
        base[h] = weights.bias[a, h]
    add_product(local, weights.local[a], base)
    if weights.padded:
        for k in range(slots):
            if scratch.mask[0, k]:
                add_product(scratch.destination[0, k], weights.slot[a, k], base)
                for h in range(len(base)):
                    base[h] += weights.present[a, k, h]
        second_layer(weights.middle[a], weights.middle_bias[a], base, scratch.hidden[1])
        return
    for f in range(scratch.destination.shape[2]):
        best = np.float32(np.inf)
        for k in range(slots):
            if scratch.mask[0, k]:
                best = min(best, scratch.destination[0, k, f])
        for h in range(len(base)):
            base[h] -= best * weights.best[a, f, h]


@part
def second_layer(middle, bias, one, two):
    """Compute the second layer `two` from the first layer `one`, whose tanh is taken in place.

    `middle` (H, H / G) and `bias` (H,) are one actor's: given all weights and an index, the
    compiler no longer knows that arrays are apart, and the result takes twice as long.
    """
    tanh(one)
    for h in range(len(one)):
        two[h] = bias[h]
    width = middle.shape[1]
    for start in range(0, len(one), width):
        end = start + width
        add_product(one[start:end], middle[start:end], two[start:end])
    tanh(two)


@part
def score(weights, a, scratch, k):
    """Compute the score of a slot."""
    one, two = scratch.hidden[0], scratch.hidden[1]
    if not weights.padded:
        for h in range(len(one)):
            one[h] = scratch.base[h]
        add_product(scratch.destination[0, k], weights.slot[a, 0], one)
        second_layer(weights.middle[a], weights.middle_bias[a], one, two)
    s = k if weights.padded else 0
    total = weights.last_bias[a, s]
    for h in range(len(two)):
        total += two[h] * weights.last[a, s, h]
    return total


@part
def choose(st, b, weights, a, scratch, slots):
    """Sample a slot from the softmax of the scores (Gumbel-max), or take the highest score."""
    if weights.epsilon[a] > 0.0 and uniform(st, b) < weights.epsilon[a]:
        return any_legal(st, b, scratch, slots)
    prepare(weights, a, scratch, slots)
    best, highest = 0, -np.inf
    for k in range(slots):
        if scratch.mask[0, k]:
            value = float(score(weights, a, scratch, k))
            if weights.softmax:
                value -= np.log(-np.log(uniform(st, b)))
            if value > highest:
                best, highest = k, value
    return best


@part
def any_legal(st, b, scratch, slots):
    """Sample a legal slot uniformly."""
    best, seen = 0, 0
    for k in range(slots):
        if scratch.mask[0, k]:
            seen += 1
            if uniform(st, b) * seen < 1.0:
                best = k
    return best


@part
def record(net, now, b, n, a, action, reward, scratch, rows):
    """Append a decision to the rows."""
    row, place, slots = rows.used[0], rows.used[1], net.slots[n]
    rows.tick[row], rows.world[row], rows.agent[row], rows.action[row] = now, b, a, action
    rows.slots[row], rows.first[row] = slots, place
    rows.reward[row] = reward
    for f in range(scratch.local.shape[1]):
        rows.local[row, f] = scratch.local[0, f]
    for k in range(slots):
        rows.legal[place + k] = scratch.mask[0, k]
        for f in range(scratch.destination.shape[2]):
            rows.destination[place + k, f] = scratch.destination[0, k, f]
    rows.newest[b, a] = row
    rows.used[0] += 1
    rows.used[1] += slots


@part
def is_recorded(a, rows):
    """Return whether the decisions of an agent are recorded: of the first A, if there are rows."""
    return 0 <= a < rows.newest.shape[1] and len(rows.world) > 0


@part
def idle(net, b, a, rows):
    """Credit an agent with an actor for a tick without a decision to its newest decision."""
    if is_recorded(a, rows) and net.reward.no_op != 0.0 and rows.newest[b, a] >= 0:
        rows.reward[rows.newest[b, a]] += net.reward.no_op


@part
def decide(net, st, now, actions, weights, observation, scratch, rows):
    """Fill in the actions of all agents; record the decisions if there are rows."""
    for b in range(actions.shape[0]):
        for n in range(actions.shape[1]):
            actions[b, n] = 0
            a = weights.agent_of_node[n]
            if not net.is_agent[n] or (a < 0 and weights.otherwise == LOCAL):
                continue
            task = undecided(st, b, n)
            if task < 0:
                idle(net, b, a, rows)
                continue
            slots = net.slots[n]
            raw_local, raw = scratch.raw_local, scratch.raw_destination[:, :slots]
            mask, destination = scratch.mask[:, :slots], scratch.destination[:, :slots]
            look(net, st, b, n, task, now, raw_local[0], raw[0], mask[0])
            if a < 0:
                actions[b, n] = heuristic_choice(
                    st, b, weights.otherwise, raw_local[0], raw[0], mask[0], slots
                )
                continue
            destination[:] = np.float32(0.0)
            encode(observation, raw_local, raw, mask, scratch.local, destination)
            actions[b, n] = choose(st, b, weights, a, scratch, slots)
            if is_recorded(a, rows):
                reward = decision_reward(net, n, actions[b, n], raw[0])
                record(net, now, b, n, a, actions[b, n], reward, scratch, rows)


@compiled
def decide_seen(net, st, now, actions, weights, seen, scratch, rows):
    """Do as :func:`decide`, from features and rewards that are there already.

    Parameters
    ----------
    net : Net
    st : State
    now : int
        Ticks that have passed.
    actions : array of int32, shape (B, N)
        Overwritten.
    weights : Weights
    seen : Seen
    scratch : Scratch
    rows : Rows
        With room for these decisions; of length 0: nothing is recorded.
    """
    row = 0
    for b in range(actions.shape[0]):
        for n in range(actions.shape[1]):
            actions[b, n] = 0
            a = weights.agent_of_node[n]
            if row == len(seen.world) or seen.world[row] != b or seen.node[row] != n:
                if net.is_agent[n]:
                    idle(net, b, a, rows)
                continue
            slots, mask = net.slots[n], seen.mask[row]
            if a < 0:
                if weights.otherwise != LOCAL:
                    raw_local, raw = seen.raw_local[row], seen.raw_destination[row]
                    actions[b, n] = heuristic_choice(
                        st, b, weights.otherwise, raw_local, raw, mask, slots
                    )
                row += 1
                continue
            for f in range(scratch.local.shape[1]):
                scratch.local[0, f] = seen.local[row, f]
            for k in range(slots):
                scratch.mask[0, k] = mask[k]
                for f in range(scratch.destination.shape[2]):
                    scratch.destination[0, k, f] = seen.destination[row, k, f]
            actions[b, n] = choose(st, b, weights, a, scratch, slots)
            if is_recorded(a, rows):
                reward = seen.reward[row, actions[b, n]]
                record(net, now, b, n, a, actions[b, n], reward, scratch, rows)
            row += 1


@compiled
def credit(net, st, weights, rows):
    """Add what the ends of tasks earned to the newest decisions."""
    for b in range(st.ends.shape[0]):
        for n in range(st.ends.shape[1]):
            a = weights.agent_of_node[n]
            earned = ends_reward(net.reward, n, st.ends[b, n])
            if earned != 0.0 and is_recorded(a, rows) and rows.newest[b, a] >= 0:
                rows.reward[rows.newest[b, a]] += earned
            st.ends[b, n, :] = 0


@compiled
def roll(net, st, now, factors, actions, weights, observation, scratch, rows):
    """Tick as long as there is room for new tasks; return the number of ticks.

    Parameters
    ----------
    net : Net
    st : State
    now : int
        Ticks that have passed.
    factors : array of float64, shape (T + 1,)
        Multipliers of the rates of arrival; T ticks at most.
    actions : array of int32, shape (B, N)
        Overwritten.
    weights : Weights
    observation : int
        Number of the encoding: its index in :data:`sim_env.engine.features.OBSERVATIONS`.
    scratch : Scratch
    rows : Rows
        With room for all possible decisions; of length 0: nothing is recorded.
    """
    for done in range(len(factors) - 1):
        if not has_room(net, st, factors[done]):
            return done
        decide(net, st, now + done, actions, weights, observation, scratch, rows)
        tick(net, st, now + done, actions, factors[done], factors[done + 1])
        if len(rows.world):
            credit(net, st, weights, rows)
    return len(factors) - 1


@compiled
def roll_events(net, st, now, factors, actions, weights, observation, scratch, rows):
    """Do as :func:`roll`, with :func:`sim_env.engine.events.event_tick`."""
    for done in range(len(factors) - 1):
        if not has_room(net, st, max(factors[done], factors[done + 1])):
            return done
        decide(net, st, now + done, actions, weights, observation, scratch, rows)
        event_tick(net, st, now + done, actions, factors[done], factors[done + 1])
        if len(rows.world):
            credit(net, st, weights, rows)
    return len(factors) - 1


LOOP = Loop(roll, roll_events)


def advance(world: World, ticks: int, weights: Weights, scratch: Scratch, rows: Rows) -> None:
    """Advance a world under stacked actors.

    The loop over ticks is compiled where the scenario is; where its observation or reward is a
    Python function, it is in Python. Random numbers are drawn in the same order either way.

    Parameters
    ----------
    world : World
    ticks : int
    weights : Weights
    scratch : Scratch
    rows : Rows
        As of :func:`roll`.
    """
    scenario = world.scenario
    if scenario.is_compiled:
        world.drive(LOOP, ticks, weights, scenario.observation_number, scratch, rows)
        return
    actions = np.zeros((world.num_worlds, world.num_nodes), np.int32)
    for _ in range(ticks):
        o = world.observe()
        raw = o.world, o.node, o.local, o.destination, o.mask, o.reward
        seen = Seen(*raw, *o.features())
        decide_seen(world.net, world.state, world.now, actions, weights, seen, scratch, rows)
        world.step(actions)
        if len(rows.world):
            credit(world.net, world.state, weights, rows)


def make_scratch(encoding: Encoding, slots: int, hidden: int) -> Scratch:
    """Allocate scratch space for one decision among up to `slots` slots."""
    return Scratch(
        raw_local=np.zeros((1, NUM_LOCAL)),
        raw_destination=np.zeros((1, slots, NUM_DESTINATION)),
        mask=np.zeros((1, slots), np.bool_),
        local=np.zeros((1, encoding.local), np.float32),
        destination=np.zeros((1, slots, encoding.destinations), np.float32),
        base=np.zeros(hidden, np.float32),
        hidden=np.zeros((2, hidden), np.float32),
    )


def make_rows(encoding: Encoding, worlds: int, agents: int, rows: int, slots: int) -> Rows:
    """Allocate room for `rows` decisions with `slots` slots in total."""
    return Rows(
        tick=np.zeros(rows, np.int32),
        world=np.zeros(rows, np.int32),
        agent=np.zeros(rows, np.int32),
        slots=np.zeros(rows, np.int32),
        first=np.zeros(rows, np.int64),
        action=np.zeros(rows, np.int32),
        reward=np.zeros(rows),
        local=np.zeros((rows, encoding.local), np.float32),
        destination=np.zeros((slots, encoding.destinations), np.float32),
        legal=np.zeros(slots, np.bool_),
        newest=np.full((worlds, agents), -1, np.int64),
        used=np.zeros(2, np.int64),
    )

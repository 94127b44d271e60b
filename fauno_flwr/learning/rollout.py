"""Worlds that run by themselves under stacked actors, every decision written down; compiled.

The actors are those of :mod:`fauno_flwr.learning.networks`; a test holds their choices to the
scores that torch gives.
"""

from typing import NamedTuple

import numpy as np

from fauno_flwr.learning.transitions import Decisions
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

CHUNK = 32  # ticks between two looks at the room for decisions


class Weights(NamedTuple):
    """Stacked actors as the kernel reads them; F features of a decision, D of a slot, H hidden.

    Of padded actors, S is the number of slots that they know; of equivariant ones it is 1, because
    they score all slots with the same weights.
    """

    padded: bool
    local: np.ndarray  # float32 (A, F, H): first layer, features of the decision
    slot: np.ndarray  # float32 (A, S, D, H): of a slot, absolute and relative parts together
    best: np.ndarray  # float32 (A, D, H): of the smallest feature of all slots, if equivariant
    present: np.ndarray  # float32 (A, S, H): of a slot that is legal, if padded
    bias: np.ndarray  # float32 (A, H)
    middle: np.ndarray  # float32 (A, H, H)
    middle_bias: np.ndarray  # float32 (A, H)
    last: np.ndarray  # float32 (A, S, H)
    last_bias: np.ndarray  # float32 (A, S)
    agent_of_node: np.ndarray  # int32 (N,): actor of each node, -1 for none
    softmax: bool  # actions are drawn from the softmax of the scores; else the highest one
    epsilon: np.ndarray  # float64 (A,): but with this probability any legal action
    otherwise: int = LOCAL  # heuristic of the agents without an actor; their decisions are not kept


class Rows(NamedTuple):
    """R decisions in the order of time, and their M legal slots one after another."""

    tick: np.ndarray  # int32 (R,)
    world: np.ndarray  # int32 (R,)
    agent: np.ndarray  # int32 (R,)
    slots: np.ndarray  # int32 (R,): number of slots of the node, legal or not
    first: np.ndarray  # int64 (R,): its first one among the M
    action: np.ndarray  # int32 (R,)
    reward: np.ndarray  # float64 (R,)
    local: np.ndarray  # float32 (R, F)
    destination: np.ndarray  # float32 (M, D)
    legal: np.ndarray  # bool (M,)
    newest: np.ndarray  # int64 (B, A): newest decision of each agent in each world, -1 for none
    used: np.ndarray  # int64 (2,): rows and slots in use


class Scratch(NamedTuple):
    """Room for one decision."""

    raw_local: np.ndarray  # float64 (1, 10)
    raw_destination: np.ndarray  # float64 (1, K, 8)
    mask: np.ndarray  # bool (1, K)
    local: np.ndarray  # float32 (1, F)
    destination: np.ndarray  # float32 (1, K, D)
    base: np.ndarray  # float32 (H,)
    hidden: np.ndarray  # float32 (2, H)


@part
def uniform(st, b):
    """Random number in (0, 1) of the stream of a world's policy."""
    state = st.policy_rng[b] + GOLDEN
    st.policy_rng[b] = state
    return (float(mix(state) >> np.uint64(11)) + 0.5) * (1.0 / 9007199254740992.0)


@part
def prepare(weights, a, scratch, slots):
    """All of the first layer that is the same for all slots; of padded actors, the second too."""
    local, base = scratch.local[0], scratch.base
    for h in range(len(base)):
        base[h] = weights.bias[a, h]
    for f in range(len(local)):
        for h in range(len(base)):
            base[h] += local[f] * weights.local[a, f, h]
    if weights.padded:
        for k in range(slots):
            if scratch.mask[0, k]:
                add_slot(weights, a, k, scratch.destination[0, k], base)
                for h in range(len(base)):
                    base[h] += weights.present[a, k, h]
        second_layer(weights, a, base, scratch.hidden[1])
        return
    for f in range(scratch.destination.shape[2]):
        best = np.float32(np.inf)
        for k in range(slots):
            if scratch.mask[0, k]:
                best = min(best, scratch.destination[0, k, f])
        for h in range(len(base)):
            base[h] -= best * weights.best[a, f, h]


@part
def add_slot(weights, a, s, slot, total):
    """Add what the features of a slot bring to the first layer."""
    for f in range(len(slot)):
        for h in range(len(total)):
            total[h] += slot[f] * weights.slot[a, s, f, h]


@part
def second_layer(weights, a, one, two):
    """From the first layer before its tanh, which is taken in place, to the second after it."""
    for h in range(len(one)):
        one[h] = np.tanh(one[h])
        two[h] = weights.middle_bias[a, h]
    for g in range(len(one)):
        for h in range(len(two)):
            two[h] += one[g] * weights.middle[a, g, h]
    for h in range(len(two)):
        two[h] = np.tanh(two[h])


@part
def score(weights, a, scratch, k):
    """Score of a slot."""
    one, two = scratch.hidden[0], scratch.hidden[1]
    if not weights.padded:
        for h in range(len(one)):
            one[h] = scratch.base[h]
        add_slot(weights, a, 0, scratch.destination[0, k], one)
        second_layer(weights, a, one, two)
    s = k if weights.padded else 0
    total = weights.last_bias[a, s]
    for h in range(len(two)):
        total += two[h] * weights.last[a, s, h]
    return total


@part
def choose(st, b, weights, a, scratch, slots):
    """A slot drawn from the softmax of the scores (Gumbel-max), or the one of highest score."""
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
    """A legal slot, each as likely as the others."""
    best, seen = 0, 0
    for k in range(slots):
        if scratch.mask[0, k]:
            seen += 1
            if uniform(st, b) * seen < 1.0:
                best = k
    return best


@part
def write_down(net, now, b, n, a, action, scratch, rows):
    """Add a decision to the rows."""
    row, place, slots = rows.used[0], rows.used[1], net.slots[n]
    rows.tick[row], rows.world[row], rows.agent[row], rows.action[row] = now, b, a, action
    rows.slots[row], rows.first[row] = slots, place
    rows.reward[row] = decision_reward(net, n, action, scratch.raw_destination[0])
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
def decide(net, st, now, actions, weights, observation, scratch, rows):
    """Fill in the actions of all agents; write the decisions down if there are rows."""
    for b in range(actions.shape[0]):
        for n in range(actions.shape[1]):
            actions[b, n] = 0
            a = weights.agent_of_node[n]
            if not net.is_agent[n] or (a < 0 and weights.otherwise == LOCAL):
                continue
            task = undecided(st, b, n)
            if task < 0:
                paid = a >= 0 and len(rows.world) and net.reward.no_op != 0.0
                if paid and rows.newest[b, a] >= 0:
                    rows.reward[rows.newest[b, a]] += net.reward.no_op
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
            if len(rows.world):
                write_down(net, now, b, n, a, actions[b, n], scratch, rows)


@part
def credit(net, st, weights, rows):
    """Add what the ends of tasks have earned to the newest decisions."""
    for b in range(st.ends.shape[0]):
        for n in range(st.ends.shape[1]):
            a = weights.agent_of_node[n]
            earned = ends_reward(net.reward, st.ends[b, n])
            if earned != 0.0 and a >= 0 and rows.newest[b, a] >= 0:
                rows.reward[rows.newest[b, a]] += earned
            st.ends[b, n, :] = 0


@compiled
def roll(net, st, now, factors, actions, weights, observation, scratch, rows):
    """Tick as long as there is room for new tasks; returns the number of ticks.

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
        Place of the encoding in :data:`sim_env.engine.features.OBSERVATIONS`.
    scratch : Scratch
    rows : Rows
        With room for all decisions that there can be; of length 0: nothing is written down.
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
    """:func:`roll` with :func:`sim_env.engine.events.event_tick`."""
    for done in range(len(factors) - 1):
        if not has_room(net, st, max(factors[done], factors[done + 1])):
            return done
        decide(net, st, now + done, actions, weights, observation, scratch, rows)
        event_tick(net, st, now + done, actions, factors[done], factors[done + 1])
        if len(rows.world):
            credit(net, st, weights, rows)
    return len(factors) - 1


LOOP = Loop(roll, roll_events)


def make_scratch(encoding: Encoding, slots: int, hidden: int) -> Scratch:
    """Room for one decision among up to `slots` slots."""
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
    """Room for `rows` decisions with `slots` slots in all."""
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


class Recorder:
    """Decisions of all agents of B worlds, until each agent's are taken for an update.

    Parameters
    ----------
    world : World
    agents : int
        A.
    hidden : int
        Width of the actors' hidden layers.
    keep : int
        Ticks after which a decision that nobody has taken may be forgotten.

    Attributes
    ----------
    forgotten : array of int64, shape (A,)
        Decisions of each agent that were.
    """

    def __init__(self, world: World, agents: int, hidden: int, keep: int) -> None:
        self.world, self.agents, self.keep = world, agents, keep
        net, self._encoding = world.net, world.scenario.encoding
        deciding = net.is_agent
        # What one tick may add.
        self._rows_per_tick = world.num_worlds * int(deciding.sum())
        self._slots_per_tick = world.num_worlds * int(net.slots[deciding].sum())
        self._observation = world.scenario.observation_number
        self._scratch = make_scratch(self._encoding, int(net.slots.max()), hidden)
        self._rows = make_rows(self._encoding, world.num_worlds, agents, 0, 0)
        self._start = np.zeros(agents, np.int64)
        self.forgotten = np.zeros(agents, np.int64)

    def roll(self, weights: Weights, ticks: int) -> None:
        """Let the worlds run for `ticks` under the actors."""
        while ticks > 0:
            some = min(ticks, CHUNK)
            self._reserve(some)
            self.world.drive(LOOP, some, weights, self._observation, self._scratch, self._rows)
            ticks -= some

    def take(self, agent: int, since: int = 0) -> Decisions:
        """The decisions of an agent since the last time; world after world, in order of time.

        Those from before tick `since`, at most ``keep`` ticks ago, are left out.
        """
        rows, start = self._rows, int(self._start[agent])
        end = int(rows.used[0])
        here = slice(start, end)
        mine = start + np.flatnonzero((rows.agent[here] == agent) & (rows.tick[here] >= since))
        mine = mine[np.argsort(rows.world[mine], kind="stable")]
        slots = rows.slots[mine]
        widest = int(slots.max(initial=1))
        destination = np.zeros((len(mine), widest, self._encoding.destinations), np.float32)
        mask = np.zeros((len(mine), widest), np.bool_)
        row = np.repeat(np.arange(len(mine)), slots)
        column = np.arange(len(row)) - np.repeat(np.cumsum(slots) - slots, slots)
        place = rows.first[mine][row] + column
        destination[row, column], mask[row, column] = rows.destination[place], rows.legal[place]
        world = rows.world[mine]
        taken = Decisions(
            rows.local[mine],
            destination,
            mask,
            rows.action[mine].astype(np.int64),
            rows.reward[mine].astype(np.float32),
            np.append(np.diff(world) != 0, True)[: len(mine)],
        )
        self.drop(agent)
        return taken

    def drop(self, agent: int) -> None:
        """Leave the decisions of an agent until now to nobody."""
        self._start[agent] = self._rows.used[0]
        self._rows.newest[:, agent] = -1
        self._forget()

    def _forget_old(self) -> None:
        """Do without what is too old to be taken: some agents may never be asked for theirs."""
        rows = self._rows
        ticks = rows.tick[: rows.used[0]]
        kept, first = int(np.searchsorted(ticks, self.world.now - self.keep)), self._start.min()
        if first < kept:
            agent = rows.agent[first:kept]
            missed = agent[np.arange(first, kept) >= self._start[agent]]
            self.forgotten += np.bincount(missed, minlength=self.agents)
        self._start = np.maximum(self._start, kept)
        rows.newest[rows.newest < self._start] = -1
        self._forget()

    def _forget(self) -> None:
        """Move what nobody has taken yet to the front once the rest is the larger part."""
        rows, first = self._rows, int(self._start.min())
        end, places = int(rows.used[0]), int(rows.used[1])
        if first == 0 or first < end / 2:
            return
        place = int(rows.first[first]) if first < end else places
        for column in (rows.tick, rows.world, rows.agent, rows.slots, rows.first, rows.action):
            column[: end - first] = column[first:end].copy()
        rows.reward[: end - first] = rows.reward[first:end].copy()
        rows.local[: end - first] = rows.local[first:end].copy()
        rows.destination[: places - place] = rows.destination[place:places].copy()
        rows.legal[: places - place] = rows.legal[place:places].copy()
        rows.first[: end - first] -= place
        rows.newest[rows.newest >= 0] -= first
        rows.used[:] = end - first, places - place
        self._start -= first

    def _reserve(self, ticks: int) -> None:
        """Make room for the decisions of some ticks."""
        self._forget_old()
        old = self._rows
        rows = int(old.used[0]) + ticks * self._rows_per_tick
        slots = int(old.used[1]) + ticks * self._slots_per_tick
        if rows <= len(old.world) and slots <= len(old.legal):
            return
        new = make_rows(
            self._encoding,
            self.world.num_worlds,
            self.agents,
            max(2 * len(old.world), rows),
            max(2 * len(old.legal), slots),
        )
        for name in ("tick", "world", "agent", "slots", "first", "action", "reward", "local"):
            getattr(new, name)[: old.used[0]] = getattr(old, name)[: old.used[0]]
        for name in ("destination", "legal"):
            getattr(new, name)[: old.used[1]] = getattr(old, name)[: old.used[1]]
        self._rows = new._replace(newest=old.newest, used=old.used)

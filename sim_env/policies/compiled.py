"""The heuristics of :mod:`sim_env.policies.heuristics`, compiled, and worlds that run under them.

A test holds the choices equal to those of the numpy functions, which say the same more plainly.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sim_env.engine.compilation import compiled, part
from sim_env.engine.events import event_tick
from sim_env.engine.features import BACK, CAPACITY, EXECUTE, LOAD, QUEUE, SEND, SPEED, WAIT
from sim_env.engine.kernel import has_room, tick
from sim_env.engine.observation import look, undecided
from sim_env.engine.state import GOLDEN, mix
from sim_env.policies import heuristics

LOCAL, RANDOM, LQ, LQRAND, THRESHOLD, SED = range(6)
CODES: dict[heuristics.Policy, int] = {
    heuristics.local: LOCAL,
    heuristics.random: RANDOM,
    heuristics.least_queue: LQ,
    heuristics.least_queue_random: LQRAND,
    heuristics.threshold: THRESHOLD,
    heuristics.shortest_expected_delay: SED,
}


class Loop(NamedTuple):
    """A compiled loop over ticks, under the plain physics and under those of the events."""

    plain: Callable[..., int]
    events: Callable[..., int]


@part
def below(st, b, bound):
    """Random integer in [0, bound)."""
    state = st.policy_rng[b] + GOLDEN
    st.policy_rng[b] = state
    return int(mix(state) % np.uint64(bound))


@part
def cost(policy, slot):
    """What a heuristic minimises over the legal slots."""
    if policy == SED:
        return slot[WAIT] + slot[EXECUTE] + slot[SEND] + slot[BACK]
    if policy == THRESHOLD:
        return -slot[SPEED]
    if policy == RANDOM:
        return 0.0
    return slot[QUEUE] / max(slot[CAPACITY], 1.0)


@part
def choose(st, b, policy, local, destination, mask, slots):
    """Slot that a heuristic chooses: of the cheapest, the first, or any."""
    if policy == THRESHOLD and local[LOAD] < 0.5 * destination[0, CAPACITY]:
        return 0
    best, least, tied = 0, np.inf, 0
    for k in range(1 if policy == THRESHOLD else 0, slots):
        if not mask[k]:
            continue
        price = cost(policy, destination[k])
        if price < least:
            best, least, tied = k, price, 1
        elif price == least and policy in (RANDOM, LQRAND):
            tied += 1
            if below(st, b, tied) == 0:
                best = k
    return best


@part
def decide(net, st, now, policy, actions, local, destination, mask):
    """Fill in the actions of all agents of all worlds."""
    for b in range(actions.shape[0]):
        for n in range(actions.shape[1]):
            actions[b, n] = 0
            if policy == LOCAL or not net.is_agent[n]:
                continue
            task = undecided(st, b, n)
            if task >= 0:
                look(net, st, b, n, task, now, local, destination, mask)
                actions[b, n] = choose(st, b, policy, local, destination, mask, net.slots[n])


@compiled
def run(net, st, now, factors, actions, policy, local, destination, mask):
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
        Overwritten, as are the last three, which have room for one decision.
    policy : int
        One of :data:`CODES`.
    local, destination, mask : array
    """
    for done in range(len(factors) - 1):
        if not has_room(net, st, factors[done]):
            return done  # before a random choice is made, that would be made again
        decide(net, st, now + done, policy, actions, local, destination, mask)
        tick(net, st, now + done, actions, factors[done], factors[done + 1])
    return len(factors) - 1


@compiled
def run_events(net, st, now, factors, actions, policy, local, destination, mask):
    """:func:`run` with :func:`sim_env.engine.events.event_tick`."""
    for done in range(len(factors) - 1):
        if not has_room(net, st, max(factors[done], factors[done + 1])):
            return done  # before a random choice is made, that would be made again
        decide(net, st, now + done, policy, actions, local, destination, mask)
        event_tick(net, st, now + done, actions, factors[done], factors[done + 1])
    return len(factors) - 1


HEURISTICS = Loop(run, run_events)

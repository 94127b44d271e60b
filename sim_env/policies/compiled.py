"""The heuristics of :mod:`sim_env.policies.heuristics`, compiled.

A test holds their choices equal to those of the numpy functions. A policy of your own may have a
compiled twin: an attribute ``compiled``, a function of one decision that numba compiled
(:func:`own_loop`).
"""

from functools import cache
from typing import Any

import numba
import numpy as np
from numba.extending import is_jitted

from sim_env.engine.compilation import OPTIONS, compiled, part
from sim_env.engine.compilation import Loop as Loop
from sim_env.engine.events import event_tick
from sim_env.engine.features import BACK, CAPACITY, EXECUTE, LOAD, QUEUE, SEND, SPEED, WAIT
from sim_env.engine.kernel import has_room, tick
from sim_env.engine.observation import look, undecided
from sim_env.engine.state import GOLDEN, NONE, mix
from sim_env.errors import shown
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


def code_of(policy: heuristics.Policy) -> int | None:
    """Return the number of a heuristic in compiled code; None for any other policy."""
    try:
        return CODES.get(policy)
    except TypeError:  # an object without a hash
        return None


@part
def below(st, b, bound):
    """Draw a random integer in [0, bound)."""
    state = st.policy_rng[b] + GOLDEN
    st.policy_rng[b] = state
    return int(mix(state) % np.uint64(bound))


@part
def cost(policy, slot):
    """Compute what a heuristic minimises over the legal slots."""
    if policy == SED:
        return slot[WAIT] + slot[EXECUTE] + slot[SEND] + slot[BACK]
    if policy == THRESHOLD:
        return -slot[SPEED]
    if policy == RANDOM:
        return 0.0
    return slot[QUEUE] / max(slot[CAPACITY], 1.0)


@part
def choose(st, b, policy, local, destination, mask, slots):
    """Choose a slot: of those with the least cost, the first or a random one."""
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
def decide(net, st, now, policy, spared, actions, local, destination, mask):
    """Fill in the actions of all agents of all worlds but the node `spared`, which keeps."""
    for b in range(actions.shape[0]):
        for n in range(actions.shape[1]):
            actions[b, n] = 0
            if policy == LOCAL or n == spared or not net.is_agent[n]:
                continue
            task = undecided(st, b, n)
            if task >= 0:
                look(net, st, b, n, task, now, local, destination, mask)
                actions[b, n] = choose(st, b, policy, local, destination, mask, net.slots[n])


@compiled
def decide_once(net, st, now, policy, spared, actions, local, destination, mask):
    """Fill in the actions of one tick; parameters as of :func:`run` and :func:`decide`."""
    decide(net, st, now, policy, spared, actions, local, destination, mask)


@compiled
def run(net, st, now, factors, actions, policy, local, destination, mask):
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
    policy : int
        One of :data:`CODES`.
    local, destination, mask : array
        Scratch space for one decision.
    """
    for done in range(len(factors) - 1):
        if not has_room(net, st, factors[done]):
            return done  # before a random choice, which would be made twice
        decide(net, st, now + done, policy, NONE, actions, local, destination, mask)
        tick(net, st, now + done, actions, factors[done], factors[done + 1])
    return len(factors) - 1


@compiled
def run_events(net, st, now, factors, actions, policy, local, destination, mask):
    """Do as :func:`run`, with :func:`sim_env.engine.events.event_tick`."""
    for done in range(len(factors) - 1):
        if not has_room(net, st, max(factors[done], factors[done + 1])):
            return done  # before a random choice, which would be made twice
        decide(net, st, now + done, policy, NONE, actions, local, destination, mask)
        event_tick(net, st, now + done, actions, factors[done], factors[done + 1])
    return len(factors) - 1


HEURISTICS = Loop(run, run_events)


@cache
def own_loop(choose: Any) -> Loop:
    """Compile the loop over ticks of a policy of your own.

    Parameters
    ----------
    choose : function compiled by numba.njit
        ``choose(local, destination, mask)`` returns the slot for one decision, from its raw columns
        (10,) and (K, 8) and its legal slots (K,): row by row what the numpy function of the policy
        does for R decisions.

    Returns
    -------
    Loop
        Compiled by its first call, in each process.

    Raises
    ------
    ValueError
        If numba did not compile the function.
    """
    if not is_jitted(choose):
        raise ValueError(
            f"the compiled twin of a policy is {shown(choose)}: must be a function compiled by "
            f"numba.njit"
        )

    @numba.njit(**OPTIONS)
    def decide_own(net, st, now, actions, local, destination, mask):
        for b in range(actions.shape[0]):
            for n in range(actions.shape[1]):
                actions[b, n] = 0
                task = undecided(st, b, n)
                if net.is_agent[n] and task >= 0:
                    slots = net.slots[n]
                    look(net, st, b, n, task, now, local, destination, mask)
                    actions[b, n] = choose(local, destination[:slots], mask[:slots])

    @numba.njit(**OPTIONS)
    def run_own(net, st, now, factors, actions, local, destination, mask):
        for done in range(len(factors) - 1):
            if not has_room(net, st, factors[done]):
                return done
            decide_own(net, st, now + done, actions, local, destination, mask)
            tick(net, st, now + done, actions, factors[done], factors[done + 1])
        return len(factors) - 1

    @numba.njit(**OPTIONS)
    def run_own_events(net, st, now, factors, actions, local, destination, mask):
        for done in range(len(factors) - 1):
            if not has_room(net, st, max(factors[done], factors[done + 1])):
                return done
            decide_own(net, st, now + done, actions, local, destination, mask)
            event_tick(net, st, now + done, actions, factors[done], factors[done + 1])
        return len(factors) - 1

    return Loop(run_own, run_own_events)

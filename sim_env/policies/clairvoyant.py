"""A dispatcher that knows the state of all nodes: a bound by information.

It decides for all agents of a world at one place, without delay, and knows what no agent can: the
work left in every queue and in service, and of each task in flight its size, deadline and tick of
arrival. Of the future it knows only rates of arrival. It is a bound by information, **not a proven
optimum**: it decides one task at a time.

For each task it compares its own node, every neighbour, and the nodes one hop further by a cost in
ticks (:func:`price`). This is the sum of

* the time until the output is home or, if the task will be lost, a multiple of the time from its
  birth to its deadline;
* its service time, once for each task that it delays, known or expected;
* a charge for its place in a queue that fills up.

So under heavy load, a task that costs the others more than it is worth is lost on purpose. Without
the cost of delaying others the dispatcher would be as selfish as ShortestExpectedDelay, and hardly
better. Messages do not wait for each other on a link in this world, so transfers are known exactly.
:mod:`sim_env.reference.clairvoyant` is the same in plain Python.
"""

from typing import Any, NamedTuple

import numpy as np

from sim_env.engine.compilation import Loop, compiled, part
from sim_env.engine.events import event_tick
from sim_env.engine.kernel import has_room, legal, tick, travel
from sim_env.engine.observation import Observation, undecided
from sim_env.engine.state import NONE, OUTBOUND, SENT, WHEEL, State

# These three were chosen on worlds of development; see prices() for the first two.
LOSS, DELAY = 8.0, 1.0
# Cost of a place in a queue that is expected to be full, per tick from birth to deadline.
CROWD = 0.3
ROUNDING = 1e-9  # ticks that rounding may add to the end of a service


class Prices(NamedTuple):
    """What an agent's own task is worth against the tasks of others.

    Parameters
    ----------
    loss : float
        Ticks that a lost task costs, for each tick from its birth to its deadline.
    delay : float
        Tasks that are delayed in the end for each one that is expected to come while it waits.
    """

    loss: float
    delay: float


def prices(rho: float) -> Prices:
    """Return the prices at an offered load: ``LOSS / rho^3`` and ``1 + DELAY * rho``.

    The lighter the load, the less often does a delay make others miss their deadlines, so the more
    is a loss worth beside it; and the sooner is a queue empty again, which ends the delay.

    Parameters
    ----------
    rho : float
        Offered load; taken as 0.01 below that, or a loss would have no finite price, and as 1
        above 1.
    """
    load = min(max(rho, 0.01), 1.0)
    return Prices(LOSS / load**3, 1.0 + DELAY * load)


class Plan(NamedTuple):
    """Scratch space for the decisions of a world in a tick.

    The tasks in flight to a node are a list in the order of their arrival; those that were sent in
    this tick are among them.
    """

    first: np.ndarray  # int32 (N,): task that arrives first at a node
    following: np.ndarray  # int32 (S,): task that arrives next there
    due: np.ndarray  # int32 (S,): tick of its arrival
    sent: np.ndarray  # bool (S,): whether it leaves its node in this tick


def new_plan(state: State) -> Plan:
    """Return scratch space for worlds of this size."""
    pool, nodes = state.kind.shape[1], state.service.shape[1]
    return Plan(
        np.zeros(nodes, np.int32),
        np.zeros(pool, np.int32),
        np.zeros(pool, np.int32),
        np.zeros(pool, np.bool_),
    )


@part
def expect(plan, node, task, due):
    """Insert a task into those in flight to a node, after all that arrive no later."""
    plan.due[task] = due
    last, after = NONE, plan.first[node]
    while after >= 0 and plan.due[after] <= due:
        last, after = after, plan.following[after]
    plan.following[task] = after
    if last < 0:
        plan.first[node] = task
    else:
        plan.following[last] = task


@part
def gather(st, b, now, plan):
    """Begin the plan of a tick with the tasks in flight."""
    plan.first[:] = NONE
    plan.sent[:] = False
    for later in range(WHEEL):
        task = st.wheel_head[b, (now + later) % WHEEL]
        while task >= 0:
            if st.kind[b, task] == OUTBOUND or st.kind[b, task] == SENT:
                expect(plan, st.place[b, task], task, st.due[b, task])
            task = st.next[b, task]


@part
def serve(net, st, b, n, task, free):
    """Return when a node that turns to a task at `free` is free again, and when the task leaves.

    Both are in ticks. The former may lie within a tick, since a node goes on to the next task at
    once; a task leaves at a whole one.
    """
    deadline = st.deadline[b, task]
    if free >= deadline:  # cancelled while it waits
        return free, float(deadline)
    end = free + st.work[b, task] / net.speed[n]
    if net.cancel_in_service and np.ceil(end - ROUNDING) > deadline:
        return float(deadline), float(deadline)
    return end, np.ceil(end - ROUNDING)


@part
def forecast(net, st, b, n, task, at, now, plan):
    """Forecast the queue that a task meets at a node which it reaches at tick `at`.

    ``at == now`` is a task that is kept. The forecast is exact unless a decision, an arrival that
    is not in flight yet, or a failure changes the queue before it.

    Returns
    -------
    start : float
        Tick at which the node turns to the task.
    load : int
        Tasks at the node when it arrives.
    behind : int
        Known tasks that will be served after it.
    """
    kept = at == now
    free, load = float(now), 0
    if st.service[b, n] >= 0:
        free, leaves = serve(net, st, b, n, st.service[b, n], free)
        load += leaves > at
    other = st.ready_head[b, n]
    while other >= 0:
        free, leaves = serve(net, st, b, n, other, free)
        load += leaves > at
        other = st.next[b, other]
    behind = 0
    other = st.pending_head[b, n]
    while other >= 0:
        if other != task and not plan.sent[other]:
            if kept:
                behind += 1
            else:
                free, leaves = serve(net, st, b, n, other, free)
                load += leaves > at
        other = st.next[b, other]
    other = plan.first[n]
    while other >= 0:
        if kept or plan.due[other] > at:
            behind += 1
        else:
            free, leaves = serve(net, st, b, n, other, max(free, float(plan.due[other])))
            load += leaves > at
        other = plan.following[other]
    return max(free, float(at)), load, behind


@part
def price(net, st, b, n, task, at, back, now, queue, prices):
    """Compute the cost in ticks of a task at a node.

    The tasks that it delays are those known behind it, and :attr:`Prices.delay` for each one that
    is expected while it waits and in half of its service: at the rate of the node's births, or of
    what it has accepted lately if that is more. A place in the queue costs nothing while the node
    is expected to be less than half full at the start of its service, and then rises to
    :data:`CROWD` of the time from birth to deadline: or else small tasks, which delay nobody, would
    fill the queue behind a large one, and births would overflow.

    Parameters
    ----------
    at : int
        Tick at which the task reaches the node; `now` if it is kept.
    back : int
        Ticks that the output takes home.
    queue : tuple
        What :func:`forecast` returned.
    """
    start, load, behind = queue
    deadline = st.deadline[b, task]
    lost = prices.loss * (deadline - st.born[b, task])
    if at > now and load >= net.capacity[n]:
        return lost
    if start >= deadline:
        return lost
    end = start + st.work[b, task] / net.speed[n]
    home = np.ceil(end - ROUNDING) + back
    service = min(end, float(deadline)) - start
    rate = max(st.incoming[b, n], net.arrivals[n])
    others = service * (behind + prices.delay * rate * (start - at + 0.5 * service))
    filled = (load + rate * (start - at)) / net.capacity[n]
    others += CROWD * (deadline - st.born[b, task]) * min(max(2.0 * filled - 1.0, 0.0), 1.0)
    return others + (lost if home > deadline else home - now)


@part
def dispatch(net, st, b, n, task, now, plan, prices):
    """Choose the slot for a task at node n: the first hop to the node where it costs least.

    A neighbour can pass the task on only if it is an agent and has room for it. It decides one tick
    after the arrival, so it must be busy until then, or else it would serve the task.
    """
    job = st.job[b, task]
    bits, output = net.job_input[job], net.job_output[job]
    best = 0
    queue = forecast(net, st, b, n, task, now, now, plan)
    least = price(net, st, b, n, task, now, st.back[b, task], now, queue, prices)
    for k in range(1, net.slots[n]):
        if not legal(net, st, b, n, k, task):
            continue
        m = net.neighbour[net.first[n] + k]
        at = now + travel(net, n, k, bits)
        back = st.back[b, task] + travel(net, n, k, output)
        queue = forecast(net, st, b, m, task, at, now, plan)
        cost = price(net, st, b, m, task, at, back, now, queue, prices)
        if cost < least:
            best, least = k, cost
        start, load, _ = queue
        passes = net.is_agent[m] and load < net.capacity[m] and start >= at + 1
        if not passes or st.hops[b, task] + 1 >= net.hop_cap or at >= st.deadline[b, task]:
            continue
        for j in range(1, net.slots[m]):
            far = net.neighbour[net.first[m] + j]
            if far == n or not st.open[b, net.first[m] + j]:
                continue
            there, home = at + 1 + travel(net, m, j, bits), back + travel(net, m, j, output)
            beyond = forecast(net, st, b, far, task, there, now, plan)
            cost = price(net, st, b, far, task, there, home, now, beyond, prices)
            if cost < least:
                best, least = k, cost
    return best


@part
def decide(net, st, now, actions, plan, prices):
    """Fill in the actions of all agents of all worlds, node by node, each aware of the others."""
    for b in range(actions.shape[0]):
        gathered = False
        for n in range(actions.shape[1]):
            actions[b, n] = 0
            task = undecided(st, b, n)
            if task < 0 or not net.is_agent[n]:
                continue
            if not gathered:
                gather(st, b, now, plan)
                gathered = True
            k = dispatch(net, st, b, n, task, now, plan, prices)
            if k > 0:
                actions[b, n] = k
                plan.sent[task] = True
                due = now + travel(net, n, k, net.job_input[st.job[b, task]])
                expect(plan, net.neighbour[net.first[n] + k], task, due)


@compiled
def run(net, st, now, factors, actions, plan, prices):
    """Tick as :func:`sim_env.policies.compiled.run` does, with scratch space and prices."""
    for done in range(len(factors) - 1):
        if not has_room(net, st, factors[done]):
            return done
        decide(net, st, now + done, actions, plan, prices)
        tick(net, st, now + done, actions, factors[done], factors[done + 1])
    return len(factors) - 1


@compiled
def run_events(net, st, now, factors, actions, plan, prices):
    """Do as :func:`run`, with :func:`sim_env.engine.events.event_tick`."""
    for done in range(len(factors) - 1):
        if not has_room(net, st, max(factors[done], factors[done + 1])):
            return done
        decide(net, st, now + done, actions, plan, prices)
        event_tick(net, st, now + done, actions, factors[done], factors[done + 1])
    return len(factors) - 1


class Clairvoyant:
    """The dispatcher, as :meth:`sim_env.world.World.run` takes it.

    Under the physics of the original simulator its actions are legal, too, but its forecasts know
    none of the quirks (:class:`sim_env.engine.physics.Quirks`), so it is no bound there.
    """

    def __call__(self, observation: Observation, rng: np.random.Generator) -> np.ndarray:
        """Raise ``ValueError``: an observation does not hold what it decides by."""
        raise ValueError(
            "clairvoyant cannot decide by an observation: it must decide for all agents of a world"
        )

    def drive(self, world: Any, ticks: int) -> None:
        """Advance a :class:`sim_env.world.World` by `ticks`."""
        world.drive(Loop(run, run_events), ticks, new_plan, prices(world.scenario.rho))

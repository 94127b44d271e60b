"""The tick: B worlds of one network, struct of arrays, compiled.

:mod:`sim_env.reference` says the same in plain Python and is the specification; a test holds the
two equal tick by tick.

A task is a row of the pool of its world and is in exactly one linked list at a time: decided
(`ready`) or undecided (`pending`) at a node, a bucket of the timing wheel while it travels, or
the free list. One array, `next`, links them all. At a node, `ready` before `pending` is the order
of arrival, because decisions are taken first-come first-served.

A tick runs: apply actions, deliver, and then for each node arrive, process, expire, publish.
"""

from typing import NamedTuple

import numpy as np

from sim_env.compiled import compiled
from sim_env.scenario import Net

NONE = -1
WHEEL = 1024  # buckets of the timing wheel; longer journeys go round more than once
BINS = 4096  # of the response histogram, one tick each; longer responses fall into the last
NEVER = 2**31 - 1

# Where a task is.
FREE, READY, PENDING, SERVICE, OUTBOUND, RETURNING = range(6)
# Columns of the counters.
CREATED, FINISHED, OVERFLOW, DEADLINE, CLIENT, RESPONSE, MASKED, OFFLOADED = range(8)


class State(NamedTuple):
    """All that changes: B worlds, N nodes, S places in the task pool, W wheel buckets."""

    rng: np.ndarray  # uint64 (B, N): splitmix64 state of each node's arrivals
    gap: np.ndarray  # float64 (B, N): expected arrivals left until the next one
    ready_head: np.ndarray  # int32 (B, N), as all heads, tails and counts below
    ready_tail: np.ndarray
    pending_head: np.ndarray
    pending_tail: np.ndarray
    num_ready: np.ndarray
    num_pending: np.ndarray
    service: np.ndarray  # int32 (B, N): task in service
    earliest: np.ndarray  # int32 (B, N): no deadline at the node is earlier than this
    published: np.ndarray  # int32 (B, information_delay + 1, N): queue lengths
    incoming: np.ndarray  # float64 (B, N): moving average of tasks accepted per tick
    accepted: np.ndarray  # int32 (B, N): tasks accepted in this tick
    kind: np.ndarray  # uint8 (B, S): where the task is
    serial: np.ndarray  # int64 (B, S): running number of the task in its world
    job: np.ndarray  # int32 (B, S)
    born: np.ndarray  # int32 (B, S): tick
    deadline: np.ndarray  # int32 (B, S): tick
    origin: np.ndarray  # int32 (B, S)
    place: np.ndarray  # int32 (B, S): node, or the node it travels to
    sender: np.ndarray  # int32 (B, S): node that sent it here
    hops: np.ndarray  # int32 (B, S)
    back: np.ndarray  # int32 (B, S): ticks that the output travels home
    due: np.ndarray  # int32 (B, S): tick of its delivery while it travels
    work: np.ndarray  # float64 (B, S): instructions left
    next: np.ndarray  # int32 (B, S)
    free_head: np.ndarray  # int32 (B,)
    num_free: np.ndarray  # int32 (B,)
    wheel_head: np.ndarray  # int32 (B, W)
    wheel_tail: np.ndarray  # int32 (B, W)
    total: np.ndarray  # int64 (B, 8): counters of all tasks
    cohort: np.ndarray  # int64 (B, 8): counters of the tasks born in the window
    histogram: np.ndarray  # int64 (B, BINS): responses of the cohort
    born_at: np.ndarray  # int64 (B, N): cohort by origin
    finished_at: np.ndarray  # int64 (B, N)
    served_by: np.ndarray  # int64 (B, N): cohort by the node that served it
    window: np.ndarray  # int64 (2,): first tick of the measured window, and the tick after it


GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)


@compiled
def mix(z):
    """Finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    z = (z ^ (z >> np.uint64(30))) * MIX_1
    z = (z ^ (z >> np.uint64(27))) * MIX_2
    return z ^ (z >> np.uint64(31))


@compiled
def uniform(st, b, n):
    """Next number of a node's stream, in (0, 1]."""
    state = st.rng[b, n] + GOLDEN
    st.rng[b, n] = state
    return (float(mix(state) >> np.uint64(11)) + 1.0) * (1.0 / 9007199254740992.0)


@compiled
def load(st, b, n):
    """Tasks at a node, the one in service included."""
    return st.num_ready[b, n] + st.num_pending[b, n] + (st.service[b, n] >= 0)


@compiled
def travel(net, n, k, bits):
    """Whole ticks, at least 1, that `bits` take from node n to its k-th slot."""
    return max(1, int(np.ceil(bits / net.rate[n, k] + net.latency[n, k])))


@compiled
def append(st, b, heads, tails, i, task):
    """Put a task at the end of list i."""
    st.next[b, task] = NONE
    if heads[b, i] < 0:
        heads[b, i] = task
    else:
        st.next[b, tails[b, i]] = task
    tails[b, i] = task


@compiled
def pop(st, b, heads, i):
    """Take the first task of list i."""
    task = heads[b, i]
    heads[b, i] = st.next[b, task]
    return task


@compiled
def end(st, b, task, outcome, now):
    """Count the end of a task and free its place."""
    st.total[b, outcome] += 1
    response = now - st.born[b, task]
    counted = st.window[0] <= st.born[b, task] < st.window[1]
    if counted:
        st.cohort[b, outcome] += 1
    if outcome == FINISHED:
        st.total[b, RESPONSE] += response
        if counted:
            st.cohort[b, RESPONSE] += response
            st.histogram[b, min(response, BINS - 1)] += 1
            st.finished_at[b, st.origin[b, task]] += 1
    st.kind[b, task] = FREE
    st.next[b, task] = st.free_head[b]
    st.free_head[b] = task
    st.num_free[b] += 1


@compiled
def launch(st, b, task, kind, due):
    """Put a task on its way; it is delivered at tick `due`."""
    st.kind[b, task] = kind
    st.due[b, task] = due
    append(st, b, st.wheel_head, st.wheel_tail, due % WHEEL, task)


@compiled
def enter(net, st, b, n, task, now):
    """A task reaches a node: it waits undecided, or is lost because the queue is full."""
    if load(st, b, n) >= net.capacity[n]:
        end(st, b, task, OVERFLOW, now)
        return
    st.kind[b, task] = PENDING
    st.place[b, task] = n
    append(st, b, st.pending_head, st.pending_tail, n, task)
    st.num_pending[b, n] += 1
    st.accepted[b, n] += 1
    st.earliest[b, n] = min(st.earliest[b, n], st.deadline[b, task])


@compiled
def decide(net, st, b, n, action, now):
    """Carry out an action about the first undecided task; an illegal one keeps the task."""
    task = st.pending_head[b, n]
    if task < 0:
        st.total[b, MASKED] += action != 0
        return
    pop(st, b, st.pending_head, n)
    st.num_pending[b, n] -= 1
    legal = 0 <= action < net.slots[n] and (action == 0 or st.hops[b, task] < net.hop_cap)
    if not legal:
        st.total[b, MASKED] += 1
        action = 0
    if action == 0:
        st.kind[b, task] = READY
        append(st, b, st.ready_head, st.ready_tail, n, task)
        st.num_ready[b, n] += 1
        return
    st.total[b, OFFLOADED] += 1
    job = st.job[b, task]
    st.place[b, task] = net.neighbour[n, action]
    st.sender[b, task] = n
    st.hops[b, task] += 1
    st.back[b, task] += travel(net, n, action, net.job_output[job])
    launch(st, b, task, OUTBOUND, now + travel(net, n, action, net.job_input[job]))


@compiled
def deliver(net, st, b, now):
    """Hand over what is due, in the order in which it was sent."""
    bucket = now % WHEEL
    task = st.wheel_head[b, bucket]
    st.wheel_head[b, bucket] = NONE
    while task >= 0:
        following = st.next[b, task]
        if st.due[b, task] != now:
            append(st, b, st.wheel_head, st.wheel_tail, bucket, task)
        elif st.kind[b, task] == RETURNING:
            end(st, b, task, FINISHED if now <= st.deadline[b, task] else CLIENT, now)
        elif st.deadline[b, task] <= now:
            end(st, b, task, DEADLINE, now)
        else:
            enter(net, st, b, st.place[b, task], task, now)
        task = following


@compiled
def arrive(net, st, b, n, now):
    """Births at a source: a Poisson process whose gaps are counted in expected arrivals."""
    while st.gap[b, n] <= 0.0:
        st.gap[b, n] -= np.log(uniform(st, b, n))
        job = min(int(uniform(st, b, n) * len(net.job_work)), len(net.job_work) - 1)
        span = net.deadline_high - net.deadline_low
        slack = net.deadline_low + min(int(uniform(st, b, n) * span), span - 1)
        task = st.free_head[b]
        if task < 0:
            raise MemoryError("task pool exhausted")
        st.free_head[b] = st.next[b, task]
        st.num_free[b] -= 1
        st.serial[b, task] = st.total[b, CREATED]
        st.job[b, task] = job
        st.born[b, task] = now
        st.deadline[b, task] = now + slack
        st.origin[b, task] = n
        st.sender[b, task] = NONE
        st.hops[b, task] = 0
        st.back[b, task] = 0
        st.work[b, task] = net.job_work[job]
        st.total[b, CREATED] += 1
        if st.window[0] <= now < st.window[1]:
            st.cohort[b, CREATED] += 1
            st.born_at[b, n] += 1
        enter(net, st, b, n, task, now)


@compiled
def process(net, st, b, n, now):
    """Serve in order of arrival until the tick's instructions are spent."""
    power = net.speed[n]
    while power > 0.0:
        task = st.service[b, n]
        if task < 0:
            if st.ready_head[b, n] >= 0:
                task = pop(st, b, st.ready_head, n)
                st.num_ready[b, n] -= 1
            elif st.pending_head[b, n] >= 0:
                task = pop(st, b, st.pending_head, n)
                st.num_pending[b, n] -= 1
            else:
                return
            st.kind[b, task] = SERVICE
            st.service[b, n] = task
        if st.work[b, task] > power:
            st.work[b, task] -= power
            return
        power -= st.work[b, task]
        st.work[b, task] = 0.0
        st.service[b, n] = NONE
        if st.window[0] <= st.born[b, task] < st.window[1]:
            st.served_by[b, n] += 1
        if st.back[b, task] > 0:
            launch(st, b, task, RETURNING, now + 1 + st.back[b, task])
        else:
            end(st, b, task, FINISHED if now + 1 <= st.deadline[b, task] else CLIENT, now + 1)


@compiled
def sweep(st, b, heads, tails, counts, n, now):
    """Cancel the tasks of a list whose deadline has come; returns the earliest deadline left."""
    earliest = NEVER
    task = heads[b, n]
    heads[b, n] = NONE
    counts[b, n] = 0
    while task >= 0:
        following = st.next[b, task]
        if st.deadline[b, task] <= now:
            end(st, b, task, DEADLINE, now)
        else:
            append(st, b, heads, tails, n, task)
            counts[b, n] += 1
            earliest = min(earliest, st.deadline[b, task])
        task = following
    return earliest


@compiled
def expire(net, st, b, n, now):
    """Cancel what can no longer finish in time at a node."""
    earliest = min(
        sweep(st, b, st.ready_head, st.ready_tail, st.num_ready, n, now),
        sweep(st, b, st.pending_head, st.pending_tail, st.num_pending, n, now),
    )
    task = st.service[b, n]
    if task >= 0 and net.cancel_in_service:
        if st.deadline[b, task] <= now:
            st.service[b, n] = NONE
            end(st, b, task, DEADLINE, now)
        else:
            earliest = min(earliest, st.deadline[b, task])
    st.earliest[b, n] = earliest


@compiled
def tick(net, st, now, actions):
    """Advance every world from time `now` to `now` + 1.

    Parameters
    ----------
    net : Net
    st : State
    now : int
        Ticks that have passed.
    actions : array of int32, shape (B, N)
        Slot to which each node sends its first undecided task; 0 keeps it. Only the entries of
        agents are read.
    """
    # Local names and the common cases spelled out: reading an array through the tuple, or handing
    # the tuple to a function, costs numba a reference count per array.
    is_agent, arrivals, speed = net.is_agent, net.arrivals, net.speed
    gap, service, work, earliest = st.gap, st.service, st.work, st.earliest
    num_ready, num_pending, published = st.num_ready, st.num_pending, st.published
    incoming, accepted = st.incoming, st.accepted
    row = now % published.shape[1]
    for b in range(actions.shape[0]):
        for n in range(actions.shape[1]):
            if is_agent[n] and (num_pending[b, n] > 0 or actions[b, n] != 0):
                decide(net, st, b, n, actions[b, n], now)
        deliver(net, st, b, now)
        for n in range(actions.shape[1]):
            gap[b, n] -= arrivals[n]
            if gap[b, n] <= 0.0:
                arrive(net, st, b, n, now)
            task = service[b, n]
            if task >= 0 and work[b, task] > speed[n]:
                work[b, task] -= speed[n]
            elif task >= 0 or num_ready[b, n] + num_pending[b, n] > 0:
                process(net, st, b, n, now)
            if earliest[b, n] <= now + 1:
                expire(net, st, b, n, now + 1)
            published[b, row, n] = num_ready[b, n] + num_pending[b, n] + (service[b, n] >= 0)
            incoming[b, n] = 0.95 * incoming[b, n] + 0.05 * accepted[b, n]
            accepted[b, n] = 0


@compiled
def first_gaps(net, st):
    """Draw the gap before the first arrival of every node."""
    for b in range(st.gap.shape[0]):
        for n in range(st.gap.shape[1]):
            st.gap[b, n] = -np.log(uniform(st, b, n)) if net.arrivals[n] > 0 else np.inf


def new_state(net: Net, seeds: np.ndarray, pool: int) -> State:
    """State of B empty worlds at time 0.

    Parameters
    ----------
    net : Net
    seeds : array of uint64, shape (B,)
        World b's arrivals depend on ``seeds[b]`` and the node only.
    pool : int
        Places for tasks in each world.
    """
    worlds, nodes = len(seeds), len(net.speed)

    def ints(*shape: int, fill: int = 0) -> np.ndarray:
        return np.full((worlds, *shape), fill, np.int32)

    with np.errstate(over="ignore"):
        rng = _mix_array(
            _mix_array(seeds)[:, None] + GOLDEN * np.arange(1, nodes + 1, dtype=np.uint64)
        )
    st = State(
        rng=rng,
        gap=np.zeros((worlds, nodes)),
        ready_head=ints(nodes, fill=NONE),
        ready_tail=ints(nodes, fill=NONE),
        pending_head=ints(nodes, fill=NONE),
        pending_tail=ints(nodes, fill=NONE),
        num_ready=ints(nodes),
        num_pending=ints(nodes),
        service=ints(nodes, fill=NONE),
        earliest=ints(nodes, fill=NEVER),
        published=ints(net.information_delay + 1, nodes),
        incoming=np.zeros((worlds, nodes)),
        accepted=ints(nodes),
        kind=np.zeros((worlds, pool), np.uint8),
        serial=np.zeros((worlds, pool), np.int64),
        job=ints(pool),
        born=ints(pool),
        deadline=ints(pool),
        origin=ints(pool),
        place=ints(pool),
        sender=ints(pool),
        hops=ints(pool),
        back=ints(pool),
        due=ints(pool),
        work=np.zeros((worlds, pool)),
        next=np.tile(np.append(np.arange(1, pool, dtype=np.int32), np.int32(NONE)), (worlds, 1)),
        free_head=ints(),
        num_free=ints(fill=pool),
        wheel_head=ints(WHEEL, fill=NONE),
        wheel_tail=ints(WHEEL, fill=NONE),
        total=np.zeros((worlds, 8), np.int64),
        cohort=np.zeros((worlds, 8), np.int64),
        histogram=np.zeros((worlds, BINS), np.int64),
        born_at=np.zeros((worlds, nodes), np.int64),
        finished_at=np.zeros((worlds, nodes), np.int64),
        served_by=np.zeros((worlds, nodes), np.int64),
        window=np.array([0, NEVER], np.int64),
    )
    first_gaps(net, st)
    return st


def _mix_array(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * MIX_1
    z = (z ^ (z >> np.uint64(27))) * MIX_2
    return np.asarray(z ^ (z >> np.uint64(31)))


def grow(st: State) -> State:
    """The same state with twice the places for tasks."""
    worlds, pool = st.kind.shape
    fields = ["kind", "serial", "job", "born", "deadline", "origin", "place", "sender"]
    fields += ["hops", "back", "due", "work", "next"]
    bigger = {name: np.concatenate([getattr(st, name)] * 2, axis=1) for name in fields}
    bigger["kind"][:, pool:] = FREE
    bigger["next"][:, pool:] = np.arange(pool + 1, 2 * pool + 1, dtype=np.int32)
    bigger["next"][:, -1] = st.free_head
    free_head = np.full(worlds, pool, np.int32)
    return st._replace(**bigger, free_head=free_head, num_free=st.num_free + np.int32(pool))

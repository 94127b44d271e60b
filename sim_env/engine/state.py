"""The state of B worlds as arrays, and the random numbers of the arrivals."""

from typing import NamedTuple

import numpy as np

from sim_env.engine.compilation import compiled, part
from sim_env.engine.net import Net
from sim_env.engine.reward import OUTCOME, SPARSE

NONE = -1
WHEEL = 1024  # buckets of the timing wheel; longer transfers take several turns
BINS = 4096  # of the response histogram, one tick each; longer responses fall into the last
NEVER = 2**31 - 1
DECIDERS = 16  # newest decisions about a task that are remembered

# Where a task is.
FREE, READY, PENDING, SERVICE, OUTBOUND, RETURNING, SENT, INTAKE = range(8)
# Columns of the counters.
CREATED, FINISHED, OVERFLOW, DEADLINE, CLIENT, RESPONSE, MASKED, OFFLOADED, FAILURE = range(9)
COUNTERS = 9
# Events of a traced task, with the node and the value that are recorded of each: birth (its origin,
# the job), entry into a queue (the node, 0), start of service (the node, 0), departure (the
# destination, the tick of arrival), end of service (the node, the tick at which the output is
# home), end (where it was, its counter).
BORN, QUEUED, STARTED, SENT_ON, SERVED, ENDED = range(6)
EVENT_COLUMNS = 5  # tick, event, serial, node, value
LOSSES = {"overflow": OVERFLOW, "deadline": DEADLINE, "client": CLIENT, "failure": FAILURE}


class State(NamedTuple):
    """State of B worlds: N nodes, S places in the task pool, W wheel buckets."""

    rng: np.ndarray  # uint64 (B, N): splitmix64 state of each node's arrivals
    gap: np.ndarray  # float64 (B, G): expected arrivals until the next of a stream, or its tick
    ready_head: np.ndarray  # int32 (B, N), as all heads, tails and counts below
    ready_tail: np.ndarray
    pending_head: np.ndarray
    pending_tail: np.ndarray
    intake_head: np.ndarray
    intake_tail: np.ndarray
    num_intake: np.ndarray
    num_ready: np.ndarray
    num_pending: np.ndarray
    service: np.ndarray  # int32 (B, N): task in service
    earliest: np.ndarray  # int32 (B, N): no deadline at the node is earlier than this
    published: np.ndarray  # int32 (B, information_delay + 2, N): published queue lengths
    incoming: np.ndarray  # float64 (B, N): moving average of tasks accepted per tick
    accepted: np.ndarray  # int32 (B, N): tasks accepted in this tick
    up: np.ndarray  # bool (B, N): nodes that have not failed
    open: np.ndarray  # bool (B, L): slots whose link and neighbour have not failed
    dirty: np.ndarray  # bool (B, N): something to publish
    entries: np.ndarray  # int64 (B,): tasks that have entered a queue
    policy_rng: np.ndarray  # uint64 (B,): splitmix64 state of a random heuristic
    order_rng: np.ndarray  # uint64 (B,): splitmix64 state of the order within a tick
    order: np.ndarray  # int32 (B, E): events of this tick
    num_events: np.ndarray  # int32 (B,)
    cursor: np.ndarray  # int32 (B,): position of the joint action among them
    kind: np.ndarray  # uint8 (B, S): where the task is
    entered: np.ndarray  # int64 (B, S): running number of its entry into the queue
    serial: np.ndarray  # int64 (B, S): running number of the task in its world
    job: np.ndarray  # int32 (B, S)
    born: np.ndarray  # int32 (B, S): tick
    deadline: np.ndarray  # int32 (B, S): tick
    origin: np.ndarray  # int32 (B, S)
    place: np.ndarray  # int32 (B, S): node, or the node it travels to
    sender: np.ndarray  # int32 (B, S): node that sent it here
    hops: np.ndarray  # int32 (B, S)
    back: np.ndarray  # int32 (B, S): ticks that the output travels home
    receiver: np.ndarray  # int32 (B, S): node that received it first
    from_receiver: np.ndarray  # int32 (B, S): ticks that the output travels from there
    due: np.ndarray  # int32 (B, S): tick of its delivery while it travels
    work: np.ndarray  # float64 (B, S): instructions left
    next: np.ndarray  # int32 (B, S)
    free_head: np.ndarray  # int32 (B,)
    num_free: np.ndarray  # int32 (B,)
    wheel_head: np.ndarray  # int32 (B, W)
    wheel_tail: np.ndarray  # int32 (B, W)
    total: np.ndarray  # int64 (B, 9): counters of all tasks
    cohort: np.ndarray  # int64 (B, 9): counters of the tasks born in the window
    histogram: np.ndarray  # int64 (B, BINS): responses of the cohort
    born_at: np.ndarray  # int64 (B, N): cohort by origin
    finished_at: np.ndarray  # int64 (B, N)
    served_by: np.ndarray  # int64 (B, N): cohort by the node that served it
    exchange: np.ndarray  # int64 (B, N, N): the same by origin and server; N is 0 if not counted
    deciders: np.ndarray  # int32 (B, S, D): nodes that decided, by hops
    ends: np.ndarray  # int32 (B, N, 4): ends of tasks that earn; as D, N is 0 if none do
    trace: np.ndarray  # int32 (W, L, 5): events of the tasks of the first W worlds; W is 0 or 1
    traced: np.ndarray  # int64 (W,): how many
    window: np.ndarray  # int64 (2,): first tick of the measured window, and the tick after it


GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)


@part
def mix(z):
    """Apply the finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    z = (z ^ (z >> np.uint64(30))) * MIX_1
    z = (z ^ (z >> np.uint64(27))) * MIX_2
    return z ^ (z >> np.uint64(31))


@part
def uniform(st, b, n):
    """Draw the next number of a node's stream, in (0, 1]."""
    state = st.rng[b, n] + GOLDEN
    st.rng[b, n] = state
    return (float(mix(state) >> np.uint64(11)) + 1.0) * (1.0 / 9007199254740992.0)


@compiled
def seed_streams(st, seeds):
    """Seed a stream per world and node, and per world one for the order of events and a policy."""
    for b in range(st.rng.shape[0]):
        for n in range(st.rng.shape[1]):
            st.rng[b, n] = mix(mix(seeds[b]) + GOLDEN * np.uint64(n + 1))
        st.order_rng[b] = mix(st.rng[b, 0] ^ GOLDEN)
        st.policy_rng[b] = mix(st.order_rng[b] ^ GOLDEN)


@compiled
def first_gaps(net, st, factor):
    """Draw the gap before the first arrival of every stream: a node's own, then its neighbours'."""
    for b in range(st.gap.shape[0]):
        for n in range(len(net.speed)):
            for k in range(net.streams[n + 1] - net.streams[n]):
                rate = net.arrivals[net.neighbour[net.first[n] + k]] * factor
                gap = np.inf
                if net.arrivals[n] > 0 and rate > 0:
                    gap = -np.log(uniform(st, b, n))
                    if net.one_per_tick:
                        gap = np.floor(gap / rate + 0.5)
                st.gap[b, net.streams[n] + k] = gap


def new_state(net: Net, seeds: np.ndarray, pool: int, factor: float) -> State:
    """Create the state of B empty worlds at time 0.

    Parameters
    ----------
    net : Net
    seeds : array of uint64, shape (B,)
        The arrivals of world b depend only on ``seeds[b]`` and the node.
    pool : int
        Places for tasks in each world.
    factor : float
        Multiplier of the arrival rates in the first tick.
    """
    worlds, nodes = len(seeds), len(net.speed)

    memory = min(net.hop_cap + 1, DECIDERS) if net.reward.kind == OUTCOME else 0

    def ints(*shape: int, fill: int = 0) -> np.ndarray:
        return np.full((worlds, *shape), fill, np.int32)

    rng = np.zeros((worlds, nodes), np.uint64)
    st = State(
        rng=rng,
        gap=np.zeros((worlds, net.streams[-1])),
        ready_head=ints(nodes, fill=NONE),
        ready_tail=ints(nodes, fill=NONE),
        pending_head=ints(nodes, fill=NONE),
        pending_tail=ints(nodes, fill=NONE),
        intake_head=ints(nodes, fill=NONE),
        intake_tail=ints(nodes, fill=NONE),
        num_intake=ints(nodes),
        num_ready=ints(nodes),
        num_pending=ints(nodes),
        service=ints(nodes, fill=NONE),
        earliest=ints(nodes, fill=NEVER),
        published=ints(net.information_delay + 2, nodes),
        incoming=np.zeros((worlds, nodes)),
        accepted=ints(nodes),
        up=np.ones((worlds, nodes), np.bool_),
        open=np.ones((worlds, len(net.neighbour)), np.bool_),
        dirty=np.zeros((worlds, nodes), np.bool_),
        entries=np.zeros(worlds, np.int64),
        policy_rng=np.zeros(worlds, np.uint64),
        order_rng=np.zeros(worlds, np.uint64),
        order=ints(2 * nodes + 1 + pool if net.random_order else 0),
        num_events=ints(),
        cursor=ints(),
        kind=np.zeros((worlds, pool), np.uint8),
        entered=np.zeros((worlds, pool), np.int64),
        serial=np.zeros((worlds, pool), np.int64),
        job=ints(pool),
        born=ints(pool),
        deadline=ints(pool),
        origin=ints(pool),
        place=ints(pool),
        sender=ints(pool),
        hops=ints(pool),
        back=ints(pool),
        receiver=ints(pool),
        from_receiver=ints(pool),
        due=ints(pool),
        work=np.zeros((worlds, pool)),
        next=np.tile(np.append(np.arange(1, pool, dtype=np.int32), np.int32(NONE)), (worlds, 1)),
        free_head=ints(),
        num_free=ints(fill=pool),
        wheel_head=ints(WHEEL, fill=NONE),
        wheel_tail=ints(WHEEL, fill=NONE),
        total=np.zeros((worlds, COUNTERS), np.int64),
        cohort=np.zeros((worlds, COUNTERS), np.int64),
        histogram=np.zeros((worlds, BINS), np.int64),
        born_at=np.zeros((worlds, nodes), np.int64),
        finished_at=np.zeros((worlds, nodes), np.int64),
        served_by=np.zeros((worlds, nodes), np.int64),
        exchange=np.zeros((worlds, 0, 0), np.int64),
        deciders=ints(pool, memory, fill=NONE),
        ends=ints(nodes if net.reward.kind in (SPARSE, OUTCOME) else 0, 4),
        trace=np.zeros((0, 0, EVENT_COLUMNS), np.int32),
        traced=np.zeros(0, np.int64),
        window=np.array([0, NEVER], np.int64),
    )
    seed_streams(st, seeds)
    first_gaps(net, st, factor if factor > 0 else 1.0)
    return st


def grow(st: State) -> State:
    """Return the same state with twice as many places for tasks."""
    worlds, pool = st.kind.shape
    fields = ["kind", "entered", "serial", "job", "born", "deadline", "origin", "place", "sender"]
    fields += ["hops", "back", "receiver", "from_receiver", "due", "work", "next"]
    fields += ["deciders"]
    bigger = {name: np.concatenate([getattr(st, name)] * 2, axis=1) for name in fields}
    bigger["kind"][:, pool:] = FREE
    bigger["next"][:, pool:] = np.arange(pool + 1, 2 * pool + 1, dtype=np.int32)
    bigger["next"][:, -1] = st.free_head
    free_head = np.full(worlds, pool, np.int32)
    if st.order.size:
        more = np.zeros((worlds, pool), np.int32)
        bigger["order"] = np.concatenate([st.order, more], axis=1)
    return st._replace(**bigger, free_head=free_head, num_free=st.num_free + np.int32(pool))

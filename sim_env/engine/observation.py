"""What an agent knows when it has to decide, in raw quantities.

A row is a decision: an agent of a world with an undecided task. Slot 0 of its destinations is the
node itself, slot k > 0 its k-th neighbour. Neighbours' queues are known with the delay of the
physics, the agent's own backlog exactly. Speeds, and the times that follow from them, are those
that the physics state; the reward is computed from the true ones.
"""

from dataclasses import dataclass

import numpy as np

from sim_env.engine.compilation import compiled, part
from sim_env.engine.features import (
    BACK,
    BACKLOG,
    CAPACITY,
    EXECUTE,
    HOPS,
    INCOMING,
    IS_SENDER,
    LOAD,
    MEGABYTES,
    NUM_DESTINATION,
    NUM_LOCAL,
    OUTPUT_MEGABYTES,
    PENDING,
    QUEUE,
    READY,
    SEND,
    SLACK,
    SPEED,
    WAIT,
    WORK,
    Encoding,
)
from sim_env.engine.kernel import legal, load, travel
from sim_env.engine.reward import decision_reward
from sim_env.engine.state import mix


@dataclass
class Observation:
    """R decisions in raw quantities; K is the largest number of slots of any node.

    Parameters
    ----------
    world, node : array of int32, shape (R,)
    local : array of float64, shape (R, 10)
        Undecided, decided and all tasks at the node; its backlog in ticks; instructions,
        megabytes of input and of output, ticks to the deadline and hops of the task; moving
        average of tasks accepted per tick. Columns: ``PENDING`` to ``INCOMING`` of
        :mod:`sim_env.engine.features`.
    destination : array of float64, shape (R, K, 8)
        Known queue, capacity, instructions per tick, expected wait, execution, transfer there
        and back in ticks, and whether the task came from there. Columns: ``QUEUE`` to
        ``IS_SENDER`` of :mod:`sim_env.engine.features`.
    mask : array of bool, shape (R, K)
        Legal actions.
    reward : array of float64, shape (R, K)
        Reward of each action, by the true speeds; zeros if the ends of tasks earn, not decisions.
    encoding : Encoding
        Used by :meth:`features`.
    """

    world: np.ndarray
    node: np.ndarray
    local: np.ndarray
    destination: np.ndarray
    mask: np.ndarray
    reward: np.ndarray
    encoding: Encoding

    def __len__(self) -> int:
        return len(self.world)

    def __getitem__(self, rows: np.ndarray | slice) -> "Observation":
        """Return the rows that an index, slice or mask selects."""
        return Observation(
            self.world[rows],
            self.node[rows],
            self.local[rows],
            self.destination[rows],
            self.mask[rows],
            self.reward[rows],
            self.encoding,
        )

    @property
    def delay(self) -> np.ndarray:
        """Expected wait + execution + transfer there and back, in ticks, shape (R, K)."""
        return np.asarray(self.destination[:, :, WAIT : BACK + 1].sum(axis=2))

    def features(self) -> tuple[np.ndarray, np.ndarray]:
        """Compute the input features of a network: :meth:`Encoding.features`."""
        return self.encoding.features(self.local, self.destination, self.mask)


def empty_observation(rows: int, slots: int, encoding: Encoding) -> Observation:
    """Return an observation with room for `rows` decisions."""
    return Observation(
        world=np.zeros(rows, np.int32),
        node=np.zeros(rows, np.int32),
        local=np.zeros((rows, NUM_LOCAL)),
        destination=np.zeros((rows, slots, NUM_DESTINATION)),
        mask=np.zeros((rows, slots), np.bool_),
        reward=np.zeros((rows, slots)),
        encoding=encoding,
    )


@part
def work_at(st, b, n, head):
    """Return the instructions left in service and in the list that begins at `head`."""
    work = 0.0
    if st.service[b, n] >= 0:
        work += st.work[b, st.service[b, n]]
    task = head
    while task >= 0:
        work += st.work[b, task]
        task = st.next[b, task]
    return work


@part
def arrived(st, b, now, n, m):
    """Return whether node m's queue length reached node n before the joint action of this tick.

    In a random order, the later the joint action is in its tick, the likelier.
    """
    seed = st.order_rng[b] ^ (np.uint64(n) << np.uint64(40)) ^ (np.uint64(m) << np.uint64(20))
    share = float(mix(seed + np.uint64(now)) >> np.uint64(11)) / 9007199254740992.0
    return share * st.num_events[b] < st.cursor[b]


@part
def undecided(st, b, n):
    """Return the task that a decision of node n is about, or NONE."""
    task = st.pending_head[b, n]
    return task if task >= 0 else st.intake_head[b, n]


@part
def look(net, st, b, n, task, now, local, destination, mask):
    """Fill in one decision; the arrays are those of its row."""
    known = now - 1 - net.information_delay
    depth = st.published.shape[1]
    ahead = work_at(st, b, n, st.ready_head[b, n])
    behind = 0.0
    other = st.pending_head[b, n]
    while other >= 0:
        behind += st.work[b, other]
        other = st.next[b, other]
    job = st.job[b, task]
    work = net.job_work[job]
    local[PENDING] = st.num_pending[b, n]
    local[READY] = st.num_ready[b, n]
    local[LOAD] = load(st, b, n)
    local[BACKLOG] = (ahead + behind) / (net.speed[n] * net.stated[n])
    local[WORK] = work
    local[MEGABYTES] = net.job_input[job] / 8e6
    local[OUTPUT_MEGABYTES] = net.job_output[job] / 8e6
    local[SLACK] = st.deadline[b, task] - now
    local[HOPS] = st.hops[b, task]
    local[INCOMING] = st.incoming[b, n]
    for k in range(net.slots[n]):
        m = net.neighbour[net.first[n] + k]
        mask[k] = legal(net, st, b, n, k, task)
        slot = destination[k]
        speed = net.speed[m] * net.stated[m]
        if k == 0:
            slot[QUEUE] = local[LOAD]
            slot[WAIT] = ahead / speed
            slot[SEND] = slot[BACK] = slot[IS_SENDER] = 0.0
        else:
            tick = known
            if net.random_order and arrived(st, b, now, n, m):
                tick += 1
            slot[QUEUE] = st.published[b, tick % depth, m] if tick >= 0 else 0
            slot[WAIT] = slot[QUEUE] * net.mean_work / speed
            slot[SEND] = travel(net, n, k, net.job_input[job])
            slot[BACK] = travel(net, n, k, net.job_output[job])
            slot[IS_SENDER] = m == st.sender[b, task]
        slot[CAPACITY] = net.capacity[m]
        slot[SPEED] = speed
        slot[EXECUTE] = work / speed


@compiled
def observe(net, st, now, world, node, local, destination, mask, reward, filled):
    """Fill in a row for every agent with an undecided task; return the number of rows.

    ``filled[row]`` is the number of slots of a row that may hold anything but zeros.
    """
    row = 0
    for b in range(st.service.shape[0]):
        for n in range(st.service.shape[1]):
            if not net.is_agent[n]:
                continue
            task = undecided(st, b, n)
            if task < 0:
                continue
            world[row] = b
            node[row] = n
            look(net, st, b, n, task, now, local[row], destination[row], mask[row])
            for k in range(net.slots[n]):
                reward[row, k] = decision_reward(net, n, k, destination[row])
            for k in range(net.slots[n], filled[row]):
                destination[row, k, :] = 0.0
                mask[row, k] = False
                reward[row, k] = 0.0
            filled[row] = net.slots[n]
            row += 1
    return row

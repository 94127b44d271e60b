"""The invariants of a correct world."""

import numpy as np

from sim_env.engine.net import Net
from sim_env.engine.state import CREATED, FINISHED, FREE, LOSSES, State


def audit(net: Net, state: State, now: int) -> dict[str, bool]:
    """Check the invariants of correct worlds.

    Parameters
    ----------
    net : Net
    state : State
        Of B worlds.
    now : int
        Their tick.

    Returns
    -------
    dict of str to bool
        Whether each invariant holds in all worlds, by name.
    """
    total, alive = state.total, state.kind != FREE
    inside = alive.sum(axis=1)
    lost = sum(total[:, column] for column in LOSSES.values())
    load = state.num_ready + state.num_pending + state.num_intake + (state.service >= 0)
    once, fifo = _walk(net, state)
    return {
        "created = finished + lost + inside": bool(
            np.all(total[:, CREATED] == total[:, FINISHED] + lost + inside)
        ),
        "free places + inside = pool": bool(np.all(state.num_free + inside == state.kind.shape[1])),
        "every task is in exactly one place": once,
        "queues are in order of arrival": fifo,
        "no queue beyond its capacity": bool(np.all(load <= net.capacity)),
        "no time and no work is negative": bool(
            np.all(state.work[alive] >= 0)
            and np.all(state.born[alive] <= now)
            and np.all(total >= 0)
            and np.all(state.back[alive] >= 0)
        ),
    }


def _walk(net: Net, state: State) -> tuple[bool, bool]:
    """Follow every list; return whether each task is in one place, and each queue in order."""
    num_worlds, num_nodes = state.service.shape
    once = fifo = True
    for b in range(num_worlds):
        seen: list[int] = []
        for n in range(num_nodes):
            ready = chain(state, b, state.ready_head[b, n])
            pending = chain(state, b, state.pending_head[b, n])
            for queue in (ready, pending) if net.events else (ready + pending,):
                steps = np.diff(state.entered[b, queue])
                fifo &= bool(np.all(steps < 0 if net.lifo else steps > 0))
            seen += ready + pending + chain(state, b, state.intake_head[b, n])
            seen += [int(state.service[b, n])] if state.service[b, n] >= 0 else []
        for head in state.wheel_head[b]:
            seen += chain(state, b, head)
        if net.random_order:  # messages of this tick that come after the joint action
            first = 2 * num_nodes + 1
            left = state.order[b, state.cursor[b] : state.num_events[b]]
            seen += [int(event) - first for event in left if event >= first]
        alive = np.flatnonzero(state.kind[b] != FREE)
        once &= sorted(seen) == alive.tolist()
    return once, fifo


def chain(state: State, world: int, head: int) -> list[int]:
    """Return the tasks of the linked list of a world that begins at `head`."""
    tasks = []
    while head >= 0:
        tasks.append(int(head))
        head = state.next[world, head]
    return tasks

"""The compiled part of the transport: messages on links, until one can go on to its next link."""

import numpy as np

from sim_env.engine.compilation import compiled, part


@part
def duration(i, links, journeys, messages):
    """Return the ticks until a link has transferred a message, or its latency is over."""
    capacity, is_open, tasks = links
    row, left, wait = journeys
    if left[i] == 0:
        return wait[i]
    link = row[i]
    if not is_open[link]:
        return np.inf
    return left[i] / (capacity[link] / (messages[link] + tasks[link]))


@compiled
def progress(now, ticks, links, journeys, counts):
    """Advance from `now` to `ticks`, or until a message can go on to its next link.

    Parameters
    ----------
    now, ticks : float
    links : tuple
        Capacity, whether it is up, and the number of tasks of each link, shape (L,).
    journeys : tuple
        Row, remaining bits and remaining ticks of latency of each message, shape (M,).
    counts : tuple
        Messages that each link is transferring; ticks in which it had any; whether it has been
        counted in a step, all False before and after. Shape (L,).

    Returns
    -------
    float
        The time then.
    """
    capacity, is_open, tasks = links
    row, left, wait = journeys
    messages, busy, is_noted = counts
    while True:
        step = ticks - now
        for i in range(len(row)):
            step = min(step, duration(i, links, journeys, messages))
        for i in range(len(row)):
            done = duration(i, links, journeys, messages) <= step
            if left[i] == 0:
                wait[i] = 0.0 if done else wait[i] - step
                continue
            link = row[i]
            if not is_noted[link]:
                is_noted[link] = True
                busy[link] += step
            if not done and is_open[link]:
                left[i] -= capacity[link] / (messages[link] + tasks[link]) * step
            if done or left[i] <= 0:
                left[i] = -1.0  # until all others have seen the message on its link
        now += step
        can_go_on = False
        for i in range(len(row)):
            is_noted[row[i]] = False
            if left[i] < 0:
                left[i] = 0.0
                messages[row[i]] -= 1
            can_go_on |= left[i] == 0 and wait[i] == 0
        if can_go_on or now >= ticks:
            return now


def compile_links() -> None:
    """Compile ahead, or load from the cache, what a co-simulation needs beside a run's kernels."""
    one, rows = np.ones(1), np.zeros(1, int)
    links = one, np.ones(1, np.bool_), np.zeros(1)
    progress(0.0, 1.0, links, (rows, one.copy(), np.zeros(1)), (rows + 1, one.copy(), rows > 0))

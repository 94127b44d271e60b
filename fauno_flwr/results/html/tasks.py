"""Where tasks are served and lost, and how busy nodes are, from a recording."""

import numpy as np

from sim_env.engine.state import BORN, ENDED, FINISHED, LOSSES, SERVED, STARTED
from sim_env.replay.recording import Recording


def measured(recording: Recording, event: int) -> np.ndarray:
    """Return the rows of one kind of event of the tasks born in the window."""
    born, rows = recording.of(BORN), recording.of(event)
    begin, end = recording.window
    inside = born[(born[:, 0] >= begin) & (born[:, 0] < end), 2]
    return rows[np.isin(rows[:, 2], inside)]


def exchange(recording: Recording, nodes: int) -> np.ndarray:
    """Count finished tasks of the window by the node of their birth and the node that served them.

    Parameters
    ----------
    recording : Recording
    nodes : int
        N.

    Returns
    -------
    array of int, shape (N, N)
        Its sum is ``recording.cohort()["finished"]``.
    """
    ended = measured(recording, ENDED)
    finished = ended[ended[:, 4] == FINISHED, 2]
    tasks = 1 + int(recording.events[:, 2].max(initial=-1))
    origin, server = np.full(tasks, -1), np.full(tasks, -1)
    for event, place in ((BORN, origin), (SERVED, server)):
        rows = recording.of(event)
        place[rows[:, 2]] = rows[:, 3]
    counts = np.zeros((nodes, nodes), np.int64)
    np.add.at(counts, (origin[finished], server[finished]), 1)
    return counts


def grouped(counts: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Add up a matrix of nodes by their groups.

    Parameters
    ----------
    counts : array, shape (N, N)
    group : array of int, shape (N,)
        Number of the group of each node, from 0.
    """
    total = np.zeros((int(group.max(initial=-1)) + 1,) * 2, counts.dtype)
    np.add.at(total, (group[:, None], group[None, :]), counts)
    return total


def losses(recording: Recording, nodes: int) -> dict[str, np.ndarray]:
    """Count the tasks of the window that were lost, by reason and by the node where they were.

    Returns
    -------
    dict of str to array of int, shape (N,)
        The sums are those of ``recording.cohort()``.
    """
    ended = measured(recording, ENDED)
    return {
        kind: np.bincount(ended[ended[:, 4] == column, 3], minlength=nodes)
        for kind, column in LOSSES.items()
    }


def responses(recording: Recording) -> np.ndarray:
    """Return the ticks from birth to end of the finished tasks of the window, sorted."""
    ended, born = measured(recording, ENDED), recording.of(BORN)
    finished = ended[ended[:, 4] == FINISHED]
    birth = np.zeros(1 + int(recording.events[:, 2].max(initial=-1)), np.int64)
    birth[born[:, 2]] = born[:, 0]
    return np.sort(finished[:, 0] - birth[finished[:, 2]])


def distribution(ticks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different values of a sorted sample, and the fraction of it at most as large."""
    values, counts = np.unique(ticks, return_counts=True)
    return values, counts.cumsum() / max(len(ticks), 1)


def utilisation(recording: Recording, nodes: int) -> np.ndarray:
    """Compute the fraction of the ticks of the window in which each node serves, shape (N,).

    Whatever tasks: those born before the window occupy a node too. A tick in which several are
    served counts once.
    """
    rows = recording.events[np.argsort(recording.events[:, 2], kind="stable")]  # task by task
    rows = rows[np.isin(rows[:, 1], (STARTED, SERVED, ENDED))]
    start = np.flatnonzero(rows[:, 1] == STARTED)
    follows = np.minimum(start + 1, len(rows) - 1)
    closed = (rows[follows, 2] == rows[start, 2]) & (follows > start)
    # A service ends within its last tick; a task is lost between two ticks; others go on.
    ends = np.where(closed, rows[follows, 0] + (rows[follows, 1] == SERVED), recording.ticks)
    change = np.zeros((recording.ticks + 1, nodes), np.int64)
    np.add.at(change, (rows[start, 0], rows[start, 3]), 1)
    np.add.at(change, (ends, rows[start, 3]), -1)
    begin, end = recording.window
    busy = change.cumsum(axis=0)[begin : min(end, recording.ticks)] > 0
    return busy.mean(axis=0) if len(busy) else np.zeros(nodes)

"""Memory checks: a request that does not fit raises an error instead of killing the process."""

import math
import sys
from pathlib import Path

import psutil

GIGABYTE = 1e9
# Bytes of the state of a world, see engine/state.py: of a fixed size (wheel and histogram, with a
# copy of it for the metrics), per node, slot, stream of births, and place for a task.
WORLD_BYTES, NODE_BYTES, SLOT_BYTES, STREAM_BYTES, TASK_BYTES = 75_000, 140, 1, 8, 80
# Limit of this container, version 2 and version 1 of Linux' control groups.
CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def available_memory() -> float:
    """Return the bytes that the machine, the container and the rlimit leave to this process."""
    process = psutil.Process().memory_info()
    room = [float(psutil.virtual_memory().available)]
    for path in CGROUP_LIMITS:
        try:
            room.append(float(path.read_text()) - process.rss)
        except (OSError, ValueError):  # no such group, or "max"
            continue
    if sys.platform != "win32":
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            room.append(float(limit - process.vms))
    return max(min(room), 0.0)


def require_memory(what: str, needed: float) -> None:
    """Raise ``ValueError`` if `what` needs more bytes than are available.

    Parameters
    ----------
    what : str
        Subject of the error message, with the value that makes it large.
    needed : float
        Bytes, estimated.
    """
    available = available_memory()
    if needed > available:
        raise ValueError(
            f"{what} needs about {_gigabytes(needed)} of memory: must be at most the "
            f"{_gigabytes(available)} that are free"
        )


def require_worlds(
    worlds: int, nodes: int, slots: int, streams: int, delay: int, tasks: int
) -> None:
    """Raise ``ValueError`` if the state of parallel worlds would not fit into the free memory.

    Parameters
    ----------
    worlds, nodes : int
        Parallel worlds, and nodes of each.
    slots, streams : int
        Slots of all nodes, and streams of births, of a world.
    delay : int
        Ticks after which neighbours know a queue length; that many lengths are kept.
    tasks : int
        Tasks that a world has room for.
    """
    each = WORLD_BYTES + (NODE_BYTES + 4 * delay) * nodes + SLOT_BYTES * slots
    each += STREAM_BYTES * streams + TASK_BYTES * tasks
    require_memory(
        f"the state of {worlds:,} worlds of {nodes:,} nodes, each with room for {tasks:,} tasks,",
        worlds * each,
    )


def _gigabytes(size: float) -> str:
    digits = max(0, 1 - math.floor(math.log10(max(size, 1e6) / GIGABYTE)))
    return f"{size / GIGABYTE:,.{digits}f} GB"

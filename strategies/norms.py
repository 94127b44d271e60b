"""The usual norm of updates, learned while training from those of distinct members."""

from bisect import bisect_left
from statistics import median_low
from typing import Any

WINDOW = 16  # newest updates of a member that are remembered
FEW = 3  # members, below which an outlier cannot be told from the others
MOST_MEMBERS = 1024  # that are remembered: without keys, nodes return under new ids for ever


class UsualNorm:
    """The median over members of the norm that each one's update had, from about the same version.

    Norms decrease while a training converges, so an update is compared with those from the versions
    nearest to its own: a straggler's is as large as others were when it began. However often a
    member reports, it is one voice of the median. Norms of 0 say nothing: a node that has met no
    data has not trained.

    Attributes
    ----------
    highest : float
        The largest value that :meth:`at` has returned, of three members or more.
    """

    def __init__(self) -> None:
        self._newest: dict[int, tuple[list[int], list[float]]] = {}  # base versions, norms
        self._usual: dict[int, float] = {}  # by version, until the next update
        self.highest = 0.0

    def __len__(self) -> int:
        """Return the number of members that are known."""
        return len(self._newest)

    def observe(self, member: int, base_version: int, norm: float) -> None:
        """Record the norm of an update."""
        if not norm > 0:
            return
        bases, norms = self._newest.pop(member, ([], []))
        place = bisect_left(bases, base_version)
        bases.insert(place, base_version)
        norms.insert(place, norm)
        del bases[:-WINDOW], norms[:-WINDOW]
        self._newest[member] = bases, norms  # behind members that have been silent for longer
        if len(self._newest) > MOST_MEMBERS:
            del self._newest[next(iter(self._newest))]
        self._usual.clear()

    def at(self, base_version: int) -> float:
        """Return the usual norm of updates from a version; 0 with fewer than two members."""
        if len(self._newest) < 2:
            return 0.0
        if base_version not in self._usual:
            self._usual[base_version] = median_low(
                # Of thousands of members, most have reported once.
                norms[nearest(bases, base_version) if len(bases) > 1 else 0]
                for bases, norms in self._newest.values()
            )
            if len(self._newest) >= FEW:
                self.highest = max(self.highest, self._usual[base_version])
        return self._usual[base_version]

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        newest = [[member, *lists] for member, lists in self._newest.items()]
        return {"newest": newest, "highest": self.highest}

    def load(self, state: dict[str, Any]) -> None:
        """Restore a checkpoint."""
        self._newest = {member: (bases, norms) for member, bases, norms in state["newest"]}
        self.highest = state["highest"]


def nearest(ascending: list[int], value: int) -> int:
    """Return the place of the number that is nearest to a value; the later one of two."""
    place = bisect_left(ascending, value)
    if place == len(ascending):
        return place - 1
    if place == 0 or ascending[place] - value <= value - ascending[place - 1]:
        return place
    return place - 1

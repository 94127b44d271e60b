"""How the decision of an agent is laid out as an observation, by name."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from sim_env.engine.features import Encoding
from sim_env.engine.observation import Observation
from sim_env.errors import require_choice

BOUND = 100.0  # no feature comes near
PARTS, MASKED, FLAT = "parts", "masked", "flat"
LAYOUTS = (PARTS, MASKED, FLAT)


@dataclass(frozen=True)
class Layout:
    """Observation of an agent with K slots, for V observers at once.

    ============  =====================================================================
    ``parts``     dict of ``local`` (L,) and ``destinations`` (K, D), float32, and
                  ``action_mask`` (K,), int8
    ``masked``    dict of ``observation``, float32 (L + K D,): both in a row, destination by
                  destination, and ``action_mask``
    ``flat``      float32 (L + K D + K,): the same with the mask at the end
    ============  =====================================================================

    Parameters
    ----------
    name : str
        One of :data:`LAYOUTS`.
    slots : int
        K.
    encoding : Encoding
        Has the widths L and D.

    Raises
    ------
    ValueError
        For another name.
    """

    name: str
    slots: int
    encoding: Encoding

    def __post_init__(self) -> None:
        require_choice("layout", self.name, LAYOUTS)

    @property
    def observation_space(self) -> spaces.Dict | spaces.Box:
        """A new space of the observations of one agent."""
        local, destinations = (self.encoding.local,), (self.slots, self.encoding.destinations)
        row = self.encoding.local + self.slots * self.encoding.destinations
        if self.name == FLAT:
            low = np.append(np.full(row, -BOUND), np.zeros(self.slots)).astype(np.float32)
            high = np.append(np.full(row, BOUND), np.ones(self.slots)).astype(np.float32)
            return spaces.Box(low, high)
        shapes = {"local": local, "destinations": destinations}
        if self.name == MASKED:
            shapes = {"observation": (row,)}
        boxes: dict[str, spaces.Space] = {
            key: spaces.Box(-BOUND, BOUND, shape, np.float32) for key, shape in shapes.items()
        }
        return spaces.Dict(boxes | {"action_mask": spaces.Box(0, 1, (self.slots,), np.int8)})

    @property
    def action_space(self) -> spaces.Discrete:
        """A new space of the actions of one agent."""
        return spaces.Discrete(self.slots)

    def show(self, count: int, decisions: Iterable[tuple[Observation, np.ndarray]]) -> Any:
        """Lay out decisions as the observations of V observers.

        Parameters
        ----------
        count : int
            V.
        decisions : iterable of (Observation, array of int, shape (R,))
            R decisions, and the observer of each.

        Returns
        -------
        dict of arrays, or array
            With a leading axis V. An observer without a decision sees zeros and may only keep.
        """
        local = np.zeros((count, self.encoding.local), np.float32)
        destinations = np.zeros((count, self.slots, self.encoding.destinations), np.float32)
        mask = np.zeros((count, self.slots), np.int8)
        mask[:, 0] = 1
        for rows, where in decisions:
            if len(rows):
                own, each = rows.features()
                local[where], destinations[where] = own, each[:, : self.slots]
                mask[where] = rows.mask[:, : self.slots]
        if self.name == PARTS:
            return {"local": local, "destinations": destinations, "action_mask": mask}
        row = np.concatenate([local, destinations.reshape(count, -1)], axis=1)
        if self.name == MASKED:
            return {"observation": row, "action_mask": mask}
        return np.concatenate([row, mask.astype(np.float32)], axis=1)


def one_of(views: Any, index: int) -> Any:
    """Return the observation of one of V observers, of what :meth:`Layout.show` returns."""
    if isinstance(views, dict):
        return {key: value[index] for key, value in views.items()}
    return views[index]


def earned(rows: Observation, chosen: np.ndarray) -> np.ndarray:
    """Return what R decisions earn at once, shape (R,).

    An illegal one, any integer, earns what keeping would.
    """
    row, slots = np.arange(len(rows)), rows.mask.shape[1]
    slot = np.where((chosen >= 0) & (chosen < slots), chosen, 0)
    return np.asarray(rows.reward[row, np.where(rows.mask[row, slot], slot, 0)])

"""Rewards of your own: Python functions of what the deciding agents know."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sim_env import plugins
from sim_env.engine.observation import Observation
from sim_env.engine.reward import GROUP, REWARDS
from sim_env.errors import shown


@dataclass(frozen=True)
class DecisionReward:
    """A reward of your own: a Python function of what the deciding agents know.

    Parameters
    ----------
    name : str
        Import path or entry point, for error messages.
    function : callable
        ``function(observation)`` returns what each action of each decision would earn at once, an
        array of shape (R, K). Entries of illegal actions, which earn what keeping would, are not
        read.
    """

    name: str
    function: Callable[[Observation], np.ndarray]

    def __call__(self, observation: Observation) -> np.ndarray:
        """Evaluate the function.

        Returns
        -------
        array of float64, shape (R, K)
            Zeros where illegal.

        Raises
        ------
        ValueError
            If the function returns another shape, or something else than finite numbers.
        """
        mask = observation.mask
        with np.errstate(divide="ignore", invalid="ignore"):  # of the zeros of missing slots
            earned = np.asarray(self.function(observation))
        where = f"reward {self.name!r}"
        if earned.shape != mask.shape or earned.dtype.kind not in "fiub":
            raise ValueError(
                f"{where} gave {earned.dtype} of shape {earned.shape}: must be numbers of shape "
                f"{mask.shape}, one for each action of each decision"
            )
        for value in earned[mask & ~np.isfinite(earned)][:1]:
            raise ValueError(f"{where} gave {value}: must be a finite number for every action")
        return np.where(mask, earned, 0.0)


def find_reward(kind: str) -> DecisionReward | None:
    """Return the reward of that import path or entry point; None for a built-in one.

    Raises
    ------
    ValueError
        If it cannot be imported or is not a function.
    """
    if kind in REWARDS:
        return None
    function = plugins.find("reward.kind", kind, {}, GROUP)
    if not callable(function):
        raise ValueError(
            f"reward.kind is {kind!r}: must be a function of an observation, not {shown(function)}"
        )
    return DecisionReward(kind, function)

"""The vector environment for Stable-Baselines3, which has an interface of its own for it."""

from collections.abc import Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv

from sim_env.envs.vector import EdgeVectorEnv


class EdgeVecEnv(VecEnv):
    """:class:`sim_env.EdgeVectorEnv` as a ``VecEnv``, for algorithms of SB3 and sb3-contrib.

    It gives what a ``DummyVecEnv`` of as many :class:`sim_env.EdgeEnv` gives, with the worlds
    stepped at once. ``MaskablePPO`` finds the legal actions. Wrap it in ``VecMonitor`` to have the
    rewards of episodes logged.

    Parameters
    ----------
    **settings
        Of :class:`sim_env.EdgeVectorEnv`, all but `autoreset_mode`.

    Attributes
    ----------
    env : EdgeVectorEnv
    """

    def __init__(self, **settings: Any) -> None:
        self.env = EdgeVectorEnv(**settings, autoreset_mode=AutoresetMode.SAME_STEP)
        super().__init__(
            self.env.num_envs, self.env.single_observation_space, self.env.single_action_space
        )

    def reset(self) -> Any:
        """Start new worlds, with the seeds of the last ``seed``, if any."""
        view, _ = self.env.reset(seed=self._seeds)
        self._reset_seeds()
        self._reset_options()
        return view

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for :meth:`step_wait`."""
        self._chosen = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Advance by one tick; a truncated world is at the start of its next one already."""
        view, reward, _, truncated, info = self.env.step(self._chosen)
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": bool(each)} for each in truncated]
        for i in np.flatnonzero(truncated):
            infos[i]["terminal_observation"] = info["final_obs"][i]
        return view, reward.astype(np.float32), truncated, infos

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: int | Iterable[int] | None = None) -> list[Any]:
        """Return an attribute, the same for each world of `indices`."""
        return [getattr(self.env, attr_name) for _ in self._get_indices(indices)]

    def set_attr(
        self, attr_name: str, value: Any, indices: int | Iterable[int] | None = None
    ) -> None:
        """Set an attribute of all worlds, whatever `indices` are."""
        setattr(self.env, attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: int | Iterable[int] | None = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Call a method once; ``action_masks`` gives each world its own, others all the same."""
        result = getattr(self.env, method_name)(*method_args, **method_kwargs)
        own = method_name == "action_masks"
        return [result[i] if own else result for i in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper], indices: int | Iterable[int] | None = None
    ) -> list[bool]:
        """Return False for each world of `indices`."""
        return [False for _ in self._get_indices(indices)]

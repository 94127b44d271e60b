"""Advantages and returns along the decisions of an agent."""

from typing import NamedTuple

import numpy as np

from fauno_flwr.config.agent import PPOConfig
from fauno_flwr.learning.transitions import Decisions


class Targets(NamedTuple):
    """What an agent learns from R decisions.

    Parameters
    ----------
    advantage : array of float32, shape (R,)
        Normalised over the rows to train on.
    returns : array of float32, shape (R,)
    rows : array of int
        The rows to train on: all that are followed by another decision, or terminal.
    explained : float
        Explained variance of the values.
    """

    advantage: np.ndarray
    returns: np.ndarray
    rows: np.ndarray
    explained: float


def advantages(
    reward: np.ndarray,
    value: np.ndarray,
    last: np.ndarray,
    gamma: float,
    gae_lambda: float,
    terminal: np.ndarray | None = None,
) -> np.ndarray:
    """Estimate advantages along each world's decisions (GAE, Schulman et al. 2016).

    ``A_t = d_t + gamma lambda A_{t+1}`` with ``d_t = r_t + gamma V_{t+1} - V_t``. The last decision
    of a world (or of a truncated episode) only serves to bootstrap the one before it, and gets 0.
    After a terminal decision nothing follows: ``A_t = r_t - V_t``.

    Parameters
    ----------
    reward, value : array of float, shape (R,)
    last : array of bool, shape (R,)
    gamma, gae_lambda : float
    terminal : array of bool, shape (R,), optional
        Default: none.

    Returns
    -------
    array of float64, shape (R,)
    """
    ends = last if terminal is None else last | terminal
    value = np.asarray(value, np.float64)
    following = np.where(ends, 0.0, np.append(value[1:], 0.0))
    delta = reward + gamma * following - value
    delta[last if terminal is None else last & ~terminal] = 0.0
    if gae_lambda == 0:
        return delta
    # Python's numbers: for one at a time, those of numpy are several times slower.
    decay = np.where(ends, 0.0, gamma * gae_lambda).tolist()
    advantage, after = delta.tolist(), 0.0
    for t in range(len(advantage) - 1, -1, -1):
        after = advantage[t] = advantage[t] + decay[t] * after
    return np.array(advantage, np.float64)


def targets(config: PPOConfig, batch: Decisions, value: np.ndarray, gae_lambda: float) -> Targets:
    """Compute advantages and returns of an agent from its values.

    Parameters
    ----------
    config : PPOConfig
    batch : Decisions
    value : array of float, shape (R,)
    gae_lambda : float
        Of the returns; that of the advantages is in `config`.
    """
    own = value.astype(np.float64)
    rewards = batch.reward, own, batch.last, config.gamma
    gae = advantages(*rewards, config.gae_lambda, batch.terminal)
    keep = np.flatnonzero(~batch.last)
    scale = gae[keep].std() + 1e-8 if len(keep) else 1.0
    centred = (gae - (gae[keep].mean() if len(keep) else 0.0)) / scale
    if gae_lambda != config.gae_lambda:
        gae = advantages(*rewards, gae_lambda, batch.terminal)
    returns = own + gae
    explained = _explained(own[keep], returns[keep])
    return Targets(centred.astype(np.float32), returns.astype(np.float32), keep, explained)


def _explained(value: np.ndarray, target: np.ndarray) -> float:
    """Return 1 - variance of the error / variance of the target; 0 for a constant target."""
    spread = float(target.var()) if len(target) > 1 else 0.0
    return 1.0 - float((target - value).var()) / spread if spread > 0 else 0.0

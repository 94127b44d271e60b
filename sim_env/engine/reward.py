"""Rewards, by name.

There are two kinds. Under ``delay``, ``peersimgym_dense`` and any function of your own a *decision*
earns, at once, a number that depends only on what the deciding node knows. Under ``sparse`` and
``outcome`` the *end of a task* earns, in the tick in which it happens, whichever node decides then.

A function of your own is evaluated in :mod:`sim_env.engine.decision_reward`. A new compiled reward
of the first kind is a name in :data:`REWARDS`, a function and a line in :func:`decision_reward`;
one of the second kind a name, a column of ``State.ends`` and a line in :func:`collect`.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from sim_env import plugins
from sim_env.engine.compilation import part
from sim_env.engine.features import BACK, CAPACITY, EXECUTE, QUEUE, SEND, SPEED, WAIT
from sim_env.errors import Use, require_effect, require_number, with_kind

REWARDS = ("delay", "peersimgym_dense", "sparse", "outcome")
"""Names of the built-in rewards: see :class:`RewardSpec`."""
DELAY, PEERSIMGYM_DENSE, SPARSE, OUTCOME = range(len(REWARDS))
PYTHON = len(REWARDS)  # a function of your own: compiled code sees zeros
GROUP = "fauno.rewards"  # of entry points
# Columns of ``State.ends``: own tasks that came home - tasks dropped here; tasks decided here that
# finished - those that were lost.
OWN, DECIDED = range(2)


@dataclass
class RewardSpec:
    """Reward of an agent.

    Parameters
    ----------
    kind : str
        ``delay``: :func:`delay_reward`; ``peersimgym_dense``: :func:`peersimgym_dense`;
        ``sparse`` and ``outcome``: :func:`collect`. Or an import path such as
        ``my_module:my_reward``, or an entry point of ``fauno.rewards``: :class:`DecisionReward`.
    utility : float
        U: earned by every decision, or by a task that finishes.
    scale : float
        Of ``delay``: seconds of expected delay that cost 1.
    delay_cap : float
        Of ``delay``: seconds at which the expected delay is clipped.
    overload_weight : float
        Of ``delay`` and ``peersimgym_dense``: weight of the overload term.
    queue_cap, exec_cap, comm_cap : float
        Of ``peersimgym_dense``: waiting, execution and transfer cost at most U times this.
    no_op : float
        Earned by an agent in a tick in which it has nothing to decide.
    """

    uses: ClassVar[dict[str, Use]] = {
        "utility": with_kind("kind", *REWARDS),
        "scale": with_kind("kind", "delay"),
        "delay_cap": with_kind("kind", "delay"),
        "overload_weight": with_kind("kind", "delay", "peersimgym_dense"),
        **dict.fromkeys(
            ("queue_cap", "exec_cap", "comm_cap"), with_kind("kind", "peersimgym_dense")
        ),
    }

    kind: str = "delay"
    utility: float = 1.0
    scale: float = 10.0
    delay_cap: float = 60.0
    overload_weight: float = 3.0
    queue_cap: float = 1.0
    exec_cap: float = 10.0
    comm_cap: float = 10.0
    no_op: float = 0.0

    def __post_init__(self) -> None:
        plugins.require_name("reward.kind", self.kind, dict.fromkeys(REWARDS), GROUP)
        for name in ("utility", "no_op"):
            require_number(f"reward.{name}", getattr(self, name))
        for name in ("scale", "delay_cap"):
            require_number(f"reward.{name}", getattr(self, name), above=0)
        for name in ("overload_weight", "queue_cap", "exec_cap", "comm_cap"):
            require_number(f"reward.{name}", getattr(self, name), at_least=0)
        require_effect("reward.", self, self.uses)


class Reward(NamedTuple):
    """The parameters of a reward, as the kernel reads them; N nodes."""

    kind: int
    utility: float
    scale: float  # ticks
    delay_cap: float  # ticks
    overload_weight: float
    queue_cap: float
    exec_cap: float
    comm_cap: float
    no_op: float
    mean_input: float  # bits of a job
    births: np.ndarray  # float64 (N,): tasks per tick that clients make for a node


def compile_reward(spec: RewardSpec, tick: float, mean_input: float, births: np.ndarray) -> Reward:
    """Compile `spec`; `tick` in seconds, the others as in :class:`Reward`."""
    return Reward(
        kind=REWARDS.index(spec.kind) if spec.kind in REWARDS else PYTHON,
        utility=spec.utility,
        scale=spec.scale / tick,
        delay_cap=spec.delay_cap / tick,
        overload_weight=spec.overload_weight,
        queue_cap=spec.queue_cap,
        exec_cap=spec.exec_cap,
        comm_cap=spec.comm_cap,
        no_op=spec.no_op,
        mean_input=mean_input,
        births=births,
    )


@part
def decision_reward(net, n, k, slots):
    """Compute what a decision of node n for its slot k earns at once.

    Parameters
    ----------
    net : Net
    n, k : int
    slots : array of float64, shape (K, 8)
        Raw columns of the decision's destinations.
    """
    if net.reward.kind == DELAY:
        return delay_reward(net.reward, slots[k], k)
    if net.reward.kind == PEERSIMGYM_DENSE:
        return peersimgym_dense(net, n, k, slots)
    return 0.0


@part
def delay_reward(reward, slot, k):
    """Compute utility minus expected delay minus overload risk.

    ``r = U - min(delay, cap) / S - w * O`` with ``O = -log10(max(free, 0.001))``: the dense reward
    of PeersimGym (after Baek et al. 2019) with the waiting time of the chosen node only, transfer
    both ways and absolute execution time. ``delay`` is the expected wait + execution + transfer
    there and back, ``free`` the fraction of the chosen queue that is free once the task is in it.
    """
    delay = slot[WAIT] + slot[EXECUTE] + slot[SEND] + slot[BACK]
    free = (slot[CAPACITY] - slot[QUEUE] - (k > 0)) / slot[CAPACITY]
    overload = -np.log10(max(free, 0.001))
    return (
        reward.utility - min(delay, reward.delay_cap) / reward.scale
    ) - reward.overload_weight * overload


@part
def peersimgym_dense(net, n, k, slots):
    """Compute the ``dense`` reward of PeersimGym's code (``PeersimEnv._compute_dense_reward``).

    With the tasks q at this node i and, as it knows them, at the target a, instructions per tick
    mu, mean instructions I and megabits M of a job, rate C of the link::

        r   = U - (t_w + t_c + t_e) - w O
        t_w = min((q_i - 1) I / mu_i + [a is not i] q_a / mu_a, U queue_cap)
        t_c = min([a is not i] M / C, U comm_cap)
        t_e = (I / mu_a - I / mu_i) within +- U exec_cap
        O   = -log10(max(1 - q' / Qmax_a, 0.001))
        q'  = q_a + [a is not i] + births_a - mu_a / I, between 0 and Qmax_a

    Kept, because the original's agents learn from these numbers:

    * The weights of the delays are caps, not factors.
    * ``q_a / mu_a`` lacks I, so it is negligible: the target's queue counts in O alone.
    * t_w and t_e are ticks, t_c is seconds.
    * Returning the output costs nothing.

    Changed:

    * I and M are those of the last job of the trace; here of the mean job, as intended.
    * q_a is the target's own count after the step; here what the node knows before it, because a
      reward that it cannot foresee would be noise.
    * births are the rate times the clients next to a node, whether or not they have tasks for it;
      here the tasks that clients do create for it.
    * An action out of range earns -U; here, as everywhere, what keeping would.
    """
    reward, own, target = net.reward, slots[0], slots[k]
    own_ticks, target_ticks = net.mean_work / own[SPEED], net.mean_work / target[SPEED]
    wait, transfer = (own[QUEUE] - 1.0) * own_ticks, 0.0
    if k > 0:
        link = net.first[n] + k
        wait += target[QUEUE] / target[SPEED]
        transfer = (reward.mean_input / net.rate[link] + net.latency[link]) / net.ticks_per_second
    cap = reward.utility * reward.exec_cap
    delay = (
        min(wait, reward.utility * reward.queue_cap)
        + min(transfer, reward.utility * reward.comm_cap)
        + min(max(target_ticks - own_ticks, -cap), cap)
    )
    births = reward.births[net.neighbour[net.first[n] + k]]
    expected = target[QUEUE] + (k > 0) + births - 1 / target_ticks
    free = 1.0 - min(max(expected, 0.0), target[CAPACITY]) / target[CAPACITY]
    return reward.utility - delay + reward.overload_weight * np.log10(max(free, 0.001))


def collect(reward: Reward, ends: np.ndarray) -> np.ndarray:
    """Compute what nodes have earned by the ends of tasks since the last call, and reset it.

    ``sparse``, as PeersimGym computes it: U for every task of which the node is the origin that
    finishes in time, -U for every task dropped at the node (by a full queue or its deadline,
    whatever its origin). A result that comes home too late and tasks lost by the failure of a node
    earn nothing.

    ``outcome``: every *decision* about a task earns when that task ends, U if it finishes in time
    and -U if it is lost in any way. So a task that was offloaded earns once for each node that
    sent it and for the one that kept it, twice for a node that it passed twice; one that was
    served before any decision about it earns nothing.

    Either is earned in the tick of the end. A learner that knows only decisions adds it to the
    node's newest decision, and relies on the discount to reach the one that caused it.

    Parameters
    ----------
    reward : Reward
    ends : array of int32, shape (B, N, 2)
        ``State.ends``; set to zeros.

    Returns
    -------
    array of float64, shape (B, N)
    """
    earned = reward.utility * ends[:, :, OWN if reward.kind == SPARSE else DECIDED]
    ends[:] = 0
    return np.asarray(earned)


@part
def ends_reward(reward, ends):
    """Compute :func:`collect` for one node; `ends` is its row of ``State.ends``."""
    return reward.utility * ends[OWN if reward.kind == SPARSE else DECIDED]

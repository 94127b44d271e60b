"""Rewards, by name.

There are two kinds. Under ``delay``, ``peersimgym_dense`` and any function of your own a *decision*
earns, at once, a number that depends only on what the deciding node knows, and on the true speeds
where the physics state others. Under ``sparse`` and ``outcome`` the *end of a task* earns, in the
tick in which it happens, whichever node decides then.

A function of your own is evaluated in :mod:`sim_env.engine.decision_reward`, from what the node
observes. A new compiled reward of the first kind is a name in :data:`REWARDS`, a function and a
line in :func:`decision_reward`; one of the second kind a name, columns of ``State.ends`` and a line
in :func:`collect` and :func:`ends_reward`.
"""

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np

from sim_env import plugins
from sim_env.engine.compilation import part
from sim_env.engine.features import BACK, CAPACITY, EXECUTE, QUEUE, SEND, WAIT
from sim_env.errors import Use, no_effect, require_effect, require_number, with_kind
from sim_env.network.graph import Topology
from sim_env.network.patterns import by_node, require_numbers

REWARDS = ("delay", "peersimgym_dense", "sparse", "outcome")
"""Names of the built-in rewards: see :class:`RewardSpec`."""
DELAY, PEERSIMGYM_DENSE, SPARSE, OUTCOME = range(len(REWARDS))
PYTHON = len(REWARDS)  # a function of your own: compiled code sees zeros
GROUP = "fauno.rewards"  # of entry points
# Columns of ``State.ends``: own tasks that came home, tasks dropped here, and tasks decided here by
# whether they finished.
OWN_FINISHED, DROPPED_HERE, DECIDED_FINISHED, DECIDED_LOST = range(4)


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
    delay_factors : dict of str to float
        Of ``delay`` and ``peersimgym_dense``: the delays of a decision, once capped, cost some
        nodes this many times as much. A key is a name, a role or a pattern of them (``rpi_1*``),
        and the last key that matches a node that decides applies.
    loss_factors : dict of str to float
        A loss costs some nodes this many times as much: the overload term of ``delay`` and
        ``peersimgym_dense``, a task dropped at the node under ``sparse``, one that it decided about
        under ``outcome``. Keys as of `delay_factors`.
    """

    uses: ClassVar[dict[str, Use]] = {
        **dict.fromkeys(("utility", "loss_factors"), with_kind("kind", *REWARDS)),
        "scale": with_kind("kind", "delay"),
        "delay_cap": with_kind("kind", "delay"),
        **dict.fromkeys(
            ("overload_weight", "delay_factors"), with_kind("kind", "delay", "peersimgym_dense")
        ),
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
    delay_factors: dict[str, float] = field(default_factory=dict)
    loss_factors: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plugins.require_name("reward.kind", self.kind, dict.fromkeys(REWARDS), GROUP)
        for name in ("utility", "no_op"):
            require_number(f"reward.{name}", getattr(self, name))
        for name in ("scale", "delay_cap"):
            require_number(f"reward.{name}", getattr(self, name), above=0)
        for name in ("overload_weight", "queue_cap", "exec_cap", "comm_cap"):
            require_number(f"reward.{name}", getattr(self, name), at_least=0)
        for name in ("delay_factors", "loss_factors"):
            require_numbers(f"reward.{name}", getattr(self, name), at_least=0)
        require_effect("reward.", self, self.uses)
        if self.loss_factors and not self.overload_weight:
            weight = ("reward.overload_weight", self.overload_weight)
            raise ValueError(no_effect("reward.loss_factors", dict(self.loss_factors), *weight))


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
    delay_factor: np.ndarray  # float64 (N,): by the node that decides
    loss_factor: np.ndarray  # float64 (N,): the same


def compile_reward(
    spec: RewardSpec, tick: float, mean_input: float, births: np.ndarray, topology: Topology
) -> Reward:
    """Compile `spec`; `tick` in seconds, `mean_input` and `births` as in :class:`Reward`."""
    delay_factor, loss_factor = (
        by_node(
            f"reward.{name}",
            getattr(spec, name),
            topology,
            default=1.0,
            among=topology.is_agent,
            what="a node that decides",
        )
        for name in ("delay_factors", "loss_factors")
    )
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
        delay_factor=delay_factor,
        loss_factor=loss_factor,
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
        return delay_reward(net, n, k, slots[k])
    if net.reward.kind == PEERSIMGYM_DENSE:
        return peersimgym_dense(net, n, k, slots)
    return 0.0


@part
def delay_reward(net, n, k, slot):
    """Compute utility minus expected delay minus overload risk.

    ``r = U - d * min(delay, cap) / S - l * w * O`` with ``O = -log10(max(free, 0.001))``: the dense
    reward of PeersimGym (after Baek et al. 2019) with the waiting time of the chosen node only,
    transfer both ways and absolute execution time. ``delay`` is the expected wait + execution +
    transfer there and back, ``free`` the fraction of the chosen queue that is free once the task is
    in it; d and l are the factors of the node, 1 by default.
    """
    reward = net.reward
    stretch = net.stated[net.neighbour[net.first[n] + k]]  # true time / time by the stated speed
    delay = (slot[WAIT] + slot[EXECUTE]) * stretch + slot[SEND] + slot[BACK]
    free = (slot[CAPACITY] - slot[QUEUE] - (k > 0)) / slot[CAPACITY]
    overload = -np.log10(max(free, 0.001))
    cost = reward.delay_factor[n] * (min(delay, reward.delay_cap) / reward.scale)
    return (reward.utility - cost) - reward.loss_factor[n] * reward.overload_weight * overload


@part
def peersimgym_dense(net, n, k, slots):
    """Compute the ``dense`` reward of PeersimGym's code (``PeersimEnv._compute_dense_reward``).

    With the tasks q at this node i and, as it knows them, at the target a, instructions per tick
    mu, mean instructions I and megabits M of a job, rate C of the link::

        r   = U - d (t_w + t_c + t_e) - l w O
        t_w = min((q_i - 1) I / mu_i + [a is not i] q_a / mu_a, U queue_cap)
        t_c = min([a is not i] M / C, U comm_cap)
        t_e = (I / mu_a - I / mu_i) within +- U exec_cap
        O   = -log10(max(1 - q' / Qmax_a, 0.001))
        q'  = q_a + [a is not i] + births_a - mu_a / I, between 0 and Qmax_a

    and d and l are the factors of node i, 1 by default.

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
    link = net.first[n] + k
    speed = net.speed[net.neighbour[link]]
    own_ticks, target_ticks = net.mean_work / net.speed[n], net.mean_work / speed
    wait, transfer = (own[QUEUE] - 1.0) * own_ticks, 0.0
    if k > 0:
        wait += target[QUEUE] / speed
        transfer = (reward.mean_input / net.rate[link] + net.latency[link]) / net.ticks_per_second
    cap = reward.utility * reward.exec_cap
    delay = (
        min(wait, reward.utility * reward.queue_cap)
        + min(transfer, reward.utility * reward.comm_cap)
        + min(max(target_ticks - own_ticks, -cap), cap)
    )
    births = reward.births[net.neighbour[link]]
    expected = target[QUEUE] + (k > 0) + births - 1 / target_ticks
    free = 1.0 - min(max(expected, 0.0), target[CAPACITY]) / target[CAPACITY]
    overload = -np.log10(max(free, 0.001))
    weight = reward.loss_factor[n] * reward.overload_weight
    return (reward.utility - reward.delay_factor[n] * delay) - weight * overload


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

    What a node earns for a loss is multiplied by its factor.

    Either is earned in the tick of the end. A learner that knows only decisions adds it to the
    node's newest decision, and relies on the discount to reach the one that caused it.

    Parameters
    ----------
    reward : Reward
    ends : array of int32, shape (B, N, 4)
        ``State.ends``; set to zeros.

    Returns
    -------
    array of float64, shape (B, N)
    """
    gains, losses = DECIDED_FINISHED, DECIDED_LOST
    if reward.kind == SPARSE:
        gains, losses = OWN_FINISHED, DROPPED_HERE
    earned = reward.utility * (ends[:, :, gains] - reward.loss_factor * ends[:, :, losses])
    ends[:] = 0
    return np.asarray(earned)


@part
def ends_reward(reward, n, ends):
    """Compute :func:`collect` for node n; `ends` is its row of ``State.ends``."""
    gains, losses = DECIDED_FINISHED, DECIDED_LOST
    if reward.kind == SPARSE:
        gains, losses = OWN_FINISHED, DROPPED_HERE
    return reward.utility * (ends[gains] - reward.loss_factor[n] * ends[losses])

"""Rewards of decisions: the specification of :mod:`sim_env.engine.reward`."""

import math

from sim_env.engine.net import Net
from sim_env.engine.reward import DELAY, PEERSIMGYM_DENSE

Slot = dict[str, float]  # queue, wait, execute, send, back; of a slot; times by the true speeds


def decision_reward(net: Net, n: int, k: int, slots: list[Slot]) -> float:
    """Compute what node n earns for a decision for its slot k."""
    if net.reward.kind == DELAY:
        return delay_reward(net, n, k, slots[k])
    if net.reward.kind == PEERSIMGYM_DENSE:
        return peersimgym_dense(net, n, k, slots)
    return 0.0


def delay_reward(net: Net, n: int, k: int, slot: Slot) -> float:
    """Compute utility - delay - overload once the task has arrived."""
    reward, capacity = net.reward, net.capacity[net.neighbour[net.first[n] + k]]
    delay = slot["wait"] + slot["execute"] + slot["send"] + slot["back"]
    cost = min(delay, reward.delay_cap) / reward.scale
    free = (capacity - slot["queue"] - (k > 0)) / capacity
    return reward.utility - reward.delay_factor[n] * cost - overload(net, n, free)


def peersimgym_dense(net: Net, n: int, k: int, slots: list[Slot]) -> float:
    """Compute utility - (wait + transfer + difference in execution) - overload one tick later."""
    reward, queue, known = net.reward, slots[0]["queue"], slots[k]["queue"]
    m, link, away = net.neighbour[net.first[n] + k], net.first[n] + k, k > 0
    mine, theirs = (float(net.mean_work / net.speed[node]) for node in (n, m))
    wait = (queue - 1) * mine + (known / float(net.speed[m]) if away else 0.0)
    seconds = (reward.mean_input / net.rate[link] + net.latency[link]) / net.ticks_per_second
    limit = {
        name: reward.utility * getattr(reward, f"{name}_cap") for name in ("queue", "exec", "comm")
    }
    delay = (
        min(wait, limit["queue"])
        + (min(seconds, limit["comm"]) if away else 0.0)
        + max(-limit["exec"], min(theirs - mine, limit["exec"]))
    )
    served = 1 / theirs if theirs else math.inf
    later = min(max(known + away + reward.births[m] - served, 0.0), net.capacity[m])
    cost = reward.delay_factor[n] * delay
    return reward.utility - cost - overload(net, n, 1 - later / net.capacity[m])


def overload(net: Net, n: int, free: float) -> float:
    """Compute what a queue of which the fraction `free` is left costs node n."""
    weight = net.reward.loss_factor[n] * net.reward.overload_weight
    return weight * -math.log10(max(free, 0.001))

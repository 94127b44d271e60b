"""What a decision earns."""

import numpy as np

from sim_env.compiled import part


@part
def delay_reward(net, delay, free):
    """Utility minus expected delay minus overload risk.

    ``r = U - min(delay, cap) / S - w * O`` with ``O = -log10(max(free, 0.001))``: the dense reward
    of PeersimGym (after Baek et al. 2019) with the waiting time of the chosen node only, transfer
    both ways and absolute execution time. It depends on nothing that the deciding node does not
    know.

    Parameters
    ----------
    net : Net
        Holds U, S, cap and w; times in ticks.
    delay : float
        Expected wait + execution + transfer there and back, in ticks.
    free : float
        Fraction of the chosen queue that is free once the task is in it.
    """
    overload = -np.log10(max(free, 0.001))
    return (
        net.utility - min(delay, net.delay_cap) / net.reward_scale - net.overload_weight * overload
    )

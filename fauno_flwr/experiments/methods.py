"""The methods that are compared: a name, and the settings that make it.

A method is one line of :data:`METHODS`. In its settings, ``{agents}`` stands for the number of
nodes that learn.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """A way to learn.

    Parameters
    ----------
    title : str
        In tables and figures.
    settings : tuple of str
        Overrides ``key=value``, over those of the experiment.
    greedy : bool, default True
        Whether it is compared by its agents' most probable actions, or by sampled ones. Both are
        evaluated, and in the tables.
    """

    title: str
    settings: tuple[str, ...] = ()
    greedy: bool = True


# How fast something is learned can only be seen in what is not there from the start.
FROM_SCRATCH = "agent.prior=0"
SYNCHRONOUS = ("federation.buffer_size={agents}", "federation.refill=version")
METHODS: Mapping[str, Method] = {
    "fauno": Method("FAuNO"),
    "scratch": Method("FAuNO without prior", (FROM_SCRATCH,)),
    "independent": Method("independent PPO", ("federation.share=nothing",)),
    "sync": Method("synchronous critic", SYNCHRONOUS),
    "model": Method("full-model federation", ("federation.share=model",)),
    "scof": Method("SCOF stand-in", ("agent=ddqn", "federation.share=model", *SYNCHRONOUS)),
    "paper": Method(
        "FAuNO, paper mode",
        ("agent=paper", "observation=paper", "reward=peersimgym"),
        greedy=False,  # a padded network that is only told queues needs the dice it trained with
    ),
}

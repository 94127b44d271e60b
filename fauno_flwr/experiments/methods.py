"""The methods that are compared: a name, and the settings that make it.

A method is one line of :data:`METHODS`, or of the `methods` of an experiment. In its settings,
``{agents}`` stands for the number of nodes that learn.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """A way to train.

    Parameters
    ----------
    title : str
        In tables and figures.
    settings : tuple of str
        Overrides ``key=value``; they come after those of the condition.
    greedy : bool, default True
        Whether it is compared by its agents' most probable actions, or by sampled ones. The tables
        show both.
    """

    title: str
    settings: tuple[str, ...] = ()
    greedy: bool = True


# For questions of learning speed: the prior gives actors much of what they would learn.
FROM_SCRATCH = "agent.prior=0"
SYNCHRONOUS = ("federation.buffer_size={agents}", "federation.refill=version")
PAPERS_CRITIC = "agent=state"
METHODS: Mapping[str, Method] = {
    "fauno": Method("FAuNO"),
    "scratch": Method("FAuNO without prior", (FROM_SCRATCH,)),
    "state": Method("FAuNO, the paper's critic", (PAPERS_CRITIC,)),
    "independent": Method("independent PPO", (PAPERS_CRITIC, "federation.share=nothing")),
    "sync": Method("synchronous critic", SYNCHRONOUS),
    "model": Method("full-model federation", ("federation.share=model",)),
    "scof": Method("SCOF stand-in", ("agent=ddqn", "federation.share=model", *SYNCHRONOUS)),
    "paper": Method(
        "FAuNO, paper mode",
        ("agent=paper", "observation=paper", "reward=peersimgym"),
        greedy=False,  # as in the paper; observing queues only, it needs the randomness of training
    ),
}

"""What the nodes of a run learn, and where their experience comes from."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.transitions import Decisions

if TYPE_CHECKING:
    from sim_env.replay.files import Replay


class Experience(Protocol):
    """Environments of one node, in which its agent acts."""

    def collect(self, population: AgentStack) -> Decisions:
        """Collect one rollout under the first agent of `population`."""

    def metrics(self) -> dict[str, float]:
        """Return metrics of the environments since they were opened."""


class Task(Protocol):
    """What the nodes of a run learn.

    Attributes
    ----------
    names : list of str
        Names of the nodes that learn.
    facts : dict
        Facts about the task, for the summary; ``rho`` is None where there is no load.
    """

    names: list[str]
    facts: dict[str, Any]

    def make_population(self, agents: int) -> AgentStack:
        """Make untrained agents; all start equal."""

    def check(self, agent: int, node_config: Mapping[str, Any]) -> None:
        """Check before any training that a node can open its environments.

        Parameters
        ----------
        agent : int
        node_config : mapping

        Raises
        ------
        ValueError
            If it cannot, and a later attempt could not either.
        """

    def open(
        self,
        agent: int,
        node_config: Mapping[str, Any],
        population: AgentStack,
        rollouts: int,
        rng: np.random.Generator,
    ) -> AbstractContextManager[Experience]:
        """Open the environments of a node for one message.

        Parameters
        ----------
        agent : int
            Agent of the node.
        node_config : mapping
            Node config, set by the owner of the node.
        population : AgentStack
            Its first agent acts during the warm-up.
        rollouts : int
            Number of rollouts that will be collected.
        rng : Generator
            Seeds the environments and samples the actions.
        """

    def evaluate(self, population: AgentStack | None) -> list[dict[str, Any]]:
        """Return the rows of the table: the agents, if there are any, and their baselines."""

    def record(self, population: AgentStack | None) -> "Replay | None":
        """Record one world of the evaluation under each of its policies; None if there is none."""

    def validate(self, population: AgentStack) -> dict[str, float]:
        """Evaluate the agents during training, in worlds that the final evaluation does not use.

        Returns
        -------
        dict of str to float
            ``finished_ratio`` and ``response`` in seconds, or ``return``.
        """

    def describe(self) -> str:
        """Describe the task in a few words."""

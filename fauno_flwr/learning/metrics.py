"""Metrics that a node reports with its update."""

from collections.abc import Mapping, Sequence

import numpy as np
from flwr.app import MetricRecord

STEPS = "num-steps"  # decisions behind an update; its weight in a merge


def train_metrics(
    updates: Sequence[Mapping[str, float]],
    rewards: Sequence[float],
    messages: int,
    environment: Mapping[str, float],
    seconds: float,
) -> MetricRecord:
    """Return what a node reports about its training.

    Parameters
    ----------
    updates : sequence of mapping
        Metrics of each update, as :meth:`fauno_flwr.learning.agents.AgentStack.update` returns
        them.
    rewards : sequence of float
        Mean reward of each rollout.
    messages : int
        Messages that this node has answered, this one included.
    environment : mapping of str to float
        Metrics of the node's environments meanwhile, such as :func:`task_metrics`.
    seconds : float
        Duration of the message.
    """
    return MetricRecord(
        {
            # At least one: a node without a decision is accepted, and weighs next to nothing.
            STEPS: max(1, int(sum(each["steps"] for each in updates))),
            "reward": float(np.mean(rewards)),
            **environment,
            "messages": messages,
            "seconds": seconds,
            **{
                name.replace("_", "-"): float(np.mean([each[name] for each in updates]))
                for name in updates[0]
                if name != "steps"
            },
        }
    )


def task_metrics(finished: int, lost: int, response: float) -> dict[str, float]:
    """Return metrics of the tasks of a network.

    Parameters
    ----------
    finished, lost : int
        Numbers of tasks that ended.
    response : float
        Sum of the response times of the finished ones, in seconds.
    """
    return {
        "finished-of-ended": finished / max(finished + lost, 1),
        "response": response / max(finished, 1),
    }

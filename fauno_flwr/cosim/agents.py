"""The agents of a co-simulation and the train messages that they work on."""

from dataclasses import dataclass, field

import numpy as np
from flwr.app import ArrayRecord, Message

from fauno_flwr.federation.local_training import LocalTraining, Progress
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.transitions import Decisions

ARRIVING, COLLECTING, UPDATING, RETURNING = "arriving", "collecting", "updating", "returning"


@dataclass
class RoundTrip:
    """A train message, from when it is sent until its reply arrives.

    Parameters
    ----------
    message : Message
    training : LocalTraining
    sent_at, expires : float
        Ticks.
    phase : str
        ``arriving`` at the node, ``collecting`` a rollout, ``updating`` the agent, or
        ``returning`` to the server.
    due : int
        Tick at which the present rollout or update is complete.
    totals : array
        Counters of the worlds when the message arrived.
    rollout : Decisions, optional
        Rollout of the present update.
    updated : tuple of AgentStack and int, optional
        Outcome of the present update: a stack, and the place of the agent in it.
    update : ArrayRecord
        What travels back.
    """

    message: Message
    training: LocalTraining
    sent_at: float
    expires: float
    phase: str = ARRIVING
    due: int = 0
    totals: np.ndarray = field(default_factory=lambda: np.zeros(0))
    rollout: Decisions | None = None
    updated: tuple[AgentStack, int] | None = None
    update: ArrayRecord = field(default_factory=ArrayRecord)


@dataclass
class Agent:
    """An agent of a co-simulation, beside its networks.

    Parameters
    ----------
    index : int
        Place in the stack of agents.
    node : int
        Its node in the network.
    slowdown : float
        Factor by which its updates take longer.
    rng : Generator
        Random stream of its updates.
    progress : Progress
    since : int
        Tick from which its decisions are those of its present policy.
    trip : RoundTrip, optional
        Train message in progress.
    """

    index: int
    node: int
    slowdown: float
    rng: np.random.Generator
    progress: Progress = field(default_factory=Progress)
    since: int = 0
    trip: RoundTrip | None = None

"""Ours: the PPO of this package on one node, and ``fauno train`` on all of them."""

import logging
import tempfile
from pathlib import Path

import numpy as np

from fauno_flwr.config.settings import RunConfig
from fauno_flwr.cosim.agents import Agent, RoundTrip
from fauno_flwr.cosim.grid import CosimGrid
from fauno_flwr.federation.context import RunContext
from fauno_flwr.federation.gossip_training import make_training
from fauno_flwr.federation.handshake import handshake
from fauno_flwr.federation.logs import quiet_flower
from fauno_flwr.federation.run import make_members
from fauno_flwr.results.directory import RunDirectory
from fauno_flwr.tasks.edge import EdgeTask
from rivals.common import HORIZON, NODE, PEERS, WARMUP, WORLDS, Progress, Report, settings
from sim_env.policies.heuristics import Policy

ROLLOUTS = 2  # to a message
RATE, GAMMA = 1e-3, 0.975  # a decision every 2.5 ticks: 0.99 to a tick, as the rivals'


def one_node(seed: int, report: Report, *overrides: str) -> None:
    """Train one node as a client does, without a server.

    The learning rate is constant, as that of the rivals: a client's decays to 0 with the versions
    of its federation.
    """
    training = {"worlds": WORLDS, "ticks": HORIZON // ROLLOUTS, "warmup": WARMUP, "peers": PEERS}
    own = [f"training.{name}={value}" for name, value in training.items()]
    own += [f"agent.learning_rate={RATE}", f"agent.gamma={GAMMA}"]
    config = settings(f"seed={seed}", *own, *overrides)
    task = EdgeTask(config, config.build_scenario())
    agents = task.make_population(1)
    rng = np.random.default_rng(seed)

    def best() -> Policy:
        return agents.policy(greedy=True)

    steps = decisions = 0
    going_on = report(Progress(0, 0, best))
    while going_on:
        with task.open(NODE, {}, agents, ROLLOUTS, rng) as experience:
            for _ in range(ROLLOUTS):
                rollout = experience.collect(agents)
                (update,) = agents.update([rollout], config.agent.learning_rate, [rng])
                steps += WORLDS * config.training.ticks
                decisions += int(update["steps"])
                going_on = going_on and report(Progress(steps, decisions, best))


def without_prior(seed: int, report: Report) -> None:
    """Train one node from random scores."""
    one_node(seed, report, "agent.prior=0")


class Reporting(CosimGrid):
    """A co-simulation that tells its progress."""

    def __init__(self, config: RunConfig, report: Report) -> None:
        self._listener, self._decisions = report, 0
        super().__init__(config, config.build_scenario())
        self.tell()

    def tell(self) -> None:
        """Tell how many ticks all agents have acted, in all worlds."""
        steps = self.world.now * self.world.num_worlds * self.population.agents
        self._listener(Progress(steps, self._decisions, self._best))

    def _best(self) -> Policy:
        return self.population.policy(self.scenario.agent_of_node, greedy=True)

    def run_until(self, end: int) -> None:
        """Run as ever, and tell."""
        super().run_until(end)
        self.tell()

    def _finish_update(self, agent: Agent, trip: RoundTrip) -> None:
        self._decisions += 0 if trip.rollout is None else len(trip.rollout)
        super()._finish_update(agent, trip)


def all_nodes(seed: int, report: Report) -> None:
    """Train all nodes as ``fauno train`` does by default, to the end: its learning rate decays."""
    config = settings(f"seed={seed}")
    with tempfile.TemporaryDirectory() as folder, quiet_flower(logging.ERROR):
        grid = Reporting(config, report)
        task = EdgeTask(config, grid.scenario)
        run = RunContext(grid, config, task, RunDirectory(Path(folder) / "run"))
        members = make_members(run)
        handshake(run, members)
        make_training(run, members).execute()

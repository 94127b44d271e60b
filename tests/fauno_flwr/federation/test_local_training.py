"""One local training behind the Flower client and the co-simulation."""

from contextlib import contextmanager

import numpy as np
import pytest
from flwr.app import Message, MessageType, RecordDict

from fauno_flwr import client_app
from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.cosim.grid import CosimGrid
from fauno_flwr.federation.local_training import LocalTraining, Progress
from fauno_flwr.federation.protocol import (
    ARRAYS,
    BASE_VERSION,
    CONFIG,
    METRICS,
    ROLLOUTS,
    settings_record,
)
from fauno_flwr.learning.agents import AgentStack
from fauno_flwr.learning.ppo import Population
from fauno_flwr.learning.transitions import Decisions
from strategies.arrays import to_arrays, to_record
from strategies.grids import FIRST_NODE_ID, InMemoryGrid

SMALL = [
    "topology=ether1",
    "training.worlds=8",
    "training.ticks=48",
    "training.rollouts=2",
    "training.warmup=20",
    "federation.versions=8",
]
AGENT, AGENTS = 2, 6


def message(config: RunConfig, version: int, arrays: dict[str, np.ndarray]) -> Message:
    record = settings_record(config.to_yaml())
    record[BASE_VERSION] = version
    content = RecordDict({ARRAYS: to_record(arrays), CONFIG: record})
    return Message(content, FIRST_NODE_ID + AGENT, MessageType.TRAIN, ttl=600)


class Recorded:
    """An experience that returns the rollouts of another one again."""

    def __init__(self, rollouts: list[Decisions]) -> None:
        self.rollouts = rollouts

    def collect(self, population: AgentStack) -> Decisions:
        """Return the next rollout."""
        return self.rollouts.pop(0)

    def metrics(self) -> dict[str, float]:
        """Return no metrics."""
        return {}


@pytest.mark.parametrize(
    ("share", "compression"), [("critic", "none"), ("model", "none"), ("critic", "top-k")]
)
def test_client_and_cosimulation_learn_the_same_from_the_same_rollouts(
    monkeypatch: pytest.MonkeyPatch, share: str, compression: str
) -> None:
    """Three messages, one of them of a version that the agent has trained from already.

    The rollouts of the co-simulation are given to the client, with the same random stream: the
    updates that travel, the metrics of learning and the agents are equal to the byte.
    """
    config = load_config(
        "ether2", [*SMALL, f"federation.share={share}", f"federation.compression={compression}"]
    )
    scenario = config.build_scenario()
    start = Population(1, config.agent, config.seed).get_shared(share)
    moved = {name: array + np.float32(0.01) for name, array in start.items()}
    sent = [(0, start), (0, start), (5, moved)]

    cosim, rollouts = CosimGrid(config, scenario), []
    take = cosim._recorder.take

    def recorded(agent: int, since: int) -> Decisions:
        rollouts.append(take(agent, since))
        return rollouts[-1]

    monkeypatch.setattr(cosim._recorder, "take", recorded)
    replies = [reply for each in sent for reply in cosim.send_and_receive([message(config, *each)])]
    assert len(rollouts) == len(sent) * config.training.rollouts
    assert all(len(rollout) > 10 for rollout in rollouts)

    @contextmanager
    def opened(*_: object):
        yield Recorded(rollouts)

    rng = np.random.default_rng([config.seed, AGENT, 2])
    monkeypatch.setattr(client_app, "message_rng", lambda *_: rng)
    monkeypatch.setattr("fauno_flwr.tasks.edge.open_experience", opened)
    clients = InMemoryGrid(client_app.app, AGENTS)
    for each, expected in zip(sent, replies, strict=True):
        (reply,) = clients.send_and_receive([message(config, *each)])
        arrays, others = (to_arrays(r.content.array_records[ARRAYS]) for r in (reply, expected))
        assert arrays.keys() == others.keys()
        for name, array in arrays.items():
            assert array.tobytes() == others[name].tobytes()
        metrics, other = (dict(r.content.metric_records[METRICS]) for r in (reply, expected))
        for name in set(metrics) - {"seconds"}:
            assert metrics[name] == other[name]
    saved = clients.contexts[FIRST_NODE_ID + AGENT].state.config_records["agent"]["parameters"]
    alone = Population(1, config.agent, 0)
    alone.load(saved)
    assert alone.save() == cosim.population.select([AGENT]).save()


def training(version: int, progress: Progress, **config: object) -> LocalTraining:
    settings = load_config("ether2", [*SMALL, *(f"{k}={v}" for k, v in config.items())])
    agents = Population(1, settings.agent, 1)
    arrays = {name: array + 1 for name, array in agents.get_critic().items()}
    content = message(settings, version, arrays).content
    return LocalTraining(settings, agents, 0, progress, content)


def test_a_known_version_keeps_what_the_agent_has_learned_since() -> None:
    for known, replaced in ((3, False), (2, True), (-1, True)):
        local = training(3, Progress(version=known))
        before = local.agents.get_critic()
        local.begin()
        changed = any((before[n] != a).any() for n, a in local.agents.get_critic().items())
        assert changed == replaced
        assert local.progress.version == 3


def test_independent_learners_never_take_over_shared_parameters() -> None:
    local = training(3, Progress(), **{"federation.share": "nothing"})
    before = local.agents.get_critic()
    assert not local.begin()
    assert all((before[name] == a).all() for name, a in local.agents.get_critic().items())


def test_the_learning_rate_decays_with_the_versions_to_zero() -> None:
    rates = [training(version, Progress()).learning_rate for version in (0, 4, 8)]
    assert rates == [3e-3, 1.5e-3, 0.0]


def test_the_message_may_request_a_number_of_rollouts() -> None:
    local = training(0, Progress())
    assert local.rollouts == 2
    local.content.config_records[CONFIG][ROLLOUTS] = 5
    again = LocalTraining(local.config, local.agents, 0, Progress(), local.content)
    assert again.rollouts == 5

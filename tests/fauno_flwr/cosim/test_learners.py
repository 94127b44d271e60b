"""Other learners in co-simulation, whose data come from the policy that acts."""

from pathlib import Path

import numpy as np
import pytest

from fauno_flwr.config.loading import load_config
from fauno_flwr.cosim.grid import CosimGrid
from fauno_flwr.federation.run import Run
from fauno_flwr.learning.registry import make_population
from fauno_flwr.results.directory import RunDirectory
from fauno_flwr.tasks.edge import EdgeTask
from tests.fauno_flwr.cosim.test_grid import Trained, settings

WHOLE = "federation.share=model"


@pytest.mark.parametrize(
    "overrides",
    [
        ("agent=ddqn", WHOLE, "federation.buffer_size=6"),
        ("agent=paper", "observation=paper", "reward=peersimgym"),
        ("agent=ddqn", "agent.network=padded", "observation=paper", WHOLE),
    ],
    ids=["ddqn", "paper", "ddqn-padded"],
)
def test_every_learner_makes_versions_and_is_evaluated(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    trained = Trained(tmp_path / "run", *overrides)
    assert len(trained.of("flush")) == 4
    assert len(trained.rows) == 3  # all the agents together, their start, and a heuristic
    first = make_population(1, trained.config, trained.grid.scenario)
    shared = first.get_shared(trained.config.federation.share)
    assert trained.arrays["critic"].keys() == shared.keys()
    assert any(not np.array_equal(trained.arrays["critic"][name], shared[name]) for name in shared)


def test_an_actor_that_comes_with_a_message_acts_from_then_on(tmp_path: Path) -> None:
    """Each batch was decided by the policy that is trained on it: the first ratio is 1."""
    overrides = ("federation.share=model", "agent.learning_rate=1e-2", "federation.versions=8")
    config = settings(*overrides)
    scenario = config.build_scenario()
    grid = CosimGrid(config, scenario)
    seen: list[float] = []
    take = grid._recorder.take

    def watched(agent: int, since: int = 0):
        batch = take(agent, since)
        if len(batch):
            acting, newest = (
                grid._weights,
                grid.population.weights(grid.scenario.agent_of_node, False),
            )
            seen.append(float(np.abs(acting.middle[agent] - newest.middle[agent]).max()))
            assert grid._agents[agent].since <= since
        return batch

    grid._recorder.take = watched
    Run(grid, config, EdgeTask(config, scenario), RunDirectory(tmp_path / "run")).execute()
    assert len(seen) > 12
    assert max(seen) == 0


def test_a_node_that_fails_loses_its_training_and_comes_back(tmp_path: Path) -> None:
    name = settings().build_scenario().topology.names[0]
    trained = Trained(
        tmp_path / "run",
        f"dynamics.nodes.{name}=[{{down: 8, up: 14}}]",
        "federation.versions=12",
        "federation.buffer_size=3",
    )
    (error,) = trained.of("error")
    assert error["name"] == name
    assert error["reason"] == "the node has failed"
    failed = error["t"]
    back = [event["t"] for event in trained.of("dispatch") if event["name"] == name]
    assert not any(failed < t < failed + 5 for t in back)
    assert max(back) > failed + 5


@pytest.mark.slow
def test_double_dqn_improves_in_co_simulation(tmp_path: Path) -> None:
    """From its start to beyond least-queue, in the default world."""
    config = load_config(
        "ether2",
        [
            "agent=ddqn",
            WHOLE,
            "federation.buffer_size=19",
            "federation.versions=30",
            "federation.collect_actors=true",
            "training.worlds=8",
            "evaluation.worlds=8",
            "evaluation.policies=[lq]",
        ],
    )
    scenario = config.build_scenario()
    grid = CosimGrid(config, scenario)
    after, before, queues = Run(
        grid, config, EdgeTask(config, scenario), RunDirectory(tmp_path / "run")
    ).execute()
    assert after["finished_ratio"]["low"] > before["finished_ratio"]["high"]
    assert after["finished_ratio"]["low"] > queues["finished_ratio"]["high"]

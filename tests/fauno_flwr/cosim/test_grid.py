"""All agents in one shared network: the server and the strategy of the app, under virtual time."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.cosim.gossip import make_grid
from fauno_flwr.cosim.grid import CosimGrid
from fauno_flwr.federation.run import Run
from fauno_flwr.learning.metrics import STEPS
from fauno_flwr.results.directory import RunDirectory, read_lines
from fauno_flwr.tasks.edge import EdgeTask

SMALL = [
    "topology=ether1",
    "training.worlds=2",
    "training.ticks=48",
    "training.rollouts=1",
    "training.warmup=20",
    "federation.versions=4",
    "federation.collect_actors=true",
    "evaluation.worlds=1",
    "evaluation.warmup=10",
    "evaluation.window=50",
    "evaluation.policies=[lq]",
]


def settings(*overrides: str) -> RunConfig:
    """Return settings of one Ether cluster that is trained in a second."""
    return load_config("ether2", [*SMALL, *overrides])


class Trained:
    """A training and what it has left behind."""

    def __init__(self, path: Path, *overrides: str, threads: int = 0) -> None:
        self.path, self.config = path, settings(*overrides)
        scenario = self.config.build_scenario()
        self.grid = make_grid(self.config, scenario, threads)
        self.rows = Run(
            self.grid, self.config, EdgeTask(self.config, scenario), RunDirectory(path)
        ).execute()
        self.text = (path / "events.jsonl").read_text()
        self.events = read_lines(path / "events.jsonl")
        self.arrays = {
            name: load_file(path / "checkpoints" / f"{name}.safetensors")
            for name in ("critic", "actors")
        }

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Events of a kind."""
        return [event for event in self.events if event["event"] == kind]


def test_two_runs_with_one_seed_are_the_same_to_the_byte(tmp_path: Path) -> None:
    one, two = Trained(tmp_path / "one"), Trained(tmp_path / "two")
    other = Trained(tmp_path / "other", "seed=2")
    assert one.text == two.text
    assert one.text != other.text
    for name, arrays in one.arrays.items():
        for key, array in arrays.items():
            assert array.tobytes() == two.arrays[name][key].tobytes()
    assert one.rows[0]["finished_ratio"] == two.rows[0]["finished_ratio"]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["federation.merging=gossip", "federation.share=model"],
        # Updates are dropped with their nodes, and padded networks learn side by side.
        ["dynamics=failures", "dynamics.node_mttf=20", "dynamics.node_mttr=3"],
        ["agent.network=padded"],
    ],
)
def test_threads_change_nothing(tmp_path: Path, overrides: list[str]) -> None:
    alone = Trained(tmp_path / "alone", *overrides)
    threads = Trained(tmp_path / "threads", *overrides, threads=3)
    assert alone.text == threads.text
    for name, arrays in alone.arrays.items():
        for key, array in arrays.items():
            assert array.tobytes() == threads.arrays[name][key].tobytes()


def test_every_agent_trains_and_reports(tmp_path: Path) -> None:
    trained = Trained(tmp_path / "run")
    names = {event["name"] for event in trained.of("reply")}
    topology = trained.grid.scenario.topology
    assert names == {topology.names[node] for node in trained.grid.scenario.agents}
    assert [event["version"] for event in trained.of("flush")] == [1, 2, 3, 4]
    assert not trained.of("error")
    assert not trained.of("reject")
    for event in trained.of("reply"):
        # 48 ticks of 0.1 s, an update of a tick at least, and the way there and back.
        assert event["latency"] >= 4.8 - 1e-9
        assert 1 <= event["metrics"][STEPS] <= 2 * 48
        assert np.isfinite(event["metrics"]["value-loss"])


def test_a_slow_node_is_stale(tmp_path: Path) -> None:
    name = settings().build_scenario().topology.names[0]
    trained = Trained(tmp_path / "run", f"cosim.slowdown.{name}=1000", "cosim.training_work=1e7")
    reports = Counter(event["name"] for event in trained.of("reply"))
    assert reports[name] < min(count for other, count in reports.items() if other != name)


@pytest.mark.parametrize("share", ["critic", "model", "nothing"])
def test_what_travels(tmp_path: Path, share: str) -> None:
    """In the end a node has the server's arrays, up to what it has learned since."""
    trained = Trained(tmp_path / "run", f"federation.share={share}", "agent.learning_rate=1e-12")
    merged = trained.arrays["critic"]
    assert any(name.startswith("actor.") for name in merged) == (share == "model")
    grid = trained.grid
    spread = [
        np.ptp([grid.population.get_critic(agent)[name] for agent in range(6)], axis=0).max()
        for name in grid.population.get_critic()
    ]
    assert max(spread) < 1e-6  # no agent has learned anything


def test_independent_learners_keep_their_critics(tmp_path: Path) -> None:
    alone = Trained(tmp_path / "alone", "federation.share=nothing").grid
    together = Trained(tmp_path / "together", "federation.buffer_size=6").grid

    def spread(grid: CosimGrid) -> float:
        name = next(iter(grid.population.get_critic()))
        return float(np.ptp([grid.population.get_critic(a)[name] for a in range(6)], axis=0).max())

    assert spread(alone) > spread(together)


def test_a_message_that_is_too_slow_expires_and_the_run_goes_on(tmp_path: Path) -> None:
    """One node never answers in time; the others make the versions."""
    name = settings().build_scenario().topology.names[0]
    trained = Trained(
        tmp_path / "run",
        f"cosim.slowdown.{name}=1e9",
        "federation.ttl=20",
        "federation.buffer_size=3",
        "federation.versions=12",
    )
    errors = trained.of("error")
    assert {event["name"] for event in errors} == {name}
    assert all("time-to-live" in event["reason"] for event in errors)
    assert len(trained.of("flush")) == 12
    assert all(name not in event["names"] for event in trained.of("flush"))


def test_a_node_that_is_down_is_left_alone_and_one_that_joins_late_takes_part(
    tmp_path: Path,
) -> None:
    names = settings().build_scenario().topology.names
    trained = Trained(
        tmp_path / "run",
        f"dynamics.nodes={{{names[0]}: [{{down: 0, up: 15}}], {names[1]}: [{{down: 6}}]}}",
        "federation.versions=12",
        "federation.buffer_size=3",
        "federation.ttl=30",
    )
    sent = {name: [] for name in names}
    for event in trained.of("dispatch"):
        sent[event["name"]].append(event["t"])
    assert min(sent[names[0]]) >= 15 - 2.1 - 1e-9  # the clock of training starts after the warm-up
    assert max(sent[names[1]]) < 6
    assert len(trained.rows) == 3  # the joint evaluation has all actors


def first_latency(trained: Trained) -> float:
    """Mean latency of each node's first reply, in seconds.

    Later ones hide the way: a node collects while its reply and the next message travel.
    """
    first = {event["name"]: event["latency"] for event in reversed(trained.of("reply"))}
    return float(np.mean(list(first.values())))


SLOW_LINKS = ("physics=fixed", "physics.rate=2e5", "physics.server_rate=2e5")
NO_WORK = "cosim.training_work=1"  # how many decisions are trained on depends on the links as well


def test_messages_travel_the_network_and_are_delayed_by_it(tmp_path: Path) -> None:
    """At 0.2 Mbit/s the 80 kbit of a critic take 4 ticks, not 1, to 5 of the 6 agents."""
    fast = first_latency(Trained(tmp_path / "fast", NO_WORK, "physics=fixed"))
    slow = first_latency(Trained(tmp_path / "slow", NO_WORK, *SLOW_LINKS))
    assert slow - fast >= 0.3 * 5 / 6 - 1e-9


def test_a_compressed_update_is_small_and_comes_early(tmp_path: Path) -> None:
    def run(compression: str) -> tuple[dict[str, set[int]], float]:
        trained = Trained(
            tmp_path / compression,
            NO_WORK,
            *SLOW_LINKS,
            f"federation.compression={compression}",
        )
        assert len(trained.of("flush")) == 4
        assert not trained.of("reject")
        nodes = json.loads((tmp_path / compression / "summary.json").read_text())["nodes"]
        sizes = {kind: {e["bytes"] for e in trained.of(kind)} for kind in ("dispatch", "reply")}
        for node in nodes.values():
            assert node["bytes_from_node"] == node["replies"] * min(sizes["reply"])
        return sizes, first_latency(trained)

    (full, late), (top_k, early), (int8, _) = map(run, ("none", "top-k", "8-bit"))
    assert full["dispatch"] == top_k["dispatch"] == int8["dispatch"] == full["reply"]
    assert max(top_k["reply"]) < min(full["reply"]) / 5
    assert max(int8["reply"]) < min(full["reply"]) / 3
    # 10 kB take 4 ticks, a tenth of their values less than one.
    assert late - early > 0.2

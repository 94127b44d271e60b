"""Whole runs on the in-memory grid: what is written, failures, resumed trainings."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from flwr.app import Message
from safetensors.numpy import load_file

from fauno_flwr import client_app
from fauno_flwr.config.errors import ConfigError
from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.federation.failures import RunFailedError
from fauno_flwr.federation.run import Run
from fauno_flwr.learning.metrics import STEPS
from fauno_flwr.learning.ppo import Population
from fauno_flwr.results.directory import RunDirectory, read_lines
from fauno_flwr.results.state import FAILED, FINISHED, state_of
from fauno_flwr.tasks.edge import EdgeTask
from strategies.grids import GridAround, InMemoryGrid
from tests.fauno_flwr.tiny import AGENTS, TINY


def run(grid: InMemoryGrid, config: RunConfig, path) -> RunDirectory:
    out = RunDirectory(path)
    Run(grid, config, EdgeTask(config, config.build_scenario()), out).execute()
    return out


def test_a_whole_run_writes_everything(grid: InMemoryGrid, config: RunConfig, tmp_path) -> None:
    out = run(grid, config, tmp_path / "run")
    summary = json.loads((out.path / "summary.json").read_text())
    assert summary["schema_version"] == 1
    assert summary["versions"] == 4
    assert [row["policy"] for row in summary["table"]] == [
        "fauno", "untrained", "sed", "threshold", "lq", "random", "local",
    ]  # fmt: skip
    assert len(summary["nodes"]) == AGENTS
    assert all("staleness_mean" in node for node in summary["nodes"].values())
    events = read_lines(out.path / "events.jsonl")
    kinds = [event["event"] for event in events]
    assert kinds.count("flush") == 4
    assert kinds.count("dispatch") == kinds.count("reply")
    # The numbers of the summary are those of the events.
    replies = [event for event in events if event["event"] == "reply"]
    for name, node in summary["nodes"].items():
        mine = [event for event in replies if event["name"] == name]
        assert node["replies"] == len(mine)
        assert node["steps"] == sum(event["metrics"][STEPS] for event in mine)
    assert load_config(str(out.path / "config.yaml")) == config
    assert len(read_lines(out.path / "metrics.jsonl")) == 4
    for name in ("comparison.png", "learning.png"):
        assert (out.path / "figures" / name).stat().st_size > 10_000


def test_a_run_with_another_observation_and_reward(grid: InMemoryGrid, tmp_path) -> None:
    """The critic that travels has the width of what its agents see."""
    config = load_config("ether2", [*TINY, "observation=paper", "reward=sparse"])
    out = run(grid, config, tmp_path / "run")
    table = json.loads((out.path / "summary.json").read_text())["table"]
    assert table[0]["policy"] == "fauno"
    critic = load_file(out.path / "checkpoints" / "critic.safetensors")
    assert critic["weights.0"].shape[0] == 7 + 2 * 3
    assert load_config(str(out.path / "config.yaml")) == config


def test_two_runs_with_one_seed_are_the_same(config: RunConfig, tmp_path) -> None:
    def once(name: str) -> tuple[bytes, list[dict]]:
        grid = InMemoryGrid(client_app.app, AGENTS, duration=lambda i, k: 1.0 + 0.37 * i)
        out = run(grid, config, tmp_path / name)
        events = read_lines(out.path / "events.jsonl")
        for event in events:
            event.pop("since_start", None)
            event.get("metrics", {}).pop("seconds", None)
        return (out.path / "checkpoints" / "critic.safetensors").read_bytes(), events

    assert once("a") == once("b")


def test_without_the_actors_there_is_no_joint_evaluation(
    grid: InMemoryGrid, config: RunConfig, tmp_path
) -> None:
    grid.contexts[1003].node_config["share-actor"] = False
    out = run(grid, config, tmp_path / "run")
    rows = json.loads((out.path / "summary.json").read_text())["table"]
    assert "fauno" not in [row["policy"] for row in rows]


def test_too_few_nodes_are_named(config: RunConfig, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"num-supernodes is 4: must be at least 6"):
        run(InMemoryGrid(client_app.app, 4), config, tmp_path / "run")


def test_a_node_that_never_answers_does_not_end_the_run(config: RunConfig, tmp_path) -> None:
    grid = InMemoryGrid(
        client_app.app, AGENTS, faults=lambda i, k: "drop" if i == 2 and k == 1 else None
    )
    out = run(grid, config, tmp_path / "run")
    summary = json.loads((out.path / "summary.json").read_text())
    assert summary["versions"] == 4
    assert summary["table"][0]["policy"] == "fauno"


def test_a_run_in_which_every_training_fails_is_a_failure(config: RunConfig, tmp_path) -> None:
    short = load_config("ether2", [*TINY, "federation.timeout=30"])
    grid = InMemoryGrid(client_app.app, AGENTS, faults=lambda i, k: "raise" if k else None)
    with pytest.raises(
        RunFailedError, match=r"all 6 nodes .* 3 messages in a row; rpi_0: scripted"
    ):
        run(grid, short, tmp_path / "run")
    events = read_lines(tmp_path / "run" / "events.jsonl")
    assert events[-1]["event"] == "end"
    assert state_of(tmp_path / "run", events).name == FAILED
    assert state_of(tmp_path / "run", events).reason.endswith("rpi_0: scripted fault")


def test_a_run_whose_nodes_all_fail_later_on_keeps_its_critic(config: RunConfig, tmp_path) -> None:
    grid = InMemoryGrid(client_app.app, AGENTS, faults=lambda i, k: "raise" if k > 1 else None)
    with pytest.raises(RunFailedError, match="all 6 nodes"):
        run(grid, config, tmp_path / "run")
    assert 600 < grid.clock.monotonic() < 1200
    untrained = Population(1, config.agent, config.seed).get_critic()
    kept = load_file(tmp_path / "run" / "checkpoints" / "critic.safetensors")
    assert any((kept[name] != untrained[name]).any() for name in untrained)


def test_a_run_without_a_version_in_time_is_a_failure(grid: InMemoryGrid, tmp_path) -> None:
    hasty = load_config("ether2", [*TINY, "federation.timeout=0.001"])
    with pytest.raises(RunFailedError, match=r"no version was made in federation.timeout = 0.001"):
        run(grid, hasty, tmp_path / "run")


def test_a_run_ends_at_once_if_all_nodes_answer_the_handshake_with_an_error(tmp_path) -> None:
    patient = load_config("ether2", [*TINY, "federation.wait_for_nodes=3000"])
    grid = InMemoryGrid(client_app.app, AGENTS, faults=lambda i, k: "raise")
    with pytest.raises(RunFailedError, match=r"all 6 nodes answer with an error; node .* scripted"):
        run(grid, patient, tmp_path / "run")
    assert grid.clock.monotonic() < 10
    events = read_lines(tmp_path / "run" / "events.jsonl")
    assert [each["event"] for each in events] == ["stage", "refused", "end"]


def test_a_run_for_which_too_few_nodes_come_has_failed(tmp_path) -> None:
    incomplete = InMemoryGrid(client_app.app, AGENTS, presence={2: [(1e6, 1e9)]})
    with pytest.raises(ConfigError, match="5 of 6 SuperNodes answered within"):
        run(incomplete, load_config("ether2", TINY), tmp_path / "run")
    events = read_lines(tmp_path / "run" / "events.jsonl")
    assert state_of(tmp_path / "run", events).name == FAILED
    assert "5 of 6 SuperNodes answered" in events[-1]["reason"]


def test_a_node_that_refuses_at_first_is_asked_again(config: RunConfig, tmp_path) -> None:
    patient = load_config("ether2", [*TINY, "federation.wait_for_nodes=20"])
    grid = InMemoryGrid(
        client_app.app, AGENTS, faults=lambda i, k: "raise" if i == 2 and k == 0 else None
    )
    out = run(grid, patient, tmp_path / "run")
    assert len(json.loads((out.path / "summary.json").read_text())["nodes"]) == AGENTS


def test_without_actors_and_heuristics_there_is_no_table(grid: InMemoryGrid, tmp_path) -> None:
    bare = ["federation.collect_actors=false", "evaluation.policies=[]"]
    out = run(grid, load_config("ether2", [*TINY, *bare]), tmp_path / "run")
    assert json.loads((out.path / "summary.json").read_text())["table"] == []


@pytest.mark.parametrize("path", ["relative/run", "/proc/nothing/run"])
def test_an_impossible_folder_is_named(path: str) -> None:
    with pytest.raises(ConfigError, match=r"out is '.*': (must be an absolute|cannot be written)"):
        RunDirectory(path)


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty"):
        RunDirectory(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_node_that_restarts_under_a_new_id_takes_its_place_again(tmp_path) -> None:
    """K is all six: without the node that has come back no further version could be made."""
    whole = load_config("ether2", [*TINY, "federation.versions=8", "federation.buffer_size=6"])
    grid = InMemoryGrid(client_app.app, AGENTS, presence={2: [(0.0, 4.5), (9.0, 1e9)]})
    out = run(grid, whole, tmp_path / "run")
    assert json.loads((out.path / "summary.json").read_text())["versions"] == 8
    flushes = [e for e in read_lines(out.path / "events.jsonl") if e["event"] == "flush"]
    assert len({tuple(sorted(e["names"])) for e in flushes}) == 1
    assert {1002 in e["nodes"] for e in flushes} == {True, False}


def test_a_node_under_a_new_id_does_not_count_twice(tmp_path) -> None:
    """Agent 2 has reported, restarts and reports again before K = 5 others are there."""
    settings = load_config("ether2", [*TINY, "federation.versions=1", "federation.buffer_size=5"])
    durations = {0: 100.0, 3: 9.0}
    grid = InMemoryGrid(
        client_app.app,
        AGENTS,
        duration=lambda i, k: durations.get(i, 1.0) if k else 1.0,  # the first is the handshake
        presence={2: [(0.0, 2.5), (4.0, 1e9)]},
    )
    out = run(grid, settings, tmp_path / "run")
    events = read_lines(out.path / "events.jsonl")
    (flush,) = [event for event in events if event["event"] == "flush"]
    reported = {e["node"] for e in events if e["event"] == "reply" and e["t"] <= flush["t"]}
    assert len(reported) == 6
    assert len(set(flush["names"])) == 5


def test_a_training_goes_on_from_its_checkpoints(tmp_path) -> None:
    state = tmp_path / "state"
    settings = [*TINY, f"federation.checkpoints={state}"]
    run(InMemoryGrid(client_app.app, AGENTS), load_config("ether2", settings), tmp_path / "first")
    longer = load_config("ether2", [*settings, "federation.versions=6"])
    out = run(InMemoryGrid(client_app.app, AGENTS), longer, tmp_path / "second")
    events = read_lines(out.path / "events.jsonl")
    assert [e["version"] for e in events if e["event"] == "resume"] == [4]
    assert [e["version"] for e in events if e["event"] == "flush"] == [1, 2, 3, 4, 5, 6]
    assert [line["version"] for line in read_lines(out.path / "metrics.jsonl")] == list(range(1, 7))


def test_events_before_the_first_checkpoint_are_not_those_of_a_later_run(tmp_path: Path) -> None:
    """A run that resumes would be reported as failed, by the end of the one that made nothing."""
    settings = [*TINY, f"federation.checkpoints={tmp_path / 'state'}"]
    hasty = load_config("ether2", [*settings, "federation.timeout=0.001"])
    with pytest.raises(RunFailedError, match="no version"):
        run(InMemoryGrid(client_app.app, AGENTS), hasty, tmp_path / "first")
    run(InMemoryGrid(client_app.app, AGENTS), load_config("ether2", settings), tmp_path / "second")
    longer = load_config("ether2", [*settings, "federation.versions=6"])
    out = run(InMemoryGrid(client_app.app, AGENTS), longer, tmp_path / "third")
    ends = [e["state"] for e in read_lines(out.path / "events.jsonl") if e["event"] == "end"]
    assert ends == [FINISHED]


class Engine(GridAround):
    """Forgets its nodes and their messages, as Flower does when a run has ended.

    Parameters
    ----------
    state_dir : Path, optional
        Set by the owner of the nodes.
    """

    def __init__(self, state_dir: Path | None = None) -> None:
        super().__init__(InMemoryGrid(client_app.app, AGENTS))
        self.clock = self.grid.clock
        for node, context in enumerate(self.grid.contexts.values()):
            if state_dir is not None:
                context.node_config["state-dir"] = str(state_dir / f"node-{node}")

    def get_node_ids(self) -> Iterable[int]:
        return self.grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self.grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self.grid.pull_messages(message_ids)


def test_agents_that_their_nodes_have_saved_resume(tmp_path: Path) -> None:
    own, state_dir = f"federation.checkpoints={tmp_path / 'server'}", tmp_path / "nodes"
    settings = load_config("ether2", [*TINY, own])
    run(Engine(state_dir), settings, tmp_path / "first")
    resumed = run(Engine(state_dir), settings, tmp_path / "second")
    for name in ("actors", "critic"):
        first, second = (
            (tmp_path / folder / "checkpoints" / f"{name}.safetensors").read_bytes()
            for folder in ("first", "second")
        )
        assert first == second
    longer = load_config("ether2", [*TINY, own, "federation.versions=6"])
    resumed = run(Engine(state_dir), longer, tmp_path / "third")
    replies = [e for e in read_lines(resumed.path / "events.jsonl") if e["event"] == "reply"]
    for name in {reply["name"] for reply in replies}:
        counted = [int(e["metrics"]["messages"]) for e in replies if e["name"] == name]
        assert counted == sorted(set(counted))


def test_a_training_whose_agents_are_lost_is_not_resumed_with_new_ones(tmp_path: Path) -> None:
    own = f"federation.checkpoints={tmp_path / 'server'}"
    settings = load_config("ether2", [*TINY, own])
    run(Engine(), settings, tmp_path / "first")
    with pytest.raises(ConfigError, match=r"6 of 6 agents are lost \(.*state-dir") as error:
        run(Engine(), settings, tmp_path / "second")
    assert "\n" not in str(error.value)
    replaced = [*TINY, own, "federation.versions=5", "federation.replace_lost_agents=true"]
    out = run(Engine(), load_config("ether2", replaced), tmp_path / "third")
    assert (out.path / "summary.json").exists()

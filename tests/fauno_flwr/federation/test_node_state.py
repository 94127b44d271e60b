"""Agents that their nodes keep: a SuperNode that has ended has forgotten ``context.state``."""

import json
import stat
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, MessageType, RecordDict

from fauno_flwr import client_app
from fauno_flwr.config.loading import load_config
from fauno_flwr.config.settings import RunConfig
from fauno_flwr.federation.node_state import STATE_DIR
from fauno_flwr.federation.protocol import ARRAYS, CONFIG, METRICS, QUERY, settings_record
from fauno_flwr.learning.ppo import Population
from strategies.arrays import to_arrays, to_record
from strategies.grids import InMemoryGrid
from tests.fauno_flwr.tiny import AGENTS, TINY, ask


@pytest.fixture
def config() -> RunConfig:
    return load_config("ether2", TINY)


class Node:
    """Node 0 of a federation, with a folder of its own."""

    def __init__(self, config: RunConfig, folder: object = None) -> None:
        self.config, self.grid = config, InMemoryGrid(client_app.app, AGENTS)
        if folder is not None:
            self.grid.contexts[1000].node_config[STATE_DIR] = folder

    def restart(self) -> None:
        self.grid.contexts[1000].state.clear()

    def send(self, kind: str, training: str, version: int) -> Message:
        record = settings_record(self.config.to_yaml(), training)
        record["base-version"] = version
        critic = Population(1, self.config.agent, self.config.seed).get_critic()
        content = RecordDict({ARRAYS: to_record(critic), CONFIG: record})
        return ask(self.grid, Message(content, 1000, kind, ttl=60))

    def train(self, training: str = "a", version: int = 0) -> tuple[int, dict[str, np.ndarray]]:
        """Train; return the number of messages that the node counts, and its critic."""
        reply = self.send(MessageType.TRAIN, training, version)
        metrics = reply.content.metric_records[METRICS]
        return int(metrics["messages"]), to_arrays(reply.content.array_records[ARRAYS])


def equal(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(array, two[name]) for name, array in one.items())


@pytest.mark.parametrize("compression", ["none", "top-k", "8-bit"])
def test_a_restarted_node_does_what_it_would_have_done(tmp_path: Path, compression: str) -> None:
    """Parameters, optimiser, counters and residual: the same bytes as without the restart."""
    config = load_config("ether2", [*TINY, f"federation.compression={compression}"])
    steady, restarted = Node(config), Node(config, str(tmp_path))
    for version in (0, 0, 1):
        expected = steady.train(version=version)
        found = restarted.train(version=version)
        assert found[0] == expected[0]
        assert equal(found[1], expected[1])
        restarted.restart()


def test_the_file_is_its_owner_s_and_the_only_one(config: RunConfig, tmp_path: Path) -> None:
    folder = tmp_path / "agent"
    node = Node(config, str(folder))
    sizes = set()
    for _ in range(3):
        node.train()
        (file,) = folder.iterdir()
        sizes.add(file.stat().st_size)
    assert len(sizes) == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_another_training_begins_anew(config: RunConfig, tmp_path: Path) -> None:
    node = Node(config, str(tmp_path))
    node.train("a")
    first = node.train("a")
    node.restart()
    assert node.train("b")[0] == 1
    node.restart()
    # The file is now of training b.
    assert node.train("a")[0] == 1
    assert first[0] == 2


@pytest.mark.parametrize("place", [0, 40, -1])
@pytest.mark.parametrize("kind", ["cut", "flipped", "empty"])
def test_a_damaged_file_is_noticed(
    config: RunConfig, tmp_path: Path, place: int, kind: str
) -> None:
    node = Node(config, str(tmp_path))
    fresh = node.train()
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes({"cut": bytes(data[:place]), "flipped": bytes(data), "empty": b""}[kind])
    node.restart()
    again = node.train()
    assert again[0] == 1
    assert equal(again[1], fresh[1])


def test_counters_are_under_the_checksum(config: RunConfig, tmp_path: Path) -> None:
    node = Node(config, str(tmp_path))
    node.train()
    (file,) = tmp_path.iterdir()
    header, _, rest = file.read_bytes().partition(b"\n")
    changed = json.loads(header) | {"messages": 77}
    file.write_bytes(json.dumps(changed).encode() + b"\n" + rest)
    node.restart()
    assert node.train()[0] == 1


def test_what_a_killed_process_left_is_no_obstacle(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "agent-0.partial").write_text("half")
    node = Node(config, str(tmp_path))
    node.train()
    node.restart()
    assert node.train()[0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["agent-0.state"]


@pytest.mark.parametrize("folder", ["relative", 7, "/proc/nothing/x"])
def test_an_impossible_folder_is_named_before_training(config: RunConfig, folder: object) -> None:
    reply = Node(config, folder).send(QUERY, "a", 0)
    assert reply.has_error()
    assert f"state-dir in the node config is {folder!r}" in reply.error.reason


def test_a_file_that_cannot_be_written_costs_no_message(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "agent-0.state").mkdir()
    node = Node(config, str(tmp_path))
    assert [node.train()[0], node.train()[0]] == [1, 2]

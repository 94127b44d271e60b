"""A server that dies resumes from its files as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from strategies import Adam, BufferedAsync, CheckpointError, Checkpoints, Polynomial
from strategies.arrays import to_record
from strategies.checkpoint import read_checkpoint
from strategies.grids import InMemoryGrid
from strategies.latency import Latency
from tests.strategies.conftest import TrainOnly

VERSIONS = 30


def walking_app() -> ClientApp:
    """Return an app with a state: each reply depends on all earlier messages of its node."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        i = int(context.node_config["partition-id"])
        seen = context.state.metric_records.get("seen", MetricRecord({"n": 0, "sum": 0.0}))
        theta = message.content["arrays"]["w"].numpy()
        n, total = int(seen["n"]) + 1, float(seen["sum"]) + float(theta.sum())
        context.state["seen"] = MetricRecord({"n": n, "sum": total})
        moved = theta + np.random.default_rng([i, n]).normal(size=3) + 0.01 * np.sin(total)
        metrics = MetricRecord({"num-examples": 1 + i, "n": n})
        content = RecordDict({"arrays": ArrayRecord({"w": Array(moved)}), "metrics": metrics})
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        loss = float(message.content["arrays"]["w"].numpy().sum())
        metrics = MetricRecord({"num-examples": 1, "loss": loss})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def train(
    folder: Path | None,
    *,
    on_version: Callable[..., None] | None = None,
    on_event: Callable[[dict], None] | None = None,
    resume: bool = True,
    seed: int = 0,
) -> Result:
    """Train in a way that depends on everything that a checkpoint keeps."""
    grid = InMemoryGrid(
        walking_app(),
        7,
        duration=Latency(speeds=(1, 2, 3), jitter=0.3, seed=seed),
        faults={"raise": 0.05, "drop": 0.05, "duplicate": 0.1},
        seed=seed,
        presence={6: [(0, 5), (9, 1e9)]},
    )
    strategy = TrainOnly(
        3,
        staleness=Polynomial(0.5),
        server_optimizer=Adam(),
        concurrency=5,
        ttl=6.0,
        fraction_evaluate=0.4,
        checkpoint=None if folder is None else Checkpoints(folder, resume=resume),
        on_version=on_version,
        on_event=on_event,
        seed=seed,
    )
    return strategy.start(
        grid,
        to_record({"w": np.zeros(3)}),
        num_rounds=VERSIONS,
        evaluate_fn=lambda v, arrays: MetricRecord({"sum": float(arrays["w"].numpy().sum())}),
    )


def same(one: Result, other: Result) -> bool:
    """Return whether two results are the same to the last bit."""
    names = ("train_metrics_clientapp", "evaluate_metrics_clientapp", "evaluate_metrics_serverapp")
    return one.arrays["w"].data == other.arrays["w"].data and all(
        getattr(one, name) == getattr(other, name) for name in names
    )


class CutError(Exception):
    """The server dies here."""


@settings(deadline=None, max_examples=8)
@given(st.integers(1, VERSIONS - 1), st.integers(0, 50))
def test_whenever_it_dies_the_end_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, cut: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("run")

    def on_version(version: int, *_: Any) -> None:
        if version == cut:
            raise CutError

    with pytest.raises(CutError):
        train(folder, on_version=on_version, seed=seed)
    events: list[dict] = []
    resumed = train(folder, on_event=events.append, seed=seed)
    assert [e["version"] for e in events if e["event"] == "resume"] == (
        [cut - 1] if cut > 1 else []
    )
    assert same(resumed, train(None, seed=seed))


SCRIPT = """
import sys, time
from pathlib import Path
from tests.strategies.test_checkpoint import train
result = train(Path(sys.argv[1]), on_version=lambda v, *_: (print(v, flush=True), time.sleep(0.02)))
Path(sys.argv[2]).write_bytes(result.arrays["w"].data)
"""


def test_kill_9_in_the_middle(tmp_path: Path) -> None:
    """Processes are killed three times; the last one ends with the same bytes."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "run"), str(tmp_path / "final")]
    kills = 0
    for after in (5, 6, 4):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=Path.cwd()
        )
        assert process.stdout is not None
        for _ in range(after):
            process.stdout.readline()
        time.sleep(0.005 * after)  # at any point: in a flush, in a write, between
        os.kill(process.pid, signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.stdout.close()
    assert kills == 3
    assert not (tmp_path / "final").exists()
    subprocess.run(command, check=True, capture_output=True, cwd=Path.cwd())
    assert (tmp_path / "final").read_bytes() == train(None).arrays["w"].data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the checkpoints of a training that was interrupted."""

    def on_version(version: int, *_: Any) -> None:
        if version == 12:
            raise CutError

    with pytest.raises(CutError):
        train(tmp_path, on_version=on_version)
    assert [path.name for path in Checkpoints(tmp_path).files()] == [
        f"version-{v:09d}.safetensors" for v in (9, 10, 11)
    ]
    return tmp_path


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "flipped":
        path.write_bytes(data[:-3] + bytes([data[-3] ^ 8]) + data[-2:])
    elif how == "foreign":
        save_file({"w": np.zeros(3)}, path)
    elif how == "other schema version":
        path.write_bytes(data.replace(b'"schema_version":"6"', b'"schema_version":"9"'))
    elif how == "other model":
        state, tensors = read_checkpoint(path, {"w": "float64(3,)"})
        Checkpoints(path.parent).save(state["version"], state, tensors, {"w": "float64(4,)"})
    elif how == "another's schema":
        path.write_bytes(data.replace(b"float64(3,)", b"float64(4,)"))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "version-000000011.safetensors cannot be read"),
        ("empty", "version-000000011.safetensors cannot be read"),
        ("flipped", "version-000000011.safetensors is damaged: its checksum is wrong"),
        ("foreign", "version-000000011.safetensors was not written by"),
        ("other schema version", "has schema version 9: must be 6"),
        ("other model", "is of another model"),
        ("another's schema", "version-000000011.safetensors is damaged: its checksum is wrong"),
    ],
)
def test_a_bad_file_is_named_and_the_one_before_used(
    folder: Path, how: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage(Checkpoints(folder).files()[-1], how)
    events: list[dict] = []
    assert same(train(folder, on_event=events.append), train(None))
    assert [e["version"] for e in events if e["event"] == "resume"] == [10]
    assert any(message in record.getMessage() for record in caplog.records)


def test_without_a_usable_file_training_does_not_start_afresh(folder: Path) -> None:
    for path in Checkpoints(folder).files():
        damage(path, "truncated")
    with pytest.raises(CheckpointError, match="none of the 3 checkpoints can be used"):
        train(folder)


def test_another_run_is_not_overwritten(folder: Path) -> None:
    with pytest.raises(ValueError, match="holds checkpoints of another run"):
        train(folder, resume=False)


def test_half_a_file_never_has_the_name_of_a_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutation: writing to the final name directly would leave a truncated checkpoint.

    The training goes on without.
    """

    def full_disk(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    assert same(train(folder), train(None))
    assert [path.name for path in Checkpoints(folder).files()][
        -1
    ] == "version-000000011.safetensors"
    assert not list(folder.glob("*.partial"))


def test_messages_that_an_engine_forgets_are_sent_again(tmp_path: Path) -> None:
    """Buffer, optimiser and versions are restored; messages in flight are lost with the engine."""

    class Forgetful(InMemoryGrid):
        save_state = None

    def run(resume: bool, versions: int) -> tuple[BufferedAsync, Result, InMemoryGrid]:
        strategy = TrainOnly(2, checkpoint=Checkpoints(tmp_path, resume=resume))
        grid = Forgetful(walking_app(), 4)
        start = to_record({"w": np.zeros(3)})
        return strategy, strategy.start(grid, start, num_rounds=versions), grid

    _, first, _ = run(False, 5)
    strategy, second, grid = run(True, 9)
    assert strategy.version == 9
    assert list(second.train_metrics_clientapp) == list(range(1, 10))
    assert second.train_metrics_clientapp[5] == first.train_metrics_clientapp[5]
    assert all(node.sent > 0 for node in grid.nodes.values())


def test_after_a_restart_the_node_that_has_waited_longest_is_first(tmp_path: Path) -> None:
    class Forgetful(InMemoryGrid):
        save_state = None

    def run(versions: int, **options: Any) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        checkpoint = Checkpoints(tmp_path, **options)
        strategy = TrainOnly(2, checkpoint=checkpoint, on_event=events.append)
        grid = Forgetful(walking_app(), 6, duration=lambda i, _: 7.1 - i)
        strategy.start(grid, to_record({"w": np.zeros(3)}), num_rounds=versions)
        return events

    run(5, resume=False)
    state, _ = read_checkpoint(Checkpoints(tmp_path).files()[-1], {"w": "float64(3,)"})
    waiting = [flight["node_id"] for flight in state["flights"]]
    assert waiting != sorted(waiting)
    sent = [event["node"] for event in run(6, resume=True) if event["event"] == "dispatch"]
    assert sent[: len(waiting)] == waiting
    assert sorted(sent[:6]) == list(range(1000, 1006))


def test_every_third_version_is_saved_though_they_are_made_in_pairs(tmp_path: Path) -> None:
    """Four equal nodes, K = 2: versions 2, 4, ... are those that exist after a poll."""
    strategy = TrainOnly(2, checkpoint=Checkpoints(tmp_path, every=3, keep=99))
    strategy.start(InMemoryGrid(walking_app(), 4), to_record({"w": np.zeros(3)}), num_rounds=12)
    saved = [int(path.stem.split("-")[1]) for path in Checkpoints(tmp_path).files()]
    assert saved == [4, 6, 10, 12]


def test_an_evaluation_that_was_lost_is_repeated(tmp_path: Path) -> None:
    class Forgetful(InMemoryGrid):
        save_state = None

    def on_version(version: int, *_: Any) -> None:
        if version == 6:
            raise CutError

    def run(resume: bool, **settings: Any) -> Result:
        checkpoint = Checkpoints(tmp_path, resume=resume)
        strategy = TrainOnly(2, fraction_evaluate=1.0, checkpoint=checkpoint, **settings)
        start = to_record({"w": np.zeros(3)})
        return strategy.start(Forgetful(walking_app(), 4), start, num_rounds=4 if resume else 6)

    with pytest.raises(CutError):
        run(False, on_version=on_version)
    state, _ = read_checkpoint(Checkpoints(tmp_path).files()[-1], {"w": "float64(3,)"})
    assert (state["version"], state["evaluation"] is None) == (4, False)
    assert 4 in run(True).evaluate_metrics_clientapp


def test_files_are_safetensors_with_plain_json(folder: Path) -> None:
    """Nothing to unpickle: the files can be read without this package."""
    data = Checkpoints(folder).files()[-1].read_bytes()
    length = int.from_bytes(data[:8], "little")
    start, end = json.loads(data[8 : 8 + length])["state"]["data_offsets"]
    assert json.loads(data[8 + length :][start:end])["version"] == 11


class Counter:
    """A part of one's own."""

    def __init__(self) -> None:
        self.versions = 0

    def state(self) -> int:
        """Return the count."""
        return self.versions

    def load(self, state: int) -> None:
        """Restore the count."""
        self.versions = state


def with_parts(folder: Path, counter: Counter, versions: int, **about: Any) -> Result:
    def count(*_: object) -> None:
        counter.versions += 1

    strategy = TrainOnly(
        2,
        on_version=count,
        checkpoint=Checkpoints(folder, resume=True, about=about, parts={"counter": counter}),
    )
    grid = InMemoryGrid(walking_app(), 3)
    return strategy.start(grid, to_record({"w": np.zeros(3)}), num_rounds=versions)


def test_parts_of_ones_own_are_restored(tmp_path: Path) -> None:
    with_parts(tmp_path, Counter(), 4)
    resumed = Counter()
    with_parts(tmp_path, resumed, 7)
    assert resumed.versions == 7


def test_a_run_with_other_settings_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    with_parts(tmp_path, Counter(), 2, data="a", sizes=(1, 2), seed=1)
    with_parts(tmp_path, Counter(), 3, data="a", sizes=[1, 2], seed=1)
    with pytest.raises(ValueError, match=r"data is 'b' here, 'a' there; seed is None"):
        with_parts(tmp_path, Counter(), 4, data="b", sizes=(1, 2))


def test_checkpoints_without_settings_are_not_taken_for_ones_own(tmp_path: Path) -> None:
    with_parts(tmp_path, Counter(), 2)
    with pytest.raises(ValueError, match="other settings: data is 'a' here, None there"):
        with_parts(tmp_path, Counter(), 4, data="a")

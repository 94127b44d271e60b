"""What a training has spent survives the death of its server: epsilon, the budget, the noise."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord

from strategies import (
    CentralPrivacy,
    CheckpointError,
    Checkpoints,
)
from strategies.result import MAX_EPSILON
from tests.strategies.conftest import make_linear_app
from tests.strategies.private_apps import (
    composed,
    train,
)


class CutError(Exception):
    """The server dies here."""


def walk(folder: Path, versions: int, *, cut: int = 0, kill: bool = False, **others: Any) -> Any:
    """Train with checkpoints, and die as soon as version `cut` is made, before its checkpoint."""

    def on_version(version: int, *_: Any) -> None:
        if version == cut and kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if version == cut:
            raise CutError

    others = {"privacy": CentralPrivacy(1.0, 1.0, seed=1), **others}
    return train(
        make_linear_app(),
        size=2,
        versions=versions,
        on_version=on_version,
        checkpoint=Checkpoints(folder, every=others.pop("every", 1), resume=True),
        **others,
    )


def test_a_resumed_training_goes_on_from_its_epsilon(tmp_path: Path) -> None:
    first = walk(tmp_path, 4)
    assert first.privacy.epsilon == pytest.approx(composed({1.0: 4}))
    events: list[dict] = []
    second = walk(tmp_path, 7, on_event=events.append)
    assert second.privacy.epsilon == pytest.approx(composed({1.0: 7}))
    assert [e["version"] for e in events if e["event"] == "resume"] == [4]


@pytest.mark.parametrize("every", [1, 3, 100])
def test_versions_that_were_made_after_the_last_checkpoint_count(
    tmp_path: Path, every: int
) -> None:
    """Mutation: with the checkpoints alone, what they do not hold would be free."""
    epsilons: list[float] = []

    def on_event(event: dict) -> None:
        if event["event"] == "flush":
            epsilons.append(event["epsilon"])

    with pytest.raises(CutError):
        walk(tmp_path, 9, cut=5, every=every, on_event=on_event)
    assert epsilons == pytest.approx([composed({1.0: n}) for n in range(1, 6)])
    epsilons.clear()
    result = walk(tmp_path, 9, every=every, on_event=on_event)
    again = 9 - 4 // every * every
    assert epsilons == pytest.approx([composed({1.0: 5 + n}) for n in range(1, again + 1)])
    assert result.privacy.epsilon == epsilons[-1]


def test_a_version_that_is_made_again_has_other_noise(tmp_path: Path) -> None:
    """With the same noise, the difference of the two would have none."""
    made: list[np.ndarray] = []

    def on_version(version: int, arrays: ArrayRecord, *_: Any) -> None:
        if version == 3:
            made.append(arrays["w"].numpy())
            raise CutError

    for _ in range(3):
        with pytest.raises(CutError):
            train(
                make_linear_app(),
                CentralPrivacy(1.0, 1.0, seed=1),
                size=2,
                on_version=on_version,
                checkpoint=Checkpoints(tmp_path, resume=True),
            )
    assert len(np.unique(np.array(made), axis=0)) == 3


SCRIPT = """
import sys
from pathlib import Path
from tests.strategies.test_privacy_checkpoints import walk
walk(Path(sys.argv[1]), 9, cut=int(sys.argv[2]), kill=True, every=2)
"""


def test_after_kill_9_the_budget_holds(tmp_path: Path) -> None:
    """Two servers are killed; the third stops where one that had lived would have stopped."""
    for cut in (3, 4):
        command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(cut)]
        killed = subprocess.run(command, cwd=Path.cwd(), capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    # 3 versions, then 2 again (from the checkpoint of version 2): 5 of 8 are spent.
    privacy = CentralPrivacy(1.0, 1.0, max_epsilon=composed({1.0: 8}) + 1e-6)
    result = walk(tmp_path, 20, privacy=privacy)
    assert result.ended_by == MAX_EPSILON
    assert result.privacy.epsilon == pytest.approx(composed({1.0: 8}))
    assert result.versions == 5


def test_without_room_to_write_what_is_spent_nothing_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def full_disk(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(CheckpointError, match="cannot be written: no space left on device"):
        train(
            make_linear_app(),
            CentralPrivacy(1.0, 1.0),
            size=2,
            checkpoint=Checkpoints(tmp_path),
            on_version=lambda version, *_: made.append(version),
        )
    assert made == []


def test_versions_without_privacy_have_no_epsilon(tmp_path: Path) -> None:
    walk(tmp_path, 3, privacy=None)
    with pytest.raises(CheckpointError, match="made without privacy"):
        walk(tmp_path, 5)


def test_what_another_run_has_spent_is_not_forgotten(tmp_path: Path) -> None:
    with pytest.raises(CutError):
        walk(tmp_path, 3, cut=1)
    assert Checkpoints(tmp_path).files() == []
    with pytest.raises(ValueError, match=r"holds spent.json of another run"):
        train(make_linear_app(), CentralPrivacy(1.0, 1.0), size=2, checkpoint=Checkpoints(tmp_path))
    (tmp_path / "spent.json").write_text("[1")
    with pytest.raises(CheckpointError, match=r"spent.json is damaged"):
        walk(tmp_path, 3)

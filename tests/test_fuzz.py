"""The fuzzers run, find what they are to find, and keep it."""

from pathlib import Path

import numpy as np
import pytest

from strategies import checkpoint
from tests import fuzz
from tests.fuzz import __main__ as command


@pytest.mark.parametrize("name", fuzz.MODULES)
def test_what_was_found_before_and_a_few_more_inputs(name: str, tmp_path: Path) -> None:
    found = len(list((command.CORPUS / name).glob("*.bin")))
    given = [name, "--inputs", str(found + 150), "--seed", "1", "--out", str(tmp_path)]
    assert command.main(given) == 0
    assert not list(tmp_path.iterdir())


def test_a_defect_is_counted_and_its_input_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkpoint, "checksum", lambda schema, tensors: "")
    given = ["checkpoints", "--inputs", "300", "--seed", "1", "--out", str(tmp_path)]
    assert command.main(given) == 1
    (kept, *_) = (tmp_path / "checkpoints").glob("*.bin")
    assert f"input kept as {tmp_path / 'checkpoints'}" in capsys.readouterr().out
    target = fuzz.load("checkpoints", tmp_path)
    with pytest.raises(AssertionError):
        target.handle(kept.read_bytes())


def test_inputs_are_mutated_in_every_way() -> None:
    rng = np.random.default_rng(0)
    lengths = {len(fuzz.mutate(rng, bytes(range(100)))) for _ in range(300)}
    assert min(lengths) < 90
    assert max(lengths) > 110
    assert fuzz.mutate(rng, b"") is not None


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("handshake", {"inputs": 100, "refused": 50, "stood_in": 1}),
        ("settings", {"inputs": 4, "refused": 4}),
        ("service", {"inputs": 100, "accepted": 1, "refused": 1}),
    ],
)
def test_a_scenario_is_played(name: str, least: dict[str, int], monkeypatch) -> None:
    played = []
    monkeypatch.setattr(command, "play", lambda *given: played.append(fuzz.play(*given)) or {})
    assert command.main([name, "--seconds", "4", "--seed", "1"]) == 0
    _warm_up, counts = played
    assert all(counts[kind] >= number for kind, number in least.items())
    assert not any(counts.get(kind) for kind in fuzz.DEFECTS)


@pytest.mark.parametrize("counts", [{"inputs": 3, "crashes": 1}, {"inputs": 3, "poisoned": 1}])
def test_a_defect_of_a_scenario_is_counted(
    counts: dict[str, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "play", lambda name, seed, seconds: dict(counts))
    assert command.main(["handshake", "--seconds", "1"]) == 1
    assert "handshake: 3 inputs, 1 defects" in capsys.readouterr().out


def test_a_scenario_must_not_grow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept: list[np.ndarray] = []

    def play(name: str, seed: int, seconds: float) -> dict[str, int]:
        if seconds > 5:  # not in the warm-up
            kept.append(np.ones(16_000_000))
        return {"inputs": 3}

    monkeypatch.setattr(command, "play", play)
    assert command.main(["handshake", "--seconds", "10"]) == 1
    assert "memory has grown by more than 64 MB" in capsys.readouterr().out

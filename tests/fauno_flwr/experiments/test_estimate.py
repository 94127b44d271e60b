"""How long an experiment will take: replays of stored ones, and what the estimate depends on."""

import heapq
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from fauno_flwr.experiments import EXPERIMENTS
from fauno_flwr.experiments.design import Cell, cells
from fauno_flwr.experiments.estimate import TimeEstimate
from fauno_flwr.experiments.runner import _clock
from tests.paths import ROOT

CORES = 2


def read_seconds(archive: Path) -> dict[str, float]:
    """Return CPU seconds by cell: the wall seconds on an idle machine."""
    with tarfile.open(archive) as tar:
        files = [tar.extractfile(member) for member in tar if member.name.endswith(".json")]
        found = [json.load(file) for file in files if file is not None]
    return {result["key"]: result["seconds"]["cpu"] for result in found}


def replay(made: list[Cell], seconds: dict[str, float]) -> list[tuple[float, Cell]]:
    """Return when each cell is done on two cores, in the order of time."""
    free, done = [0.0] * CORES, []
    for cell in made:
        end = heapq.heappop(free) + seconds[cell.key]
        heapq.heappush(free, end)
        done.append((end, cell))
    return sorted(done, key=lambda each: each[0])


def test_the_estimate_of_a_stored_experiment_is_near_from_the_start() -> None:
    seconds = read_seconds(ROOT / "docs" / "results" / "baseline" / "cells.tar.gz")
    made = cells(EXPERIMENTS["baseline"], False, 5, ())
    assert {cell.key for cell in made} == set(seconds)
    done = replay(made, seconds)
    estimate, missing = TimeEstimate(made), {cell.key: cell for cell in made}
    end = done[-1][0]
    low, high = estimate.left(missing.values(), CORES)
    assert low / 1.5 < end < 1.5 * high
    middles = []
    for number, (now, cell) in enumerate(done):
        estimate.add(cell, seconds[cell.key])
        del missing[cell.key]
        if end - now > end / 4 and number % 20 == 0:
            low, high = estimate.left(missing.values(), CORES)
            assert low / 1.5 < end - now < 1.5 * high
            middles.append(now + np.sqrt(low * high))
    # The expected end does not jump once trainings are measured: from 12 minutes to 81, it did.
    half = middles[len(middles) // 3 :]
    assert max(half) / min(half) < 1.5


def kinds(seeds: int) -> list[Cell]:
    made = cells(EXPERIMENTS["baseline"], True, seeds, ("fauno", "sync"))
    return [cell for cell in made if cell.training and cell.key.startswith("ether2")]


def middle(estimate: TimeEstimate, cell: Cell) -> float:
    low, high = estimate.left([cell], 1)
    return float(np.sqrt(low * high))


def test_another_seed_of_a_measured_cell_takes_as_long() -> None:
    made = kinds(5)
    estimate = TimeEstimate(made)
    same = [cell for cell in made if cell.key.startswith("ether2-rate1.fauno.")]
    for cell in same[:4]:
        estimate.add(cell, 500.0)
    assert middle(estimate, same[4]) == pytest.approx(500, rel=0.15)


def test_a_kind_that_is_not_measured_follows_from_the_ratios() -> None:
    """At another rate the two methods are as different as at this one."""
    made = {cell.key: cell for cell in kinds(3)}
    estimate = TimeEstimate(made.values())
    for seed in (1, 2, 3):
        estimate.add(made[f"ether2-rate1.fauno.{seed}"], 20.0)
        estimate.add(made[f"ether2-rate1.sync.{seed}"], 10.0)
        estimate.add(made[f"ether2-rate4.fauno.{seed}"], 60.0)
    unknown = middle(estimate, made["ether2-rate4.sync.1"])
    assert unknown == pytest.approx(30, rel=0.25)


def test_more_cores_take_less_time_but_no_less_than_the_longest_cell() -> None:
    made = kinds(3)
    estimate = TimeEstimate(made)
    one, two, many = (estimate.left(made, cores) for cores in (1, 2, 1000))
    assert two == pytest.approx([bound / 2 for bound in one])
    longest = max(estimate.left([cell], 1)[0] for cell in made)
    assert longest <= many[0] < two[0]
    assert estimate.left([], 2) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "0:03"), (59.6, "1:00"), (64, "1:00"), (66, "1:10"), (719, "12:00"), (4871, "1 h 20 min")],
)
def test_durations_are_not_more_precise_than_the_estimate(seconds: float, text: str) -> None:
    assert _clock(seconds) == text

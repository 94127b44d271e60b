"""Run the fuzzers: ``python -m tests.fuzz --seconds 600 --out build/fuzz``."""

import argparse
import hashlib
import logging
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from tests.fuzz import DEFECTS, MODULES, SCENARIOS, Target, load, mutate, play

NAMES = [*MODULES, *SCENARIOS]
CORPUS = Path(__file__).parent / "corpus"
WARM_UP, LOOK = 2000, 500  # inputs before memory is measured, and between two measurements
WARM_UP_SHARE = 0.1  # of the time of a scenario
MOST_GROWTH = 64.0  # megabytes
LONGEST = 1000  # characters of a traceback
MOST_CRASHES = 5  # after which a target is given up


def inputs(target: Target, folder: Path, rng: np.random.Generator) -> Iterator[bytes]:
    """Yield what was found before, then new inputs and mutated ones without end."""
    known = [path.read_bytes() for path in sorted(folder.glob("*.bin"))]
    yield from known
    while True:
        data = known[rng.integers(len(known))] if known and rng.random() < 0.1 else target.make(rng)
        yield mutate(rng, data) if rng.random() < 0.3 else data


def fuzz(name: str, seconds: float, most: int, seed: int, out: Path) -> bool:
    """Fuzz one target; print its counts, keep what makes it fail, and return whether it passed."""
    with tempfile.TemporaryDirectory() as folder:
        return fuzz_target(name, load(name, Path(folder)), seconds, most, seed, out)


def fuzz_target(name: str, target: Target, seconds: float, most: int, seed: int, out: Path) -> bool:
    """Fuzz a target; as :func:`fuzz`."""
    rng = np.random.default_rng(seed)
    process, outcomes, crashes = psutil.Process(), Counter[str](), 0
    end, first, highest, done = time.monotonic() + seconds, 0.0, 0.0, 0
    for data in inputs(target, CORPUS / name, rng):
        if done == most or crashes == MOST_CRASHES or time.monotonic() > end:
            break
        try:
            outcomes[target.handle(data)] += 1
        except Exception:
            crashes += 1
            kept = out / name / f"{hashlib.sha256(data).hexdigest()[:16]}.bin"
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(data)
            shown = traceback.format_exc(limit=-3, chain=False)
            print(f"{name}: defect, input kept as {kept}\n{shown[-LONGEST:]}")
        done += 1
        if done >= WARM_UP and done % LOOK == 0:
            now = process.memory_info().rss / 1e6
            first, highest = first or now, max(highest, now)
    growth = highest - first
    print(f"{name}: {done} inputs, {crashes} defects, memory {growth:+.0f} MB")
    for outcome, count in outcomes.most_common():
        print(f"  {count:>8} {outcome}")
    if growth > MOST_GROWTH:
        print(f"{name}: memory has grown by more than {MOST_GROWTH:g} MB")
    return crashes == 0 and growth <= MOST_GROWTH


def fuzz_scenario(name: str, seconds: float, seed: int) -> bool:
    """Play a scenario; print its counts, and return whether it passed."""
    process, counts, crashes, first = psutil.Process(), dict[str, int](), 0, 0.0
    try:
        play(name, seed, WARM_UP_SHARE * seconds)  # loads all that it needs
        first = process.memory_info().rss / 1e6
        counts = play(name, seed, (1 - WARM_UP_SHARE) * seconds)
    except Exception:
        crashes = 1
        print(f"{name}: defect with seed {seed}\n{traceback.format_exc(chain=False)[-LONGEST:]}")
    crashes += sum(counts.pop(kind, 0) for kind in DEFECTS)
    growth = process.memory_info().rss / 1e6 - first
    print(f"{name}: {counts.pop('inputs', 0)} inputs, {crashes} defects, memory {growth:+.0f} MB")
    for outcome, count in counts.items():
        print(f"  {count:>8} {outcome}")
    if growth > MOST_GROWTH:
        print(f"{name}: memory has grown by more than {MOST_GROWTH:g} MB")
    return crashes == 0 and growth <= MOST_GROWTH


def main(arguments: list[str]) -> int:
    """Fuzz all targets, or those that are named; return the exit code."""
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(NAMES))
    parser.add_argument("--seconds", type=float, default=600, help="for all targets together")
    parser.add_argument(
        "--inputs", type=int, default=-1, help="most inputs of each target that has single inputs"
    )
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="for what is found")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.targets if name not in NAMES]
    if unknown:
        parser.error(f"{', '.join(unknown)}: must be of {', '.join(NAMES)}")
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    names = given.targets or NAMES
    print(f"seed {given.seed}")
    seconds = given.seconds / len(names)
    passed = [
        fuzz(name, seconds, given.inputs, given.seed, given.out)
        if name in MODULES
        else fuzz_scenario(name, seconds, given.seed)
        for name in names
    ]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

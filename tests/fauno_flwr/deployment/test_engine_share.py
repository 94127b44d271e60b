"""What the engine costs per message of the default size; six minutes each, alone on a machine."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fauno_flwr.results.directory import read_lines
from tests.fauno_flwr.cli.test_main import FAUNO

pytestmark = pytest.mark.slow
LEARNED = 4  # messages of a node after which their length has been learned


@pytest.mark.parametrize(
    ("nodes", "options", "most"),
    [
        pytest.param(2, [], 0.1, id="a-core-each"),
        pytest.param(3, [], 0.1, id="three"),
        pytest.param(2, ["--no-warm"], 0.15, id="as-flower-does-it"),
    ],
)
def test_the_engine_costs_a_small_part_of_a_message(
    tmp_path: Path, nodes: int, options: list[str], most: float
) -> None:
    """From a node's message to its next one, all that is not its ClientApp at work."""
    out = tmp_path / "run"
    settings = [f"federation.versions={8 * nodes}", "federation.buffer_size=1"]
    command = [FAUNO, "deploy", "local", "--nodes", str(nodes), "--out", str(out), *options]
    # Where a variable says so, as in some containers, every message would compile the app's code.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command += [*settings, "evaluation.policies=[]"]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    sent: dict[str, float] = {}
    worked: dict[str, list[float]] = {}
    cycles: dict[str, list[tuple[float, float]]] = {}
    for event in read_lines(out / "events.jsonl"):
        if event["event"] == "dispatch":
            name = event["name"]
            if name in sent:
                cycles.setdefault(name, []).append((event["t"] - sent[name], worked[name][-1]))
            sent[name] = event["t"]
        elif event["event"] == "reply":
            worked.setdefault(event["name"], []).append(event["metrics"]["seconds"])
    late = np.array([cycle for each in cycles.values() for cycle in each[LEARNED:]])
    assert len(late) >= 6
    whole, work = late.T
    share = float((whole - work).sum() / whole.sum())
    print(json.dumps({name: np.round(each, 1).tolist() for name, each in cycles.items()}))
    print(f"engine: {np.mean(whole - work):.1f} s of {np.mean(whole):.1f} s, {100 * share:.1f} %")
    assert share < most

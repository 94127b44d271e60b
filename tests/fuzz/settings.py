"""Settings of a hostile server, against a node: no crash, nothing read, nothing imported.

``python -m tests.fuzz.settings SEED SECONDS`` runs it alone.
"""

import logging
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from flwr.app import ConfigRecord, Context, Message, RecordDict

from fauno_flwr import client_app
from fauno_flwr.config.loading import load_config
from fauno_flwr.federation.protocol import CONFIG, QUERY, settings_record
from strategies.flower_internals import set_identity, set_metadata

SECRET = "5ecre7-0f-the-node"
BASES = (["topology=full20", "topology.nodes=2"], ["world=gym", "world.env_id=CartPole-v1"])
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
SLOWEST = 20.0  # seconds of one message, on a busy machine
# What a node computes at most: the server may ask for much work, which is not the matter here.
HEAVY = ("hidden", "nodes", "worlds", "ticks", "clusters", "minibatches", "keep", "capacity")


def fuzz(seed: int, budget_seconds: float) -> dict[str, int]:
    """Query a node with mutated settings until the time is over.

    Returns
    -------
    dict of str to int
        ``inputs``, ``refused`` and ``accepted``.

    Raises
    ------
    AssertionError
        If the node raises instead of answering, its answer is unbounded or holds its secret, a
        module is imported or a process started, or it takes too long.
    """
    rng, counts = np.random.default_rng(seed), Counter(inputs=0, refused=0, accepted=0)
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    before = dict(os.environ)
    os.environ["NODE_SECRET"] = SECRET
    with tempfile.TemporaryDirectory() as folder:
        target = Target(Path(folder))
        sys.path.insert(0, folder)
        end = time.monotonic() + budget_seconds
        try:
            while time.monotonic() < end:
                text = mutate(rng, target)
                counts["inputs"] += 1
                counts["refused" if target.answer(text, seed) else "accepted"] += 1
        finally:
            sys.path.remove(folder)
            logger.setLevel(level)
            os.environ.clear()
            os.environ.update(before)
            client_app.compile_settings.cache_clear()
    return dict(counts)


class Target:
    """A node, and the traps beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.touched = folder, folder / "touched"
        (folder / "trap.py").write_text(
            f"open({str(self.touched)!r}, 'w').close()\nimport os\ndef f(*a, **k): return 1\n"
        )
        self.secret = folder / "shadow"
        self.secret.write_text(f"{SECRET},{SECRET}\n")
        os.mkfifo(folder / "fifo")
        allowed = folder / "allowed"
        allowed.mkdir()
        (allowed / "jobs.csv").write_text(f"instructions,input_mb\n{SECRET},1\n")
        (allowed / "link").symlink_to(self.secret)
        os.mkfifo(allowed / "fifo")
        self.node_config = {"partition-id": 0, "allow-files": str(allowed), "allow-worlds": ""}
        set_identity(run_id=1, node_id=1, task_id=1)

    def answer(self, text: str, seed: int) -> str:
        """Return the reason for which the node refuses these settings."""
        message = Message(
            RecordDict({CONFIG: ConfigRecord(settings_record(text))}), 1000, QUERY, ttl=60
        )
        set_metadata(message, message_id="message-1")
        context = Context(1, 1000, dict(self.node_config), RecordDict(), {})
        begun, environment = time.monotonic(), dict(os.environ)
        shown = f"seed {seed}: {text[:2000]!r}"
        reply = client_app.app(message, context)  # whatever it raises is a finding
        assert time.monotonic() - begun < SLOWEST, shown
        assert not self.touched.exists(), shown
        assert "trap" not in sys.modules, shown
        assert os.environ == environment, shown
        if not reply.has_error():
            return ""
        reason = reply.error.reason
        assert reason, shown
        assert len(reason) <= 500, shown
        assert "\n" not in reason, shown
        assert SECRET not in reason, shown
        assert "MemoryError" not in reason, shown
        return str(reason)


def mutate(rng: np.random.Generator, target: Target) -> str:
    """Return settings as a hostile server may send them."""
    base = _bases()[rng.integers(len(BASES))]
    kind = rng.random()
    if kind < 0.15:
        return _noise(rng, base)
    values = yaml.load(base, _LOADER)
    for _ in range(rng.integers(1, 4)):
        group: Any = values
        key = rng.choice(list(group))
        while isinstance(group[key], dict) and group[key] and rng.random() < 0.95:
            group = group[key]
            key = rng.choice(list(group))
        if rng.random() < 0.05:
            key = _text(rng, target)
        if key not in HEAVY:
            group[key] = _value(rng, target, 0)
    text = yaml.dump(values, Dumper=_DUMPER)
    return text if rng.random() < 0.9 else _noise(rng, text)


def _bases() -> list[str]:
    if not _CACHE:
        _CACHE.extend(load_config("ether2", base).to_yaml() for base in BASES)
    return _CACHE


_CACHE: list[str] = []


def _noise(rng: np.random.Generator, text: str) -> str:
    """Cut, repeat, or overwrite some characters of a text."""
    characters = list(text)
    for _ in range(rng.integers(1, 20)):
        place = int(rng.integers(len(characters)))
        characters[place] = str(rng.choice(list("&*!{}[]:,-|>%@`\"'#?~\t\n \0\x1b\ud800é0")))
    made = "".join(characters)
    return made[: rng.integers(len(made) + 1)] if rng.random() < 0.3 else made


def _text(rng: np.random.Generator, target: Target) -> str:
    folder = target.folder
    texts = (
        "${oc.env:NODE_SECRET}",
        "${seed}",
        "${oc.create:${oc.env:NODE_SECRET}}",
        "\\${x}",
        "???",
        "trap:f",
        "trap:os.system",
        "trap:Env-v0",
        "os:system",
        "sim_env.plugins:importlib.import_module",
        "subprocess:Popen",
        str(target.secret),
        str(folder / "fifo"),
        str(folder / "allowed" / "fifo"),
        str(folder / "allowed" / "link"),
        str(folder / "allowed" / "jobs.csv"),
        str(folder / "allowed" / ".." / "shadow"),
        "/dev/zero",
        "/proc/self/environ",
        "~root/x",
        "192.0.2.1:9100",
        "unix:/tmp/x:1",
        "file",
        "shared",
        "model",
        "\x1b[2J\0",
        "x" * int(rng.integers(1, 5000)),
    )
    return texts[rng.integers(len(texts))]


def _value(rng: np.random.Generator, target: Target, depth: int) -> Any:
    kind = rng.random()
    if kind < 0.5:
        return _text(rng, target)
    if kind < 0.75:
        numbers = (0, -1, 1, 2, 0.5, 1e308, float("nan"), float("inf"), 10**30, -(2**63), 10**400)
        return numbers[rng.integers(len(numbers))]
    if kind < 0.8 or depth > 20:
        return [None, True, False][rng.integers(3)]
    several = [_value(rng, target, depth + 1) for _ in range(rng.integers(0, 3))]
    if kind < 0.9:
        return several
    keys = ("name", "args", "fraction", "*", "node_0", _text(rng, target))
    return {str(rng.choice(keys)): each for each in several}


if __name__ == "__main__":
    print(fuzz(int(sys.argv[1]), float(sys.argv[2])))

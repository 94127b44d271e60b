"""Files of networks and of jobs: each is read, or refused in one sentence."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from sim_env.network.files import read_topology
from sim_env.workload.files import read_jobs
from tests.fuzz import require_sentence

NODE = {"id": "rpi_0", "coordinates": [0, 0], "capacity": {"cpu_milis": 1000, "memory": 3.2e9}}
ETHER = {
    "nodes": {name: {**NODE, "id": name} for name in ("rpi_0", "nuc_0", "server_0")},
    "links": {"neighbours": {"nuc_0": ["rpi_0", "server_0"]}},
}
PLAIN = {
    "format": "fauno-topology",
    "version": 1,
    "nodes": [
        {"name": name, "speed": 1e9, "capacity": 10, "x": place, "y": 0}
        for place, name in enumerate(("a", "b", "c"))
    ],
    "links": [{"from": "a", "to": "b", "rate": 1e6}, {"from": "b", "to": "c"}],
}
JOBS = "instructions,input_mb,output_mb,weight\n1e7,1,2,3\n2e7,1,,\n"
TRACE = "M1,1,j_1,1,Terminated,10,20,100,0.5\nM2,1,j_1,1,Terminated,20,25,50,0.2\n"
ODD: list[Any] = [10**4000, -1, 0, 1e308, None, True, "", "\x1b[2J", [], {}, "x" * 5000, 0.5]
LONGEST = 3000  # characters of a sentence


class Fuzzer:
    """The readers of topologies and of job tables."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "file"

    def make(self, rng: np.random.Generator) -> bytes:
        """Return a file with a digit before it that says which reader gets it."""
        kind = int(rng.integers(5))
        if kind == 4:
            depth = int(rng.choice([10, 2000, 200_000]))
            return b"0" + b"[" * depth + b"]" * depth * int(rng.integers(2))
        if kind >= 2:
            text = (JOBS, TRACE)[kind - 2]
            if rng.random() < 0.5:
                text = text.replace(str(rng.choice(["1e7", "2", "10", "j_1"])), odd_text(rng))
            return b"1" + text.encode()
        content = json.loads(json.dumps((ETHER, PLAIN)[kind]))
        for _ in range(int(rng.integers(0, 3))):
            change(content, rng)
        return b"0" + json.dumps(content).encode()

    def handle(self, data: bytes) -> str:
        """Read a file."""
        reader = read_jobs if data[:1] == b"1" else read_topology
        self.path.write_bytes(data[1:])
        try:
            reader(self.path)
        except ValueError as error:
            require_sentence(error, LONGEST)
            return f"{reader.__name__}: refused"
        return f"{reader.__name__}: read"


def odd_text(rng: np.random.Generator) -> str:
    """Return a cell."""
    value = ODD[rng.integers(1, len(ODD))]
    return "1" * 4000 if rng.random() < 0.1 else str(value)


def change(content: Any, rng: np.random.Generator) -> None:
    """Replace or remove one value somewhere in nested mappings and lists."""
    while True:
        keys = list(content) if isinstance(content, dict) else list(range(len(content)))
        if not keys:
            return
        key = keys[rng.integers(len(keys))]
        inner = content[key]
        if isinstance(inner, dict | list) and rng.random() < 0.8:
            content = inner
            continue
        if rng.random() < 0.2:
            del content[key]
        else:
            content[key] = ODD[rng.integers(len(ODD))]
        return

"""Hostile nodes in the handshake: no crash, no place of another, no unbounded event.

``python -m tests.fuzz.handshake SEED SECONDS`` runs it alone.
"""

import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fauno_flwr.config.loading import load_config
from fauno_flwr.federation.context import MOST_REFUSED, RunContext
from fauno_flwr.federation.members import Members
from fauno_flwr.federation.protocol import AGENT, CRITIC, MESSAGES, NODE, NODES, QUERY, node_record
from fauno_flwr.results.directory import RunDirectory
from fauno_flwr.tasks.registry import make_task
from strategies.clock import VirtualClock
from strategies.flower_internals import set_metadata
from strategies.grids import LocalGrid

AGENTS = 3
HONEST = range(1000, 1000 + AGENTS)
HOSTILE = range(2000, 2020)
LONGEST = 2000  # bytes of an event


def fuzz(seed: int, budget_seconds: float) -> dict[str, int]:
    """Let hostile nodes answer queries until the time is over.

    Honest nodes come and go beside them; each has its place whenever it is online.

    Returns
    -------
    dict of str to int
        ``inputs`` (answers of hostile nodes), ``refused``, ``stood_in`` (places that they held
        while the owner was away).

    Raises
    ------
    AssertionError
        If an honest node is without its place, two nodes have one, an id or agent is impossible,
        or an event is too long; whatever the members raise is a finding too.
    """
    rng, counts = np.random.default_rng(seed), Counter(inputs=0, refused=0, stood_in=0)
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    end = time.monotonic() + budget_seconds
    try:
        while time.monotonic() < end:
            with tempfile.TemporaryDirectory() as folder:
                _one_run(rng, counts, Path(folder) / "run", end, seed)
    finally:
        logger.setLevel(level)
    return dict(counts)


def _one_run(
    rng: np.random.Generator, counts: Counter[str], folder: Path, end: float, seed: int
) -> None:
    config = load_config("ether2", ["topology=full20", f"topology.nodes={AGENTS}"])
    grid, events = Grid(rng), list[dict[str, Any]]()
    run = RunContext(grid, config, make_task(config), RunDirectory(folder), events.append)
    grid.shared = run.task.make_population(1).get_shared("critic")

    def refuse(node_id: int, reason: str) -> None:
        counts["refused"] += 1
        run.refuse(node_id, reason)

    question = partial(run.question, QUERY)
    members = Members(run.agent_of, question, run.identify, grid.clock, refuse=refuse)
    grid.present = set(HONEST)  # who comes first has the place
    for _ in range(2):
        members(grid)
    assert members.held == dict(enumerate(HONEST)), seed
    for _ in range(300):
        if time.monotonic() > end:
            break
        honest = {i for i in HONEST if rng.random() < 0.8}
        # A SuperNode that restarts has a new id.
        first = HOSTILE[0] + int(rng.integers(0, 10_000)) * len(HOSTILE)
        grid.present = honest | set(range(first, first + 5)) | set(HOSTILE[:5])
        online = members(grid)
        grid.clock.sleep(float(rng.choice([0.5, 5.0, 400.0])))
        assert len(set(online)) == len(online) <= AGENTS, seed
        assert set(online) <= grid.present & run.introduced.keys(), seed
        assert sorted(members.held) == sorted({run.agent_of[i] for i in online}), seed
        for node_id in honest:
            assert members.held[node_id - HONEST[0]] == node_id, seed
        assert all(0 <= agent < AGENTS for agent in run.agent_of.values()), seed
        counts["stood_in"] += len(set(online) - honest)
    assert len(events) <= MOST_REFUSED, seed
    for event in events:
        assert len(str(event)) <= LONGEST, seed
        assert str(event.get("reason", "")).isprintable(), seed
    counts["inputs"] += grid.answered


class Grid(LocalGrid):
    """Nodes that answer at once: the honest ones as they should, the others anything."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self.rng, self.present, self.answered = rng, set[int](), 0
        self.clock = VirtualClock(lambda: None)
        self.shared: dict[str, np.ndarray] = {}
        self._replies: list[Message] = []
        self._sent = 0

    def get_node_ids(self) -> list[int]:
        return list(self.present)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str:
        self._sent += 1
        node_id, message_id = message.metadata.dst_node_id, f"message-{self._sent}"
        set_metadata(message, message_id=message_id)
        if node_id in HONEST:
            about = node_record(node_id - HONEST[0], AGENTS, self.shared, 0)
            self._replies.append(Message(RecordDict({NODE: about}), reply_to=message))
            return message_id
        self.answered += 1
        for _ in range(int(self.rng.choice([0, 1, 1, 1, 1, 2]))):
            reply = hostile(self.rng, message, self.shared)
            if self.rng.random() < 0.1:
                set_metadata(reply, src_node_id=int(self.rng.choice([0, 1, HONEST[0], 2**62])))
            if self.rng.random() < 0.02:
                set_metadata(reply, reply_to_message_id="message-0")
            self._replies.append(reply)
        return message_id

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        wanted = set(message_ids)
        found = [r for r in self._replies if r.metadata.reply_to_message_id in wanted]
        self._replies = [r for r in self._replies if r not in found][-1000:]
        return found


def hostile(rng: np.random.Generator, message: Message, shared: dict[str, np.ndarray]) -> Message:
    """Return what a hostile node may answer to a query."""
    kind = rng.random()
    if kind < 0.15:
        reason = str(_value(rng)) if kind < 0.1 else ""
        return Message(Error(int(rng.integers(0, 12)), reason), reply_to=message)
    about: dict[str, Any] = dict(node_record(int(rng.integers(AGENTS)), 0, shared, 0))
    for key in (AGENT, NODES, CRITIC, MESSAGES, "more"):
        if rng.random() < 0.25:
            about[key] = _value(rng)
        if rng.random() < 0.05:
            about.pop(key, None)
    content = RecordDict({NODE: ConfigRecord(about)})
    if rng.random() < 0.1:
        content = RecordDict({str(rng.choice([NODE, "x"])): MetricRecord({"agent": 0})})
    if rng.random() < 0.1:
        content[NODE] = ArrayRecord({"agent": Array(np.zeros(1))})
    return Message(content, reply_to=message)


def _value(rng: np.random.Generator) -> Any:
    values: tuple[Any, ...] = (
        *(0, 1, 2, 3, -1, 999, 2**62, -(2**63), True, False, 0.5, float("nan"), float("inf")),
        *(
            "",
            "rpi_0: x",
            "rpi_0",
            "\x1b[2J\n\r\0",
            "x" * 100_000,
            "\u202e\u2028",
            b"",
            b"\0" * 999,
        ),
        *([], [1, 2], ["a"] * 9),
    )
    if rng.random() < 0.2:
        return "".join(map(chr, rng.integers(1, 0xD7FF, rng.integers(1, 900))))
    return values[rng.integers(len(values))]


if __name__ == "__main__":
    print(fuzz(int(sys.argv[1]), float(sys.argv[2])))

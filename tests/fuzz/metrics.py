"""Metrics of nodes: what is kept of them must be averaged, written, read and plotted."""

import json
from pathlib import Path

import numpy as np
from flwr.app import Message, MetricRecord, RecordDict

from fauno_flwr.config.settings import TrainingConfig
from fauno_flwr.federation.metric_rows import row
from fauno_flwr.federation.sizing import SizedGuard, Sizer
from fauno_flwr.learning.metrics import STEPS
from fauno_flwr.results.report import PANELS, is_number
from fauno_flwr.results.status import State, failures, format_status, node_statistics
from strategies import Guard
from strategies.evaluation import mean_metrics
from strategies.flower_internals import records_from_bytes, records_to_bytes
from strategies.guard import Metrics, RejectedError
from tests.fuzz import require_sentence

NAMES = [STEPS, *(panel[0] for panel in PANELS), "eval/return", "time/wall", "version", "a\nb"]
VALUES = [0.0, -1.0, 1e300, 1e301, float("nan"), float("inf"), 2**63 - 1, -(2**63), 1, 7]


class Fuzzer:
    """The guards of the library and of the app, and the readers of what they let through."""

    def __init__(self, folder: Path) -> None:
        self.guards: tuple[Guard, ...] = (
            Guard(),
            SizedGuard(Sizer(TrainingConfig(), lambda node_id: node_id)),
        )
        for guard in self.guards:
            guard.arrayrecord_key, guard.weighted_by_key = "arrays", STEPS

    def make(self, rng: np.random.Generator) -> bytes:
        """Return records with random metrics."""
        metrics: dict = {STEPS: int(rng.integers(1, 50))} if rng.random() < 0.7 else {}
        for _ in range(int(rng.integers(0, 8 if rng.random() < 0.95 else 600))):
            text = "".join(map(chr, rng.integers(0, 700, int(rng.integers(0, 30)))))
            if rng.random() < 0.02:
                text *= 500
            name = str(rng.choice(NAMES)) if rng.random() < 0.5 else text
            value = VALUES[rng.integers(len(VALUES))]
            long = int(rng.integers(0, 4 if rng.random() < 0.9 else 3000))
            metrics[name] = [float(value)] * long if rng.random() < 0.2 else value
        return records_to_bytes(RecordDict({"metrics": MetricRecord(metrics)}))

    def handle(self, data: bytes) -> str:
        """Let both guards check metrics, and use what they keep."""
        try:
            content = records_from_bytes(data)
        except Exception:  # Flower's own
            return "no records"
        message = Message.__new__(Message)
        message.__dict__["_content"] = content
        outcomes = []
        for guard in self.guards:
            try:
                steps, kept = guard.check_metrics(message)
            except RejectedError as error:
                require_sentence(error, 300)
                outcomes.append(error.check)
                continue
            outcomes.append("kept" if kept else "none kept")
            self.use(steps, kept, guard)
        return ", ".join(outcomes)

    def use(self, steps: float, kept: Metrics, guard: Guard) -> None:
        """Write, read and summarise metrics as a run does."""
        assert len(kept) <= guard.most_metrics
        text = json.dumps(kept, allow_nan=False)
        assert len(text) < 10 * guard.most_metric_bytes
        merged = mean_metrics([kept, {STEPS: 3.0, "reward": 1.0}], np.array([0.5, 0.5]))
        json.dumps(row(1, merged), allow_nan=False)
        event = {
            **{"event": "reply", "name": "a", "node": 1, "version": 0, "latency": 1.0},
            "metrics": json.loads(text),
        }
        assert node_statistics([event])["a"]["steps"] >= 0
        assert not failures([event])
        format_status([event], 3, State("running"))
        for name, _, _ in PANELS:
            assert is_number(kept.get(name)) or name not in kept or isinstance(kept[name], list)
        assert steps >= 0

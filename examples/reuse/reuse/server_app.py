"""The server: only the import of the strategy differs. It needs no torch."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from reuse.task import make_data, make_parameters, test

app = ServerApp()


class TargetReached(Exception):  # noqa: N818
    """Ends a training early; a strategy itself ends only after a number of rounds."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train to the target loss, and write the loss over time to a file."""
    settings = context.run_config
    if settings["strategy"] == "fedavg":
        from flwr.serverapp.strategy import FedAvg as Strategy
    else:
        from strategies import BufferedAsync as Strategy

    parts = [make_data(partition) for partition in range(len(list(grid.get_node_ids())))]
    x, y = (np.concatenate(each) for each in zip(*parts, strict=True))
    clock = getattr(grid, "clock", time)
    started = clock.monotonic()
    history: list[dict[str, float]] = []

    def evaluate(version: int, arrays: ArrayRecord) -> MetricRecord:
        loss = test({name: each.numpy() for name, each in arrays.items()}, x, y)
        history.append({"version": version, "t": clock.monotonic() - started, "loss": loss})
        if loss <= settings["target-loss"]:
            raise TargetReached
        return MetricRecord({"loss": loss})

    strategy = Strategy(fraction_evaluate=0.0)
    try:
        strategy.start(
            grid,
            ArrayRecord({name: Array(each) for name, each in make_parameters().items()}),
            num_rounds=int(settings["num-rounds"]),
            evaluate_fn=evaluate,
        )
    except TargetReached:
        print(f"loss {history[-1]['loss']:.4f} after {history[-1]['t']:.1f} s")
    if settings["out"]:
        Path(settings["out"]).write_text(json.dumps(history))

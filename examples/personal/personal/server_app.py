"""The server: only the import of the strategy differs."""

import json
import time
from pathlib import Path

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

from personal.task import BODY, make_net, part_of

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, and write the accuracy over time to a file."""
    settings = context.run_config
    if settings["strategy"] == "fedavg":
        from flwr.serverapp.strategy import FedAvg as Strategy
    else:
        from strategies import BufferedAsync as Strategy

    clock = getattr(grid, "clock", time)
    started = clock.monotonic()
    times: dict[int, float] = {}

    def note(version: int, _: ArrayRecord) -> None:
        times[version] = clock.monotonic() - started

    # The server has no head to test the body with: the nodes report the accuracy of both.
    strategy = Strategy(fraction_evaluate=0.0)
    start, rounds = ArrayRecord(part_of(make_net(), BODY)), int(settings["num-rounds"])
    result = strategy.start(grid, start, num_rounds=rounds, evaluate_fn=note)
    history = [
        {"version": version, "t": times[version], "accuracy": float(metrics["accuracy"])}
        for version, metrics in result.train_metrics_clientapp.items()
    ]
    print(f"accuracy {history[-1]['accuracy']:.3f} after {history[-1]['t']:.1f} s")
    if settings["out"]:
        Path(settings["out"]).write_text(json.dumps(history))

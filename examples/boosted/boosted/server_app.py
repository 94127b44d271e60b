"""The server: only the import of the strategy differs."""

import json
import time
from pathlib import Path

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from boosted.task import empty_model, load_test, test

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, and write the accuracy over time to a file."""
    settings = context.run_config
    if settings["strategy"] == "fedavg":
        from flwr.serverapp.strategy import FedAvg as Strategy
    else:
        from strategies import BufferedAsync as Strategy

    x, y = load_test()
    clock = getattr(grid, "clock", time)
    started = clock.monotonic()
    history: list[dict[str, float]] = []

    def evaluate(version: int, arrays: ArrayRecord) -> MetricRecord:
        accuracy = test(arrays["leaves"].numpy(), x, y)
        history.append({"version": version, "t": clock.monotonic() - started, "accuracy": accuracy})
        return MetricRecord({"accuracy": accuracy})

    strategy = Strategy(fraction_evaluate=0.0)
    start, rounds = empty_model(int(settings["trees"])), int(settings["num-rounds"])
    strategy.start(grid, start, num_rounds=rounds, evaluate_fn=evaluate)
    print(f"accuracy {history[-1]['accuracy']:.3f} after {history[-1]['t']:.1f} s")
    if settings["out"]:
        Path(settings["out"]).write_text(json.dumps(history))

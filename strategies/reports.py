"""What a training logs: the lines of Flower's own strategies, with versions for rounds."""

import io
from logging import INFO

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.common.logger import log
from flwr.serverapp.strategy import Result


def log_start(
    name: str,
    num_rounds: int,
    arrays: ArrayRecord,
    train_config: ConfigRecord,
    evaluate_config: ConfigRecord,
) -> None:
    """Log what is going to be trained; the settings of the strategy follow."""
    log(INFO, "Starting %s strategy:", name)
    log(INFO, "\t├── Number of rounds (versions): %d", num_rounds)
    log(INFO, "\t├── ArrayRecord (%.2f MB)", sum(len(a.data) for a in arrays.values()) / 2**20)
    log(INFO, "\t├── ConfigRecord (train): %s", shown_config(train_config))
    log(INFO, "\t├── ConfigRecord (evaluate): %s", shown_config(evaluate_config))


def shown_config(config: ConfigRecord) -> str:
    """Return a config record as text, without the contents of bytes and long strings."""
    if not config:
        return "(empty!)"
    parts = []
    for key, value in config.items():
        text = "<bytes>" if isinstance(value, bytes) else str(value)
        parts.append(f"{key!r}: {text if len(text) <= 80 else f'<{len(text)} characters>'}")
    return "{" + ", ".join(parts) + "}"


def log_waiting(nodes: int, least: int) -> None:
    """Log that too few nodes are online to begin, as Flower does."""
    text = "Waiting for nodes to connect: %d connected (minimum required: %d)."
    log(INFO, text, nodes, least)


def log_version(version: int, num_rounds: int, updates: int, seconds: float) -> None:
    """Log that a version has been made."""
    log(INFO, "")
    log(INFO, "[ROUND %s/%s] from %s updates after %.1f s", version, num_rounds, updates, seconds)


def log_metrics(of: str, metrics: MetricRecord | None) -> None:
    """Log metrics of a version, if there are any."""
    if metrics is not None:
        log(INFO, "\t└──> %s: %s", of, metrics)


def log_end(result: Result, seconds: float) -> None:
    """Log the results of a training."""
    log(INFO, "")
    log(INFO, "Strategy execution finished in %.2fs", seconds)
    log(INFO, "")
    log(INFO, "Final results:")
    log(INFO, "")
    for line in io.StringIO(str(result)):
        log(INFO, "\t%s", line.strip("\n"))
    log(INFO, "")

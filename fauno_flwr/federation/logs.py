"""Log lines that a machine reads: ``FAUNO_LOG_FORMAT=json`` in a process's environment."""

import json
import logging
import os
from datetime import UTC, datetime

from flwr.common.logger import FLOWER_LOGGER

from fauno_flwr.config.errors import ConfigError

SETTING, TEXT, JSON = "FAUNO_LOG_FORMAT", "text", "json"


class JsonLines(logging.Formatter):
    """One JSON object for each line of the log: time (UTC), level, logger, process, message."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record, with its traceback if it has one."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage().strip(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up_logging() -> None:
    """Give Flower's log, into which the app writes, the format that the environment asks for.

    Raises
    ------
    ConfigError
        If the environment asks for an unknown one.
    """
    wanted = os.environ.get(SETTING, TEXT)
    if wanted not in (TEXT, JSON):
        raise ConfigError(f"{SETTING} is {wanted!r}: must be {TEXT} or {JSON}")
    for handler in list(FLOWER_LOGGER.handlers):
        if wanted == JSON and not isinstance(handler.formatter, JsonLines):
            lines = logging.StreamHandler()
            lines.setLevel(handler.level)
            lines.setFormatter(JsonLines())
            FLOWER_LOGGER.removeHandler(handler)
            FLOWER_LOGGER.addHandler(lines)

"""Flower's log, into which the app writes: its format, and quiet while a command runs."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from flwr.common.logger import FLOWER_LOGGER, update_console_handler

from fauno_flwr.config.errors import ConfigError

SETTING, TEXT, JSON = "FAUNO_LOG_FORMAT", "text", "json"


def set_up_logging() -> None:
    """Give the log the format that the environment asks for.

    Raises
    ------
    ConfigError
        If ``FAUNO_LOG_FORMAT`` is neither ``text`` nor ``json``.
    """
    requested = os.environ.get(SETTING, TEXT)
    if requested not in (TEXT, JSON):
        raise ConfigError(f"{SETTING} is {requested!r}: must be {TEXT} or {JSON}")
    update_console_handler(colored=sys.stderr.isatty())
    if requested == TEXT:
        return
    from fauno_flwr.federation.json_logs import JsonLines

    for handler in list(FLOWER_LOGGER.handlers):
        if not isinstance(handler.formatter, JsonLines):
            lines = logging.StreamHandler()
            lines.setLevel(handler.level)
            lines.setFormatter(JsonLines())
            FLOWER_LOGGER.removeHandler(handler)
            FLOWER_LOGGER.addHandler(lines)


@contextmanager
def quiet_flower(level: int = logging.WARNING) -> Iterator[None]:
    """Let Flower log nothing below `level` within a context."""
    update_console_handler(colored=sys.stderr.isatty())
    before = FLOWER_LOGGER.level
    FLOWER_LOGGER.setLevel(level)
    try:
        yield
    finally:
        FLOWER_LOGGER.setLevel(before)

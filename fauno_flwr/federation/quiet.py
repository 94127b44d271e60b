"""Flower's log, turned down for a while."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_flower(level: int = logging.WARNING) -> Iterator[None]:
    """Let Flower log nothing below `level`."""
    logger = logging.getLogger("flwr")
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)

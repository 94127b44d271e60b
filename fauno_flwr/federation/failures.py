"""Failures of a run: what a node answers to a message that it cannot handle, and the end."""

import re
import traceback
from collections.abc import Callable
from logging import ERROR

from flwr.app import Context, Error, Message
from flwr.common.logger import log

from strategies.flower_internals import ErrorCode

LONGEST = 500  # characters
OWN = ("fauno_flwr.", "sim_env.", "strategies.")  # whose exceptions are sentences
NUMBER = re.compile(r"\d+")


class RunFailedError(RuntimeError):
    """The run cannot be completed; the text is one sentence."""


def sentence(error: BaseException) -> str:
    """Return an exception as one line, with its type unless it is one of this application."""
    text = " ".join(str(error).split())
    name = type(error).__name__
    if not type(error).__module__.startswith(OWN):
        text = f"{name}: {text}" if text else name
    return text[:LONGEST]


def printable(text: str) -> str:
    """Return the text of a stranger as one line that is safe to print: no control characters."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))[:LONGEST]


def kind(reason: str) -> str:
    """Return what failures that differ only in numbers have in common."""
    return NUMBER.sub("#", reason)


def answer_errors(
    message: Message, context: Context, call_next: Callable[[Message, Context], Message]
) -> Message:
    """Answer a message whose handler raises with the exception as one line; a mod of Flower.

    Flower itself would answer with a traceback that its simulation engine has wrapped twice.
    """
    try:
        return call_next(message, context)
    except Exception as error:
        log(ERROR, "%s", traceback.format_exc())
        code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
        return Message(Error(code, sentence(error)), reply_to=message)

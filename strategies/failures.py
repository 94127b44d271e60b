"""What a failure of a node says, and the end of a training in which every node fails."""

import re
from collections.abc import Mapping

from strategies.checks import printable

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
WRAPPED = re.compile(r"<class '(?P<type>[^']*)'>:<'(?P<text>.*)'>", re.DOTALL)  # by Flower
FORWARDED = re.compile(r"^[\w.]*ClientAppException: ")  # by Flower's simulation engine
LONGEST = 500  # characters
LONGEST_READ = 10_000  # characters of either end that are looked at


def readable(reason: object) -> str:
    """Return the reason of an error reply as one line.

    Flower wraps an exception as ``<class 'KeyError'>:<'text'>``; in its simulation the text is a
    traceback by Ray, whose last line is the exception.
    """
    text = str(reason)
    if len(text) > 2 * LONGEST_READ:
        text = text[:LONGEST_READ] + text[-LONGEST_READ:]
    text = ANSI.sub("", text).strip()
    wrapped = WRAPPED.fullmatch(text)
    if wrapped is not None:
        text = wrapped["text"].strip()
        if not wrapped["type"].startswith("ray.") and "ClientAppException" not in wrapped["type"]:
            text = f"{wrapped['type'].rpartition('.')[2]}: {text}"
        elif "\n" in text:
            text = text.splitlines()[-1]
    return printable(FORWARDED.sub("", " ".join(text.split())), LONGEST)


class TrainingFailedError(RuntimeError):
    """No node succeeds: every one that takes part fails its messages, or does not answer them.

    Parameters
    ----------
    summary : str
        What is true of all of them.
    reasons : mapping of int to str
        The last failure of each node, by node id.
    """

    def __init__(self, summary: str, reasons: Mapping[int, str]) -> None:
        self.summary, self.reasons = summary, dict(reasons)
        first = [f"; node {node_id}: {reason}" for node_id, reason in self.reasons.items()][:1]
        super().__init__("".join([summary, *first]))

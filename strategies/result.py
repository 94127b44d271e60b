"""The result of a training: Flower's, and what ended it."""

from dataclasses import dataclass

from flwr.serverapp.strategy import Result

from strategies.ledger import Spent

NUM_ROUNDS, TIME_LIMIT = "num_rounds", "time_limit"
SHOULD_STOP, ON_VERSION = "should_stop", "on_version"
MAX_EPSILON = "max_epsilon"


@dataclass(repr=False)
class TrainingResult(Result):
    """Flower's result, with the number of versions and the option that ended the training.

    Attributes
    ----------
    versions : int
        Versions made.
    ended_by : {"", "num_rounds", "time_limit", "should_stop", "on_version", "max_epsilon"}
        ``"num_rounds"`` if all versions were made; empty while the training goes on, and after one
        that has failed.
    privacy : Spent or None
        Privacy spent so far; None in a training without.
    """

    versions: int = 0
    ended_by: str = ""
    privacy: Spent | None = None

    def __repr__(self) -> str:
        made = f"{self.versions} versions, ended by {self.ended_by or 'nothing yet'}"
        private = "" if self.privacy is None else f"\nprivacy: {self.privacy}"
        return f"{super().__repr__()}\n{made}{private}\n"

"""The result of a training: Flower's, and what ended it."""

from dataclasses import dataclass

from flwr.serverapp.strategy import Result

NUM_ROUNDS, TIME_LIMIT = "num_rounds", "time_limit"
SHOULD_STOP, ON_VERSION = "should_stop", "on_version"


@dataclass(repr=False)
class TrainingResult(Result):
    """Flower's result, with the number of versions and the option that ended the training.

    Attributes
    ----------
    versions : int
        Versions made.
    ended_by : {"", "num_rounds", "time_limit", "should_stop", "on_version"}
        ``"num_rounds"`` if all versions were made; empty while the training goes on, and after one
        that has failed.
    """

    versions: int = 0
    ended_by: str = ""

    def __repr__(self) -> str:
        made = f"{self.versions} versions, ended by {self.ended_by or 'nothing yet'}"
        return f"{super().__repr__()}\n{made}\n"

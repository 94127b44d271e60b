"""A folder that, first in PYTHONPATH, gives a process another time, which may jump."""

from pathlib import Path

# As freezegun does it, but for a process that one does not write oneself.
SITE = '''"""Time is ahead by the seconds in the file beside this one."""
import datetime, pathlib, time
real, wall, file = datetime.datetime, time.time, pathlib.Path(__file__).with_name("ahead")

def ahead():
    return float(file.read_text() or 0)

class Meta(type):
    def __instancecheck__(cls, value):
        return isinstance(value, real)

class Ahead(real, metaclass=Meta):
    @classmethod
    def now(cls, tz=None):
        return real.now(tz) + datetime.timedelta(seconds=ahead())

    @classmethod
    def utcnow(cls):
        return real.utcnow() + datetime.timedelta(seconds=ahead())

datetime.datetime, time.time = Ahead, lambda: wall() + ahead()
'''


class WrongClock:
    """The clock of one node.

    Parameters
    ----------
    folder : Path
        New; goes first into the node's PYTHONPATH.
    ahead : float
        Seconds.
    """

    def __init__(self, folder: Path, ahead: float) -> None:
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(SITE)
        self.folder = folder
        self.set(ahead)

    def set(self, ahead: float) -> None:
        """Let the clock jump."""
        part = self.folder / "part"
        part.write_text(str(ahead))
        part.replace(self.folder / "ahead")

"""A wrong width of an encoding is one sentence, not a write beyond its arrays."""

import subprocess
import sys

import numba
import pytest

from sim_env.engine import features
from sim_env.engine.features import (
    COMPILED,
    OBSERVATIONS,
    Encoding,
    find_encoding,
    number_of,
    require_widths,
)
from sim_env.scenario import Scenario, ScenarioSpec

PATH = __name__


def _python(local, destination, mask, out_local, out_destination) -> None:
    for row in range(len(local)):
        out_local[row, 0] = 1.0
        for column in range(1, 5):
            out_local[row, column] = local[row, column]
        for slot in range(mask.shape[1]):
            if mask[row, slot]:
                out_destination[row, slot, 0] = destination[row, slot, 0]
                out_destination[row, slot, 1] = destination[row, slot, 1]


_compiled = numba.njit(_python)
RIGHT = Encoding(5, 2, _compiled)
LOCAL = Encoding(2, 2, _compiled)
DESTINATIONS = Encoding(5, 1, _compiled)
NONE = Encoding(5, 0, _compiled)
FULL = Encoding(3, 10, features.encode_full)
IN_PYTHON = Encoding(3, 2, _python)
FIVE = "fills 5 features where Encoding.local is"


@pytest.mark.parametrize("encoding", COMPILED)
def test_the_built_in_encodings_have_their_widths(encoding: Encoding) -> None:
    require_widths(encoding)
    assert COMPILED[number_of(encoding)] is encoding


def test_the_right_widths_are_accepted() -> None:
    assert find_encoding(f"{PATH}:RIGHT").local == 5


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("LOCAL", f"its function {FIVE} 2: must be as many"),
        ("DESTINATIONS", "fills 2 features where Encoding.destinations is 1: must be as many"),
        ("NONE", "features where Encoding.destinations is 0: must be as many"),
        ("FULL", "fills 12 features where Encoding.local is 3"),
        ("IN_PYTHON", "raised IndexError .index 3 is out of bounds for axis 1 with size 3"),
    ],
)
def test_a_width_that_is_too_small_is_one_sentence(name: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"observation is '{PATH}:{name}': .*{sentence}"):
        Scenario(ScenarioSpec(observation=f"{PATH}:{name}"))


def test_a_line_in_the_table_of_observations_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that replaces a built-in encoding: compiled code does not know it."""
    for name in ("mine", "full"):
        monkeypatch.setitem(OBSERVATIONS, name, RIGHT)
        scenario = Scenario(ScenarioSpec(observation=name))
        assert (scenario.observation_number, scenario.encoding.local) == (-1, 5)
        monkeypatch.setitem(OBSERVATIONS, name, LOCAL)
        with pytest.raises(ValueError, match=f"observation is '{name}': its function {FIVE} 2"):
            find_encoding(name)


def test_what_is_written_beyond_the_guard_of_a_row_is_found() -> None:
    @numba.njit
    def far(local, destination, mask, out_local, out_destination):
        out_local[:, 0] = 1.0
        for row in range(len(local)):
            for column in range(500):
                out_local[row, column] = 1.0

    with pytest.raises(ValueError, match=r"fills 500 features where Encoding\.local is 4"):
        require_widths(Encoding(4, 1, far, name="far"))


def test_the_process_survives() -> None:
    """In a process of its own: a write beyond an array may end it only later."""
    code = (
        "from sim_env import Scenario, ScenarioSpec\n"
        "try:\n"
        f"    Scenario(ScenarioSpec(observation='{PATH}:LOCAL'))\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert FIVE in done.stdout


def test_reading_a_column_that_does_not_exist_is_found() -> None:
    @numba.njit
    def reads(local, destination, mask, out_local, out_destination):
        for row in range(len(local)):
            out_local[row, 0] = 1.0
            out_local[row, 1] = local[row, 10 + 40]

    with pytest.raises(ValueError, match="features that are not finite"):
        require_widths(Encoding(2, 1, reads, name="reads"))

"""The reference of the settings, and that it names all of them."""

import re
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from fauno_flwr.config import layers
from fauno_flwr.config.agent import CONFIGS
from fauno_flwr.config.reference import UNITS, Setting, markdown, settings
from fauno_flwr.config.settings import RunConfig

ALL = list(settings())
KEYS = [each.key for each in ALL]


def leaves(value: Any, prefix: str = "") -> list[str]:
    found = []
    for item in fields(value):
        each, key = getattr(value, item.name), prefix + item.name
        found += leaves(each, f"{key}.") if is_dataclass(each) else [key]
    return found


def test_every_setting_is_in_the_reference_once() -> None:
    expected = set(leaves(RunConfig()))
    for kind in CONFIGS.values():
        expected |= set(leaves(kind(), "agent."))
    assert len(KEYS) == len(set(KEYS))
    assert set(KEYS) == expected
    page = markdown()
    assert all(f"| `{key}` |" in page for key in expected)


@pytest.mark.parametrize("setting", ALL, ids=KEYS)
def test_every_setting_is_described(setting: Setting) -> None:
    assert len(setting.description) > 8
    if setting.type in ("int", "float"):
        assert "number" in setting.allowed
    if setting.key.endswith(("kind", "jobs", "algorithm", "network", "heuristic")):
        assert "`" in setting.allowed


def test_a_setting_that_speaks_of_a_unit_has_it() -> None:
    assert set(UNITS) <= set(KEYS)
    words = {"seconds": "s", "Ticks ": "ticks", "metres": "m", "Bytes": "bytes"}
    for setting in ALL:
        for word, unit in words.items():
            first = setting.description.partition(".")[0]
            if setting.type in ("int", "float") and re.search(rf"\b{word}", first):
                assert setting.unit, f"{setting.key}: {word}, {unit}"


def test_every_setting_that_is_no_single_value_has_an_example() -> None:
    plain = ("int", "float", "bool", "str", "int or float", "name or mapping")
    composite = {each.key for each in ALL if each.type not in plain}
    assert composite == set(layers.EXAMPLES)

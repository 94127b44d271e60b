"""Numbers for some nodes, by name, role or pattern."""

import numpy as np
import pytest

from sim_env.network.patterns import by_node, require_numbers
from sim_env.network.topology import TopologySpec, build_topology

TOPOLOGY = build_topology(TopologySpec(clusters=1))


def test_the_last_key_that_matches_a_node_applies() -> None:
    among = np.array(TOPOLOGY.roles) != "server"
    numbers = {"*": 2.0, "rpi": 3.0, "rpi_[01]": 4.0, "rpi_1": 5.0}
    found = by_node("some.setting", numbers, TOPOLOGY, default=1.0, among=among)
    expected = {"rpi_0": 4.0, "rpi_1": 5.0, "rpi_2": 3.0, "nuc_0": 2.0, "server_0": 1.0}
    values = dict(zip(TOPOLOGY.names, found.tolist(), strict=True))
    assert {name: values[name] for name in expected} == expected


def test_a_key_that_matches_nothing_is_named_with_what_is_allowed() -> None:
    among = np.array(TOPOLOGY.roles) == "rpi"
    sentence = (
        r"^some\.setting\.nuc is 2\.0: must be for a source of this network \(rpi_0, rpi_1, "
        r".*\), its role, or a pattern of them$"
    )
    with pytest.raises(ValueError, match=sentence):
        by_node("some.setting", {"nuc": 2.0}, TOPOLOGY, 1.0, among, "a source")


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        (3, "some.setting is 3: must be a mapping"),
        ({3: 1.0}, "key of some.setting is 3: must be a name, a role or a pattern"),
        ({"rpi": True}, "some.setting.rpi is True: must be a finite number above 0"),
        ({"rpi": 0.0}, "some.setting.rpi is 0.0: must be a finite number above 0"),
        ({"rpi": float("nan")}, "some.setting.rpi is nan"),
    ],
)
def test_what_is_no_mapping_to_numbers_is_refused(numbers: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        require_numbers("some.setting", numbers, above=0)

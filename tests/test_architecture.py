"""The imports of the packages; the layers are contracts of import-linter (``make lint``)."""

import networkx as nx
import pytest

from tests.architecture import PACKAGES, circles, floors, read_architecture


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_and_no_folder_is_in_a_circle(package: str) -> None:
    found = read_architecture(package)
    assert found.imports.number_of_edges() > 20
    assert circles(found.imports) == circles(found.folders) == []


def test_only_the_two_ends_of_flower_are_at_the_root_of_the_app() -> None:
    assert read_architecture("fauno_flwr").at_root == ["client_app", "server_app"]


def test_the_measures_find_a_circle_and_count_floors() -> None:
    chain = nx.DiGraph([("a", "b"), ("b", "c"), ("a", "c")])
    assert (floors(chain), circles(chain)) == (3, [])
    chain.add_edge("c", "b")
    assert (floors(chain), circles(chain)) == (2, [["b", "c"]])

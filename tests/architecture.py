"""Print the architecture: ``python tests/architecture.py`` in a checkout.

For each package: modules, folders, arrows (imports between modules, and between folders), floors
(a module stands on a floor above all that it imports), circles, the largest module and function.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import networkx as nx

ROOT = Path(__file__).parents[1]
PACKAGES = ("fauno_flwr", "sim_env", "strategies")


@dataclass(frozen=True)
class Architecture:
    """The imports within a package.

    Parameters
    ----------
    modules : dict of str to Path
        Modules with more than a docstring, by dotted name.
    imports : nx.DiGraph
        An edge from a module to each that it imports.
    """

    modules: dict[str, Path]
    imports: nx.DiGraph

    @property
    def at_root(self) -> list[str]:
        """Names of the modules at the root of the package."""
        return sorted(
            path.stem
            for name, path in self.modules.items()
            if name.count(".") == 1 and path.stem != "__init__"
        )

    @property
    def folders(self) -> nx.DiGraph:
        """Imports between folders; a module at the root of the package counts as a folder."""
        graph = nx.DiGraph()
        graph.add_nodes_from(map(folder_of, self.modules))
        pairs = ((folder_of(a), folder_of(b)) for a, b in self.imports.edges)
        graph.add_edges_from((a, b) for a, b in pairs if a != b)
        return graph

    @property
    def functions(self) -> Iterator[tuple[int, str]]:
        """Lines and names of all functions, without decorators and docstrings."""
        for name, path in self.modules.items():
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef):
                    body = node.body[1:] if ast.get_docstring(node) else node.body
                    lines = node.end_lineno - body[0].lineno + 1 if body else 0
                    yield lines, f"{name}.{node.name}"


def folder_of(module: str) -> str:
    """Return the second part of a dotted name."""
    return module.split(".")[1] if "." in module else module


def read_architecture(package: str) -> Architecture:
    """Read the imports of a package from its sources, also those below functions."""
    modules = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if len(ast.parse(path.read_text()).body) > 1 or parts[-1] != "__init__":
            modules[name] = path
    graph = nx.DiGraph()
    graph.add_nodes_from(modules)
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                named = [f"{node.module}.{alias.name}" for alias in node.names]
                found = [each if each in modules else node.module for each in named]
            elif isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            else:
                continue
            graph.add_edges_from((name, each) for each in found if each in modules and each != name)
    return Architecture(modules, graph)


def floors(graph: nx.DiGraph) -> int:
    """Return the number of floors; a circle stands on one."""
    condensed = nx.condensation(graph)
    return nx.dag_longest_path_length(condensed) + 1 if len(condensed) else 0


def circles(graph: nx.DiGraph) -> list[list[str]]:
    """Return the groups of nodes that import each other."""
    return [sorted(c) for c in nx.strongly_connected_components(graph) if len(c) > 1]


def main() -> None:
    """Print a table."""
    rows = []
    for package in PACKAGES:
        found = read_architecture(package)
        sizes = {name: len(path.read_text().splitlines()) for name, path in found.modules.items()}
        largest = max(sizes, key=lambda name: sizes[name])
        lines, function = max(found.functions)
        folders = found.folders
        rows.append(
            {
                "package": package,
                "modules": len(found.modules),
                "at the root": len(found.at_root),
                "folders": len(folders),
                "arrows between modules": found.imports.number_of_edges(),
                "arrows between folders": folders.number_of_edges(),
                "floors of modules": floors(found.imports),
                "floors of folders": floors(folders),
                "circles": len(circles(found.imports)) + len(circles(folders)),
                "largest module": f"{largest} ({sizes[largest]} lines)",
                "largest function": f"{function} ({lines} lines)",
            }
        )
    width = max(map(len, rows[0]))
    for row in rows:
        for key, value in row.items():
            print(f"{key:<{width}}  {value}")
        print()


if __name__ == "__main__":
    main()

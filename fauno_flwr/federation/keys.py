"""The places of agents, bound to the public keys of their SuperNodes."""

import hashlib
import json
from pathlib import Path

from flwr.serverapp import Grid

from fauno_flwr.config.errors import ConfigError
from fauno_flwr.results.directory import write_atomically
from strategies.grid_protocols import keys_of


class NodeKeys:
    """The key that each agent's place is bound to: that of the first node in it.

    Parameters
    ----------
    path : Path, optional
        File in which the bindings are kept, for the runs that resume this training.

    Raises
    ------
    ConfigError
        If the file cannot be read.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path, self._bound = path, dict[int, str]()
        if path is None or not path.exists():
            return
        try:
            read = json.loads(path.read_text())
            self._bound = {int(agent): str(key) for agent, key in read.items()}
        except (OSError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"{str(path)!r} cannot be read: must be the keys that the agents are bound to"
            ) from error

    def fits(self, agent: int, node_id: int, grid: Grid) -> bool:
        """Return whether a node may have a place, and bind it to the node's key if it is free.

        Raises
        ------
        ConfigError
            If the grid knows no keys.
        """
        keys = keys_of(grid)
        if keys is None:
            raise ConfigError(
                "federation.bind_keys is True: must be false here, only the SuperLink of a "
                "deployment knows the keys of its SuperNodes"
            )
        key = keys.get(node_id)
        if not key:
            return False
        digest = hashlib.sha256(key).hexdigest()
        bound = self._bound.get(agent)
        # A key has one place: who has one does not get another one that is still free.
        if bound is not None or digest in self._bound.values():
            return bound == digest
        self._bound[agent] = digest
        if self._path is not None:
            write_atomically(self._path, json.dumps(self._bound, indent=2) + "\n")
        return True

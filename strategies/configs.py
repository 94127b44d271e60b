"""The config of the messages, which a subclass may change once for each version."""

from copy import deepcopy

from flwr.app import ConfigRecord


class VersionConfig:
    """A config whose changes count once for each version, however often it is handed out.

    Flower's documentation lets ``configure_train`` change it, for a learning rate that decays:
    what is changed in one round holds in those after it. Here that hook is called several times for
    a version.

    Parameters
    ----------
    config : ConfigRecord
        Of the first version; it is not changed.
    """

    def __init__(self, config: ConfigRecord) -> None:
        self._version = -1
        self._before = self._newest = config

    def of(self, version: int) -> ConfigRecord:
        """Return a copy of the config as the hook left it for the versions before this one."""
        if version != self._version:
            self._version, self._before = version, self._newest
        self._newest = deepcopy(self._before)
        return self._newest

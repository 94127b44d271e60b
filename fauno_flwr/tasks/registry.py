"""The task of a run."""

from fauno_flwr.config.settings import GYM, RunConfig
from fauno_flwr.tasks.base import Task
from fauno_flwr.tasks.edge import EdgeTask


def make_task(config: RunConfig) -> Task:
    """Make the task of the settings.

    Raises
    ------
    ConfigError
        If it cannot be.
    """
    if config.world.kind == GYM:
        from fauno_flwr.tasks.gym import GymTask

        return GymTask(config)
    return EdgeTask(config, config.build_scenario())

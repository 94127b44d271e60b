"""The task of a run."""

from fauno_flwr.config.settings import RunConfig
from fauno_flwr.tasks.base import Task
from fauno_flwr.tasks.edge import EdgeTask
from sim_env.scenario import Scenario


def make_task(config: RunConfig) -> Task:
    """Make the task of the settings; raise ``ConfigError`` if it cannot be."""
    return task_in(config, config.build_network())


def task_in(config: RunConfig, scenario: Scenario | None) -> Task:
    """Make the task of the settings in their world, of ``RunConfig.build_network``."""
    if scenario is not None:
        return EdgeTask(config, scenario)
    from fauno_flwr.tasks.gym import GymTask

    return GymTask(config)

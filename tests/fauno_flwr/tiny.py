"""Settings of runs that take a second, and the messages of their nodes."""

from flwr.app import Message, MessageType, RecordDict

from fauno_flwr.config.settings import RunConfig
from fauno_flwr.federation.protocol import ARRAYS, CONFIG, settings_record
from fauno_flwr.learning.ppo import Population
from strategies.arrays import to_record
from strategies.grids import InMemoryGrid

TINY = [
    "topology=ether1",
    "training.worlds=2",
    "training.warmup=10",
    "training.ticks=40",
    "federation.versions=4",
    "federation.wait_for_nodes=2",
    "federation.collect_actors=true",
    "evaluation.worlds=2",
    "evaluation.warmup=20",
    "evaluation.window=60",
]
AGENTS = 6


def train_message(grid: InMemoryGrid, config: RunConfig, node: int, version: int) -> Message:
    critic = Population(1, config.agent, config.seed).get_critic()
    record = settings_record(config.to_yaml())
    record["base-version"] = version
    content = RecordDict({ARRAYS: to_record(critic), CONFIG: record})
    return Message(content, 1000 + node, MessageType.TRAIN, ttl=60)


def ask(grid: InMemoryGrid, message: Message) -> Message:
    (reply,) = grid.send_and_receive([message])
    return reply

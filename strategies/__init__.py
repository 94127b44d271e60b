"""Asynchronous federated strategies for Flower.

:class:`BufferedAsync` and its presets are used like any strategy of Flower; see
``docs/strategies.md``. :class:`InMemoryGrid` runs a whole federation in one process, for tests.
"""

from strategies.adaptive_clip import AdaptiveClip
from strategies.buffered_async import BufferedAsync
from strategies.checkpoint import CheckpointError, Checkpoints
from strategies.compression import Int8, TopK, compress_update, compression_mod
from strategies.failures import TrainingFailedError
from strategies.gossip import gossip_mod
from strategies.gossip_strategy import Gossip
from strategies.grids import InMemoryGrid
from strategies.guard import Guard
from strategies.latency import Latency, Trace
from strategies.ledger import noise_multiplier_for
from strategies.merge import Mean, Median, NormFiltered, TrimmedMean
from strategies.optimizers import SGD, Adam
from strategies.post_office import GossipResult
from strategies.presets import FAuNO, FedAsync, FedBuff, SyncBuffered
from strategies.privacy import CentralPrivacy, LocalPrivacy
from strategies.private_updates import private_mod
from strategies.result import TrainingResult
from strategies.staleness import Constant, CutOff, Hinge, Polynomial
from strategies.virtual_time import VirtualTimeGrid

__all__ = [
    "SGD",
    "Adam",
    "AdaptiveClip",
    "BufferedAsync",
    "CentralPrivacy",
    "CheckpointError",
    "Checkpoints",
    "Constant",
    "CutOff",
    "FAuNO",
    "FedAsync",
    "FedBuff",
    "Gossip",
    "GossipResult",
    "Guard",
    "Hinge",
    "InMemoryGrid",
    "Int8",
    "Latency",
    "LocalPrivacy",
    "Mean",
    "Median",
    "NormFiltered",
    "Polynomial",
    "SyncBuffered",
    "TopK",
    "Trace",
    "TrainingFailedError",
    "TrainingResult",
    "TrimmedMean",
    "VirtualTimeGrid",
    "compress_update",
    "compression_mod",
    "gossip_mod",
    "noise_multiplier_for",
    "private_mod",
]

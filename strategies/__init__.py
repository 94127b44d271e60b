"""Asynchronous federated strategies for Flower.

``from strategies import BufferedAsync`` and use it where a Flower strategy is used.
"""

from strategies.buffered_async import BufferedAsync

__all__ = ["BufferedAsync"]

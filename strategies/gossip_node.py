"""What one node of a gossip keeps and decides, without a network and without a server."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from strategies.checks import require_choice
from strategies.gossip import merge_models, metropolis_weights

MIXINGS = METROPOLIS, PUSH_SUM = ("metropolis", "push-sum")


@dataclass(frozen=True)
class Letter:
    """A model on its way from one node to another.

    Parameters
    ----------
    sender : int
    model : dict of str to array
    degree : int
        Neighbours of the sender.
    steps : float
        Steps of its last training.
    age : float
        Trainings behind the model: its own, and those merged into it, on average.
    mass : float, default 0.0
        Share of the sender's mass that comes with it, with push-sum.
    """

    sender: int
    model: Mapping[str, np.ndarray]
    degree: int
    steps: float
    age: float
    mass: float = 0.0


def push_sum_weights(mass: float, others: Sequence[float]) -> list[float]:
    """Compute the weights of models that arrive with a mass in the merge of a node.

    A node that holds the mass w_i and receives w_j merges by ``w_j / (w_i + sum_j w_j)``, and holds
    ``w_i + sum_j w_j`` then (Kempe, Dobra and Gehrke 2003). The sum of all masses, those of letters
    on their way included, stays the same, and so does the mean of all models weighted by mass:
    on any graph, also a directed one, and whoever sends how often.

    Parameters
    ----------
    mass : float
        The node's own, above 0.
    others : sequence of float
        Those that arrived.

    Returns
    -------
    list of float
        The weight of the node's own model is what is missing to 1.
    """
    total = mass + sum(others)
    return [other / total for other in others]


class GossipNode:
    """A node's model, and the buffer of its neighbours' newest ones.

    Parameters
    ----------
    number : int
        Of the node, unique.
    model : dict of str to array
    degree : int
        Its neighbours.
    mixing : str, default "metropolis"
        ``metropolis``: :func:`strategies.gossip.metropolis_weights`, for graphs whose edges work in
        both directions. ``push-sum``: :func:`push_sum_weights`, for any.
    staleness : callable, optional
        Factor of a weight by how many trainings the neighbour's model is behind this one, with
        ``metropolis``; default: 1.

    Attributes
    ----------
    steps, age, mass : float
        As of :class:`Letter`.
    inbox : dict of int to Letter
        By sender.
    """

    def __init__(
        self,
        number: int,
        model: Mapping[str, np.ndarray],
        degree: int,
        *,
        mixing: str = METROPOLIS,
        staleness: Callable[[int], float] | None = None,
    ) -> None:
        require_choice("mixing", mixing, MIXINGS)
        self.number, self.model, self.degree = number, dict(model), degree
        self.mixing, self.staleness = mixing, staleness or (lambda tau: 1.0)
        self.steps, self.age, self.mass = 0.0, 0.0, 1.0
        self.inbox: dict[int, Letter] = {}

    def receive(self, letter: Letter) -> None:
        """Buffer a letter: the newest of a sender replaces the one before.

        With push-sum it is added to it, since no mass may be lost.
        """
        before = self.inbox.get(letter.sender)
        if self.mixing == PUSH_SUM and before is not None:
            (weight,) = push_sum_weights(before.mass, [letter.mass])
            letter = Letter(
                letter.sender,
                merge_models(before.model, [letter.model], [weight]),
                letter.degree,
                letter.steps,
                before.age + weight * (letter.age - before.age),
                before.mass + letter.mass,
            )
        self.inbox[letter.sender] = letter

    def merge(self) -> list[int]:
        """Merge the buffered models into the node's own, and empty the buffer.

        Returns
        -------
        list of int
            Staleness of each: how many trainings it was behind this node's.
        """
        letters = [letter for _, letter in sorted(self.inbox.items())]
        self.inbox.clear()
        behind = [max(0, round(self.age - letter.age)) for letter in letters]
        if self.mixing == PUSH_SUM:
            masses = [letter.mass for letter in letters]
            weights = push_sum_weights(self.mass, masses)
            self.mass += sum(masses)
        else:
            known = [(letter.degree, letter.steps) for letter in letters]
            found = metropolis_weights(self.degree, self.steps, known)
            weights = [w * self.staleness(tau) for w, tau in zip(found, behind, strict=True)]
        self.model = merge_models(self.model, [letter.model for letter in letters], weights)
        pairs = zip(weights, letters, strict=True)
        self.age += sum(weight * (letter.age - self.age) for weight, letter in pairs)
        return behind

    def trained(self, model: Mapping[str, np.ndarray], steps: float) -> None:
        """Replace the node's model by the one that it has trained."""
        self.model, self.steps, self.age = dict(model), steps, self.age + 1

    def letter(self, receivers: int) -> Letter:
        """Return what it sends to each of so many nodes; with push-sum they share its mass."""
        share = 0.0
        if self.mixing == PUSH_SUM:
            share = self.mass = self.mass / (1 + receivers)
        return Letter(self.number, self.model, self.degree, self.steps, self.age, share)

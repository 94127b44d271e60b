"""How many nodes take part in a round or an evaluation, by the arguments of Flower's FedAvg."""


def sample_size(fraction: float, least: int, nodes: int) -> int:
    """Return how many of so many nodes are drawn.

    Parameters
    ----------
    fraction : float
        Of the nodes, rounded down; 0: none.
    least : int
        Drawn in any case, if there are as many.
    nodes : int
        Nodes that take part.
    """
    return min(nodes, max(int(fraction * nodes), least)) if fraction > 0 else 0

"""A small Flower app: a network learns a function of which each node has seen a part."""

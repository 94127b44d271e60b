"""A small Flower app: a network learns a function; each node has a part of the data."""

"""A shared body, and a head of each node."""

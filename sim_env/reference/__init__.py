"""The world in plain Python: the specification of the engine."""

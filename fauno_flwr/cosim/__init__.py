"""Co-simulation: all agents learn in one simulated network under virtual time."""

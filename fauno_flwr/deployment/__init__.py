"""Processes of Flower: a private engine, a whole deployment on loopback, keys."""

"""Trainers that a user could pick for this environment, and ours."""

"""Heuristics that decide where a task goes."""

"""Boosted trees in arrays that do not grow."""

"""Local differential privacy."""

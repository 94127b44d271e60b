"""A mod that logs every training."""

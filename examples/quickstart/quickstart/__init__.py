"""Digits with a small torch network."""

"""The command ``fauno``."""

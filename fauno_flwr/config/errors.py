"""The error of a setting that cannot be."""


class ConfigError(ValueError):
    """A setting that is not allowed; the text is one sentence for the user."""

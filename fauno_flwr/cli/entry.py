"""The entry point of ``fauno``: stop signals are handled before anything else is imported."""

import sys

from fauno_flwr.cli.signals import exit_at_once


def main() -> None:
    """Run the command."""
    exit_at_once()
    try:
        from fauno_flwr.cli.main import app
    except ImportError as error:
        # FlowerVersionError, which cannot be imported here: its own module raises it.
        if isinstance(error, ModuleNotFoundError) or type(error) is ImportError:
            raise
        sys.exit(f"fauno: {error}")

    sys.exit(app())

"""The entry point of ``fauno``: stop signals are handled before anything else is imported."""

import sys

from fauno_flwr.cli.signals import exit_at_once


def main() -> None:
    """Run the command."""
    exit_at_once()
    from fauno_flwr.cli.main import app

    sys.exit(app())

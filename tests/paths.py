"""Where tests find the checkout, and reference data that do not belong to it."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"  # absent outside of the project's own machines

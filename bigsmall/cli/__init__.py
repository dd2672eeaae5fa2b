"""The command line: thin, and quick to start; everything heavy is imported by the command that needs it."""

from . import doctor, info, measure, synthesize, train, weights  # each registers its commands
from .common import app

__all__ = ["app", "doctor", "info", "main", "measure", "synthesize", "train", "weights"]


def main() -> None:
    """What the installed command `bigsmall` runs."""
    app(prog_name="bigsmall")

"""The command line: thin, and quick to start; everything heavy is imported by the command that needs it."""

from . import (  # each registers its commands
    doctor,
    evaluate,
    held_out,
    info,
    measure,
    prepare,
    protocol,
    stress,
    synthesize,
    train,
    weights,
)
from .common import app

__all__ = [
    "app",
    "doctor",
    "evaluate",
    "held_out",
    "info",
    "main",
    "measure",
    "prepare",
    "protocol",
    "stress",
    "synthesize",
    "train",
    "weights",
]


def main() -> None:
    """What the installed command `bigsmall` runs."""
    app(prog_name="bigsmall")

"""Training: simulated videos, the paper's losses and optimiser, and a weight file with its card out."""

from .run import train

__all__ = ["train"]

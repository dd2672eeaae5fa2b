"""Training: any network of the registry on prepared recordings, to a weight file with its card."""

from .config import Config
from .run import train

__all__ = ["Config", "train"]

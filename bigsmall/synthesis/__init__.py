"""The face-video simulator: videos whose pulse, breathing and facial action units are known."""

from .codec import compressed
from .many import in_parallel, people, synthesize_many
from .negatives import NEGATIVES, negatives
from .physiology import AUS, Truth
from .simulator import Simulation, synthesize

__all__ = [
    "AUS",
    "NEGATIVES",
    "Simulation",
    "Truth",
    "compressed",
    "in_parallel",
    "negatives",
    "people",
    "synthesize",
    "synthesize_many",
]

"""The face-video simulator: videos whose pulse, breathing and facial action units are known."""

from .codec import compressed
from .physiology import AUS, Truth
from .simulator import Simulation, synthesize

__all__ = ["AUS", "Simulation", "Truth", "compressed", "synthesize"]

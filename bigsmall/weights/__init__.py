"""Weight files and what they are for: safetensors with a card, and the authors' .pth files (FACTS 2).

A card says which network the weights fit, which input convention and crop they were trained with, and what comes out::

    predictor = bigsmall.weights.load("default")
    predictor = bigsmall.weights.load("au=Big_AU.pth,pulse=Small_Heart.pth,respiration=Small_Resp.pth")
    au, bvp, respiration = predictor(big, small)      # None where a task is missing

    bigsmall.weights.download("bigsmall-fold1", accept_licence=True)      # then load("bigsmall-fold1")
"""

from ..models import TASKS
from .card import ACTION_UNITS, OUTPUTS, Card
from .convert import convert
from .download import cached, download
from .files import load_network, save
from .predictor import Predictor, find, load, names
from .released import RELEASED, Released

__all__ = [
    "ACTION_UNITS",
    "OUTPUTS",
    "RELEASED",
    "TASKS",
    "Card",
    "Predictor",
    "Released",
    "cached",
    "convert",
    "download",
    "find",
    "load",
    "load_network",
    "names",
    "save",
]

"""The networks, by name::

model = bigsmall.models.build("bigsmall", n_segment=3)
au, bvp, respiration = model(big, small)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from .bigsmall import BigSmall
from .cost import Cost, Layer, cost
from .network import TASKS, Network, answer
from .single import Big, Small

__all__ = [
    "TASKS",
    "Big",
    "BigSmall",
    "Cost",
    "Layer",
    "Network",
    "Small",
    "answer",
    "build",
    "cost",
    "describe",
    "names",
]

_MODELS: dict[str, Callable[..., Network]] = {
    "bigsmall": BigSmall,
    "bigsmall_tsm": partial(BigSmall, shift="tsm"),
    "bigsmall_noshift": partial(BigSmall, shift="none"),
    "bigsmall_full": partial(BigSmall, big_every=1),
    "bigsmall_full_noshift": partial(BigSmall, big_every=1, shift="none"),
    "big": Big,
    "small": Small,
}


def names() -> list[str]:
    """The names that `build` takes."""
    return list(_MODELS)


def build(name: str, **options: Any) -> Network:
    """A network with random weights, in training mode.

    Args:
        name: one of `names()`. `bigsmall` is the paper's (WTSM, Big on the first frame of every clip), `bigsmall_tsm`
            and `bigsmall_noshift` change the shift, `bigsmall_full` and `bigsmall_full_noshift` run Big on every frame
            (Table 1); `big` and `small` are the single-task networks.
        options: as the classes `BigSmall`, `Big` and `Small` take them, such as n_segment, big_every, out_size.
    Raises:
        ValueError: an unknown name, or an option outside its range.
        TypeError: an option that the network does not have.
    """
    if name not in _MODELS:
        raise ValueError(f"no model is called {name!r}; there are {', '.join(names())}")
    known = inspect.signature(_MODELS[name]).parameters
    if unknown := [option for option in options if option not in known]:
        raise TypeError(f"model {name!r} has no option {', '.join(unknown)}; its options are {', '.join(known)}")
    return _MODELS[name](**options)


def describe(name: str, **options: Any) -> Cost:
    """Layers, shapes, parameters and operations of a network, in the paper's counting convention (FACTS 1.3)."""
    return cost(build(name, **options))

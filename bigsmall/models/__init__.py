"""The networks, by name::

model = bigsmall.models.build("bigsmall", n_segment=3)
au, bvp, respiration = model(big, small)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from .action_units import DRML, AlexNet
from .attention import EfficientPhys, FromBig, TwoTowers
from .bigsmall import BigSmall
from .bigsmall_plus import BigSmallPlus
from .cost import Cost, Layer, cost
from .fusion import BigToSmall, ConcatFusion, GreyBig, Lateral, SmallToBig
from .jaanet import JAANet
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
    "bigsmall_concat": ConcatFusion,
    "bigsmall_lateral": Lateral,
    "bigsmall_big2small": BigToSmall,
    "bigsmall_small2big": SmallToBig,
    "bigsmall_grey": GreyBig,
    "big": Big,
    "small": Small,
    "deepphys": TwoTowers,
    "tscan": partial(TwoTowers, n_segment=10, shift="tsm"),
    "mttscan": partial(TwoTowers, task=None, n_segment=10, shift="tsm"),
    "efficientphys": EfficientPhys,
    "deepphys9": FromBig,
    "mttscan9": partial(FromBig, task=None, n_segment=3, shift="tsm"),
    "tscan9": partial(TwoTowers, size=9, n_segment=3, shift="tsm", pooling=False, dropout=0.8),
    "drml": DRML,
    "alexnet": AlexNet,
    "jaanet": partial(JAANet, version=1),
    "jaanet2": JAANet,
    "bigsmall_plus": BigSmallPlus,
}


def names() -> list[str]:
    """The names that `build` takes."""
    return list(_MODELS)


def build(name: str, **options: Any) -> Network:
    """A network with random weights, in training mode.

    Args:
        name: one of `names()`. `bigsmall` is the paper's (WTSM, Big on the first frame of every clip), `bigsmall_tsm`
            and `bigsmall_noshift` change the shift, `bigsmall_full` and `bigsmall_full_noshift` run Big on every frame
            (Table 1); `bigsmall_concat`, `_lateral`, `_big2small`, `_small2big` join the branches otherwise and
            `_grey` takes the colour from Big; `big` and `small` are the single-task networks. To compare with (Tables 2
            to 4, Fig. 5): `deepphys`, `tscan`, `mttscan` and `efficientphys` as rPPG-Toolbox has them, `deepphys9` and
            `mttscan9` as BigSmall's authors shrank them, `tscan9` without pooling; `drml`, `alexnet`,
            `jaanet` and `jaanet2`; `bigsmall_plus` has the last for Big.
        options: as the network's class takes them, such as n_segment, big_every, out_size, size, task.
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

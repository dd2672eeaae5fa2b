"""The network that learns: how it starts, and how it is run while it learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .. import models, weights
from ..models import BigSmall, Network
from ..models.jaanet import unit_branches
from .config import Config


def start(config: Config, tell: Callable[[str], None]) -> Network:
    """The network before its first step; `tell` hears what did not come from `init_from`.

    Raises:
        ValueError: no such network, option, weights or parameters, tasks that it does not answer, or other clips of
            Small for a network without two separate branches.
    """
    torch.manual_seed(config.seed)
    try:
        model = models.build(config.model.name, **config.model.options)
    except TypeError as error:
        raise ValueError(f"model.options: {error}") from error
    if strange := [task for task in config.tasks or () if task not in model.tasks]:
        raise ValueError(f"tasks: {config.model.name} answers {', '.join(model.tasks)}, not {', '.join(strange)}")
    if config.clips > 1 and not separate(model):
        what = config.model.name
        raise ValueError(f"clips was {config.clips}, expected 1: in {what} Big and Small are not two separate branches")
    if config.init == "kaiming":  # torch's own start lets Big's signal fade over its six layers
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
    if config.init_from is not None:
        _take_over(model, config.init_from, tell)
    for pattern in config.freeze:
        names = [name for name, _ in model.named_parameters() if fnmatch(name, pattern)]
        if not names:
            raise ValueError(f"freeze: no parameter of {config.model.name} is called {pattern!r}")
        for name in names:
            model.get_parameter(name).requires_grad_(False)
    return model


def _take_over(model: Network, source: str, tell: Callable[[str], None]) -> None:
    """Copy the tensors that have the same name and shape; of JAA-Net, its units' branches by the units' names."""
    folder = Path(source)
    path = folder / "model.safetensors" if folder.is_dir() else weights.find(source)
    network = weights.load_network(path)[0]
    found, own = network.state_dict(), model.state_dict()
    same = {name: value for name, value in found.items() if name in own and own[name].shape == value.shape}
    if not same:
        raise ValueError(f"init_from: nothing in {path} fits; it is another network")
    if model.also and network.also:
        same |= unit_branches(model, network)
    model.load_state_dict(same, strict=False)
    if new := [name for name in own if name not in same]:
        tell(f"init_from: {len(same)} tensors from {path}; these start anew: {', '.join(new)}")


def separate(model: nn.Module) -> bool:
    """Whether Big and Small are two branches that meet at their ends only, so that other clips of Small fit to Big."""
    return getattr(type(model), "maps", None) is BigSmall.maps


def learning(model: nn.Module, dropout: bool) -> None:
    """Training mode; without dropout, for everything but batch normalisation's statistics, the mode of inference."""
    model.train(dropout)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.train()


def answers(model: Network, clips: int, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """The outputs by task, where `inputs` has so many clips of Small for each of Big's."""
    if model.also:
        taught: Any = model.taught
        return dict(zip(model.tasks, taught(*(inputs[name] for name in model.reads)), strict=True))
    if clips == 1:
        return models.answer(model, inputs)
    assert isinstance(model, BigSmall)
    big, small = model.big_maps(inputs["big"]), model.small_maps(inputs["small"])
    read = model.n_segment // model.big_every
    big = big.unflatten(0, (-1, read)).repeat_interleave(clips, 0).flatten(0, 1)
    return dict(zip(model.tasks, model.heads(big, small), strict=True))

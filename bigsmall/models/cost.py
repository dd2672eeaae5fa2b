"""What a model costs, layer by layer, as the paper counts it (FACTS 1.3)."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from .bigsmall import HEADS
from .branches import BIG_BLOCKS, SMALL_CONVS, BigBranch, SmallBranch

CONVENTION = (
    "flopth: a multiply-add counts once; convolutions add one for each bias addition, a pooling counts its inputs, "
    "linear layers leave out the bias; shifts, activations, dropout and sums count nothing. MACs: multiply-adds alone."
)


class Layer(NamedTuple):
    """One layer; `flops` and `macs` are of one run, `runs` the times it runs for a clip."""

    name: str
    output_shape: tuple[int, ...]
    parameters: int
    runs: int
    flops: int
    macs: int


class Cost(NamedTuple):
    """The layers of a model and the totals of a clip of `frames` frames."""

    layers: tuple[Layer, ...]
    frames: int
    convention: str = CONVENTION

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def flops_per_clip(self) -> int:
        return sum(layer.runs * layer.flops for layer in self.layers)

    @property
    def macs_per_clip(self) -> int:
        return sum(layer.runs * layer.macs for layer in self.layers)

    @property
    def flops_per_frame(self) -> float:
        return self.flops_per_clip / self.frames

    @property
    def macs_per_frame(self) -> float:
        return self.macs_per_clip / self.frames


def _convolution(model: nn.Module, name: str, size: int, runs: int) -> Layer:
    weight = model.get_parameter(f"{name}.weight")
    outputs = weight.shape[0] * size * size
    macs = outputs * weight[0].numel()
    return Layer(name, (weight.shape[0], size, size), weight.numel() + weight.shape[0], runs, macs + outputs, macs)


def _linear(model: nn.Module, name: str, runs: int) -> Layer:
    weight = model.get_parameter(f"{name}.weight")
    return Layer(name, (weight.shape[0],), weight.numel() + weight.shape[0], runs, weight.numel(), weight.numel())


def cost(model: nn.Module) -> Cost:
    """Layers and totals of any model that `build` returns. Every head runs for every frame, as released."""
    frames: int = getattr(model, "n_segment", 1)
    layers = []
    if isinstance(model, BigBranch):
        size, runs = model.big_size, frames // getattr(model, "big_every", 1)
        for block, (convolutions, (_, _, channels), pool, _) in enumerate(BIG_BLOCKS, start=1):
            layers += [_convolution(model, name, size, runs) for name in convolutions]
            inputs, size = channels * size * size, size // pool
            layers.append(Layer(f"big_pool{block}", (channels, size, size), 0, runs, inputs, 0))
    if isinstance(model, SmallBranch):
        layers += [_convolution(model, name, model.small_size, frames) for name, _, _ in SMALL_CONVS]
    for task in (*HEADS, "out"):
        if hasattr(model, f"{task}_fc1"):
            layers += [_linear(model, f"{task}_fc{i}", frames) for i in (1, 2)]
    return Cost(tuple(layers), frames)

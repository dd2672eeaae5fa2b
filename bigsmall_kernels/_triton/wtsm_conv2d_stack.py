"""A whole Small trunk, layer by layer: on an H200 one kernel that keeps a clip on chip took 6 to 12 times as long."""

from __future__ import annotations

import torch
from torch import Tensor

from ..reference import memory_format
from .wtsm_conv2d import convolve


def wtsm_conv2d_stack(
    x: Tensor, weights: list[Tensor], biases: list[Tensor], n_segment: int, fold_div: int, wrap: bool, activation: str,
    packed: Tensor | None,
) -> Tensor:  # fmt: skip
    """`reference.wtsm_conv2d_stack`; what lies between layers is channels last: a tap's channels are neighbours."""
    layouts = [torch.channels_last] * (len(weights) - 1) + [memory_format(x)]
    for weight, bias, layout in zip(weights, biases, layouts, strict=True):
        x = convolve(
            x, None, weight, bias, [1, 1], layout, n_segment=n_segment, fold=x.shape[1] // fold_div, wrap=wrap,
            activation=activation,
        )  # fmt: skip
    return x

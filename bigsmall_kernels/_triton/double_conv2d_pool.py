"""A block of the Big branch: the first convolution, then the second with its pooling in one kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from ..reference import memory_format
from .wtsm_conv2d import convolve, matrix


def double_conv2d_pool(
    x: Tensor, weight1: Tensor, bias1: Tensor | None, weight2: Tensor, bias2: Tensor | None, pool: int,
    packed: Tensor | None,
) -> Tensor:  # fmt: skip
    """`reference.double_conv2d_pool`; what lies between is channels last: the channels of a tap are neighbours."""

    def layer(x: Tensor, weight: Tensor, bias: Tensor | None, pool: int, layout: torch.memory_format) -> Tensor:
        shape = (x.shape[0], weight.shape[0], x.shape[2] // pool, x.shape[3] // pool)
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
        bias = None if bias is None else bias.contiguous()
        return convolve(x, None, matrix(weight), bias, out, (3, 3), [1, 1], activation="relu", pool=pool)

    return layer(layer(x, weight1, bias1, 1, torch.channels_last), weight2, bias2, pool, memory_format(x))

"""A block of the Big branch: the first convolution, then the second with its pooling in one kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from ..reference import memory_format
from .wtsm_conv2d import convolve


def double_conv2d_pool(
    x: Tensor, weight1: Tensor, bias1: Tensor | None, weight2: Tensor, bias2: Tensor | None, pool: int,
    packed: Tensor | None,
) -> Tensor:  # fmt: skip
    """`reference.double_conv2d_pool`; what lies between is channels last: the channels of a tap are neighbours."""
    between = convolve(x, None, weight1, bias1, [1, 1], torch.channels_last, activation="relu")
    return convolve(between, None, weight2, bias2, [1, 1], memory_format(x), activation="relu", pool=pool)

"""What the Triton kernels share: activations, precision, and the block sizes."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._choosers import INTERPRETED, tf32

TL = {
    torch.float32: tl.float32,
    torch.float64: tl.float64,
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
}


def dot_dtype(x: Tensor) -> tl.dtype:
    """What products are taken in; the interpreter's bfloat16 arithmetic is wrong."""
    return tl.float32 if INTERPRETED and x.dtype == torch.bfloat16 else TL[x.dtype]


def dot_precision() -> str:
    """How float32 is multiplied."""
    return "tf32" if tf32() else "ieee"


def index_dtype(*tensors: Tensor) -> tl.dtype:
    """What offsets are counted in: 32 bits take half the registers, and do where no tensor spans 2^31 elements."""
    spans = (sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True)) for t in tensors)
    return tl.int32 if max(spans) < 2**31 - 1 else tl.int64


class Blocks(NamedTuple):
    """Rows (pixels), columns (filters) and depth of a product's tile, the warps that share it, loads on their way."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int = 3


FEW, MANY = 1 << 13, 1 << 17  # pixels
SHALLOW = 32  # a product of one step: taps times channels
# (rows, depth, warps, stages) of half precision and TF32 for few, some and many pixels; of shallow and deep products:
# the best of some for the network's layers at 1, 16 and 256 clips in bfloat16 (bench/results/nvidia-h200/tiles.json).
TILES = {
    "few": {True: (32, 32, 4, 1), False: (16, 64, 4, 4)},
    "some": {True: (128, 32, 4, 1), False: (64, 32, 4, 3)},
    "many": {True: (128, 32, 4, 1), False: (128, 32, 4, 4)},
}


def blocks(x: Tensor, pixels: int, filters: int, terms: int, *, masked: bool = False) -> Blocks:
    """The one table of a convolution's tiles. Full float32, without tensor cores: at most 32 sums a thread, and enough
    programs for every multiprocessor where there are few pixels. `masked`: more is loaded or asked of each value, an
    activation's output or whether a shift has left the clip; many rows then need twice as many warps' registers."""
    columns = min(max(triton.next_power_of_2(filters), 16), 64)
    if x.dtype == torch.float32 and dot_precision() == "ieee":
        return Blocks(32, columns, 32, 4) if pixels < FEW else Blocks(64, columns, 16, 8)
    size = "few" if pixels < FEW else "some" if pixels < MANY else "many"
    rows, steps, warps, stages = TILES[size][terms <= SHALLOW]
    if masked and rows > 64:
        warps, stages = 8, min(stages, 3)
    return Blocks(rows, columns, steps if x.dtype != torch.float32 else min(steps, 32), warps, stages)


@triton.jit
def tanh(x):
    """By exponentials; by its series near 0, where they cancel."""
    t = tl.exp(-2 * tl.abs(x))
    far = (1 - t) / (1 + t)
    s = x * x
    near = x * (1 + s * (-1 / 3 + s * (2 / 15 + s * (-17 / 315))))
    return tl.where(tl.abs(x) < 0.2, near, tl.where(x < 0, -far, far))


@triton.jit
def elu(x):
    """exp(x) - 1 below 0; by its series near 0, where the difference cancels."""
    low = tl.minimum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)
    near = low * (1 + low * (1 / 2 + low * (1 / 6 + low * (1 / 24 + low * (1 / 120 + low / 720)))))
    return tl.where(x > 0, x, tl.where(low > -0.25, near, tl.exp(low) - 1))


@triton.jit
def activate(x, ACTIVATION: tl.constexpr):
    """The activation of a float32 tile; NaN stays NaN."""
    if ACTIVATION == "relu":
        x = tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)
    elif ACTIVATION == "tanh":
        x = tanh(x)
    elif ACTIVATION == "elu":
        x = elu(x)
    return x


@triton.jit
def activation_backward(grad, y, ACTIVATION: tl.constexpr):
    """The gradient at an activation's input, from that at its output y (`reference.activation_backward`)."""
    if ACTIVATION == "relu":
        grad = tl.where(y > 0, grad, 0.0)
    elif ACTIVATION == "tanh":
        grad = grad * (1 - y * y)
    elif ACTIVATION == "elu":
        grad = tl.where(y > 0, grad, grad * (y + 1))
    return grad

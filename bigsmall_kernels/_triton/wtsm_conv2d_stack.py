"""A whole Small trunk: a program keeps a clip on chip through all layers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..reference import memory_format
from .common import activate, dot_dtype, dot_precision
from .wtsm_conv2d import convolve

ROWS = 256  # pixels of a clip at most that stay on chip: three frames of 9x9 are 243
COLUMNS = 32  # channels between layers at most, and of the last layer that are computed together


@triton.jit
def _filters(
    tile, weight, bias, i, n, area, height, width, C: tl.constexpr, F: tl.constexpr, N_SEGMENT: tl.constexpr,
    FOLD_DIV: tl.constexpr, WRAP: tl.constexpr, ACTIVATION: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Pixels i and filters n of a layer from C to F channels, over a tile of all pixels (t, row, column) by channels.

    A tap is the tile with its rows moved: `gather` finds, for each pixel and channel, the neighbour in the frame that
    the shift names.
    """
    k = tl.arange(0, tile.shape[1])
    t, row, column = i // area, i % area // width, i % width
    inside = t < N_SEGMENT
    fold: tl.constexpr = C // FOLD_DIV
    ahead, behind = (k < fold)[None, :], ((k >= fold) & (k < 2 * fold))[None, :]
    last, first = (t == N_SEGMENT - 1)[:, None], (t == 0)[:, None]
    shift = tl.where(ahead, tl.where(last, 1 - N_SEGMENT, 1), tl.where(behind, tl.where(first, N_SEGMENT - 1, -1), 0))
    pixel = i[:, None] + shift * area
    sums = tl.zeros([i.shape[0], n.shape[0]], tl.float32)
    for tap in tl.range(9, num_stages=1):
        down, right = tap // 3 - 1, tap % 3 - 1
        r, s = row + down, column + right
        seen = (inside & (r >= 0) & (r < height) & (s >= 0) & (s < width))[:, None]
        if not WRAP:
            seen = seen & ~((ahead & last) | (behind & first))
        a = tl.gather(tile, tl.where(seen, pixel + (down * width + right), 0), 0)
        taps = n[None, :] * (9 * C) + 9 * k[:, None] + tap
        b = tl.load(weight + taps, (k < C)[:, None] & (n < F)[None, :], other=0)
        sums = tl.dot(tl.where(seen, a, 0.0).to(tile.dtype), b.to(tile.dtype), sums, input_precision=PRECISION)
    sums += tl.load(bias + n, n < F, other=0).to(tl.float32)[None, :]
    return activate(sums, ACTIVATION).to(tile.dtype)


@triton.jit
def _stack(
    x, weights, biases, out, area, height, width, xn, xc, xh, xw, on, oc, oh, ow,
    CHANNELS: tl.constexpr, TILES: tl.constexpr, LAYERS: tl.constexpr, N_SEGMENT: tl.constexpr,
    FOLD_DIV: tl.constexpr, WRAP: tl.constexpr, ACTIVATION: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """One clip, CHANNELS[layer] of its channels in a tile of TILES[layer] columns.

    Half of the pixels are computed at a time, and TILES[-1] of the last layer's filters: all at once takes more
    registers than there are.
    """
    clip = tl.program_id(0).to(tl.int64) * N_SEGMENT
    i, half = tl.arange(0, ROWS), tl.arange(0, ROWS // 2)
    c = tl.arange(0, TILES[0])
    pixel = (clip + i // area) * xn + (i % area // width).to(tl.int64) * xh + (i % width).to(tl.int64) * xw
    values = pixel[:, None] + (c.to(tl.int64) * xc)[None, :]
    tile = tl.load(x + values, (i // area < N_SEGMENT)[:, None] & (c < CHANNELS[0])[None, :], other=0).to(DOT)
    for layer in tl.static_range(LAYERS - 1):
        n = tl.arange(0, TILES[layer + 1])
        upper = _filters(
            tile, weights[layer], biases[layer], half, n, area, height, width, CHANNELS[layer], CHANNELS[layer + 1],
            N_SEGMENT, FOLD_DIV, WRAP, ACTIVATION, PRECISION,
        )  # fmt: skip
        lower = _filters(
            tile, weights[layer], biases[layer], ROWS // 2 + half, n, area, height, width, CHANNELS[layer],
            CHANNELS[layer + 1], N_SEGMENT, FOLD_DIV, WRAP, ACTIVATION, PRECISION,
        )  # fmt: skip
        tile = tl.join(upper, lower).permute(2, 0, 1).reshape(ROWS, TILES[layer + 1])
    for start in range(0, CHANNELS[LAYERS], TILES[LAYERS]):
        filters = start + tl.arange(0, TILES[LAYERS])
        for first in range(0, ROWS, ROWS // 2):
            p = first + half
            result = _filters(
                tile, weights[LAYERS - 1], biases[LAYERS - 1], p, filters, area, height, width, CHANNELS[LAYERS - 1],
                CHANNELS[LAYERS], N_SEGMENT, FOLD_DIV, WRAP, ACTIVATION, PRECISION,
            )  # fmt: skip
            target = (clip + p // area) * on + (p % area // width).to(tl.int64) * oh + (p % width).to(tl.int64) * ow
            offset = target[:, None] + (filters.to(tl.int64) * oc)[None, :]
            tl.store(out + offset, result, (p // area < N_SEGMENT)[:, None] & (filters < CHANNELS[LAYERS])[None, :])


def wtsm_conv2d_stack(
    x: Tensor, weights: list[Tensor], biases: list[Tensor], n_segment: int, fold_div: int, wrap: bool, activation: str,
    packed: Tensor | None,
) -> Tensor:  # fmt: skip
    """`reference.wtsm_conv2d_stack`: a clip a program where one fits on chip, else layer by layer."""
    channels = (x.shape[1], *(weight.shape[0] for weight in weights))
    area = x.shape[2] * x.shape[3]
    if n_segment * area > ROWS or max(channels[:-1]) > COLUMNS:
        layouts = [torch.channels_last] * (len(weights) - 1) + [memory_format(x)]
        for weight, bias, layout in zip(weights, biases, layouts, strict=True):
            x = convolve(
                x, None, weight, bias, [1, 1], layout, n_segment=n_segment, fold=x.shape[1] // fold_div, wrap=wrap,
                activation=activation,
            )  # fmt: skip
        return x
    out = torch.empty(
        x.shape[0], channels[-1], *x.shape[2:], dtype=x.dtype, device=x.device, memory_format=memory_format(x)
    )
    _stack[(x.shape[0] // n_segment,)](
        x, tuple(w.contiguous() for w in weights), tuple(b.contiguous() for b in biases), out,
        area, *x.shape[2:], *x.stride(), *out.stride(),
        CHANNELS=channels, TILES=tuple(min(max(triton.next_power_of_2(c), 16), COLUMNS) for c in channels),
        LAYERS=len(weights), N_SEGMENT=n_segment, FOLD_DIV=fold_div, WRAP=wrap, ACTIVATION=activation,
        DOT=dot_dtype(x), PRECISION=dot_precision(), ROWS=max(triton.next_power_of_2(n_segment * area), 32),
        num_warps=8,
    )  # fmt: skip
    return out

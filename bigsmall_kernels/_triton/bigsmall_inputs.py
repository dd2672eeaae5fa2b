"""From decoded frames to both inputs: each picture read once for itself and once as the next one's predecessor."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

SIDE = tl.constexpr(16)  # of a tile of resized pixels: a cell of 9x9 in 144x144


@triton.jit
def _axis(start, scale, i):
    """Along one axis, pixels i of `scale` source pixels each: the first source pixel, and their ends from it."""
    base = tl.floor(start)
    first = start - base + i.to(tl.float64) * scale
    return base.to(tl.int32), first, start - base + (i + 1).to(tl.float64) * scale


@triton.jit
def _resized(picture, x, y, wide, high, height, width, fh, fw, i, j, inside, PIXELS: tl.constexpr):
    """`reference.bigsmall_pixels` of one channel, at resized pixels (i, j) of `wide` by `high` source pixels each."""
    y0, top, bottom = _axis(y, high, i)
    x0, left, right = _axis(x, wide, j)
    first_row, first_column = tl.floor(top).to(tl.int32), tl.floor(left).to(tl.int32)
    rows = tl.max(tl.ceil(bottom).to(tl.int32) - first_row)
    columns = tl.max(tl.ceil(right).to(tl.int32) - first_column)
    total = tl.zeros([SIDE, SIDE], tl.float64)
    for a in range(rows):
        r = first_row + a
        row_share = tl.maximum(tl.minimum(bottom, (r + 1).to(tl.float64)) - tl.maximum(top, r.to(tl.float64)), 0.0)
        line = tl.zeros([SIDE, SIDE], tl.float64)
        for b in range(columns):
            c = first_column + b
            share = tl.maximum(tl.minimum(right, (c + 1).to(tl.float64)) - tl.maximum(left, c.to(tl.float64)), 0.0)
            offset = ((y0 + r).to(tl.int64) * fh)[:, None] + ((x0 + c).to(tl.int64) * fw)[None, :]
            within = inside & (y0 + r < height)[:, None] & (x0 + c < width)[None, :]
            line += share[None, :] * tl.load(picture + offset, within, other=0).to(tl.float64)
        total += row_share[:, None] * line
    value = total * (1 / (wide * high))
    if PIXELS == "unit":
        value = tl.maximum(value * (1 / 255), 1 / 255)
    pixel = value.to(tl.float32)
    if PIXELS == "rounded":  # to even
        whole = tl.floor(pixel)
        rest = pixel - whole
        up = (rest > 0.5) | ((rest == 0.5) & (whole != 2 * tl.floor(whole / 2)))
        pixel = whole + up.to(tl.float32)
    return pixel


@triton.jit
def _inputs(
    frames, boxes, big, small, sums, n, height, width, fn, fh, fw, fc, size, cells, every, eps,
    PIXELS: tl.constexpr,
):  # fmt: skip
    """One cell of one frame's small picture, its pixels a tile of SIDE x SIDE at a time, channel after channel.

    A pixel that two cells share (where `cells` does not divide `size`) is written and summed by the one it begins in.
    """
    pid = tl.program_id(0)
    cell, frame = pid % (cells * cells), pid // (cells * cells)
    picture = frames + frame.to(tl.int64) * fn
    u, v = cell // cells, cell % cells
    box = boxes + frame * 4
    x, y, wide, high = tl.load(box), tl.load(box + 1), tl.load(box + 2) / size, tl.load(box + 3) / size
    sum_x, sum_xx = tl.full([], 0, tl.float64), tl.full([], 0, tl.float64)
    sum_d, sum_dd = tl.full([], 0, tl.float64), tl.full([], 0, tl.float64)
    # The cell covers [u, u + 1) * size / cells; in units of 1 / cells of a pixel everything is whole.
    top, left = u * size // cells, v * size // cells
    bottom, right = ((u + 1) * size + cells - 1) // cells, ((v + 1) * size + cells - 1) // cells
    for channel in range(3):
        mean = tl.full([], 0, tl.float64)
        for row in range(top, bottom, SIDE):
            for column in range(left, right, SIDE):
                i, j = row + tl.arange(0, SIDE), column + tl.arange(0, SIDE)
                inside = (i < bottom)[:, None] & (j < right)[None, :]
                own = inside & (i * cells >= u * size)[:, None] & (j * cells >= v * size)[None, :]
                now = _resized(picture, x, y, wide, high, height, width, fh, fw, i, j, inside, PIXELS)
                if frame % every == 0:
                    plane = (frame // every * 3 + channel).to(tl.int64) * size * size
                    tl.store(big + plane + (i * size)[:, None] + j[None, :], now, own)
                now64 = tl.where(own, now.to(tl.float64), 0.0)
                sum_x += tl.sum(now64)
                sum_xx += tl.sum(now64 * now64)
                if frame + 1 < n:
                    after = _resized(
                        picture + fn, x, y, wide, high, height, width, fh, fw, i, j, inside, PIXELS
                    )
                    d = tl.where(inside, (after - now) / (after + now + eps), 0.0).to(tl.float64)
                    own_d = tl.where(own, d, 0.0)
                    sum_d += tl.sum(own_d)
                    sum_dd += tl.sum(own_d * own_d)
                    rows = tl.minimum((i + 1) * cells, (u + 1) * size) - tl.maximum(i * cells, u * size)
                    columns = tl.minimum((j + 1) * cells, (v + 1) * size) - tl.maximum(j * cells, v * size)
                    mean += tl.sum(d * rows.to(tl.float64)[:, None] * columns.to(tl.float64)[None, :])
        if frame + 1 < n:
            plane = (frame * 3 + channel).to(tl.int64) * cells * cells
            tl.store(small + plane + cell, (mean / (size * size)).to(tl.float32))
        picture += fc
    tl.store(sums + pid.to(tl.int64) * 4, sum_x)
    tl.store(sums + pid.to(tl.int64) * 4 + 1, sum_xx)
    tl.store(sums + pid.to(tl.int64) * 4 + 2, sum_d)
    tl.store(sums + pid.to(tl.int64) * 4 + 3, sum_dd)


def bigsmall_inputs(
    frames: Tensor, boxes: Tensor, big_size: int, small_size: int, every: int, pixels: str, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`reference.bigsmall_inputs`."""
    n, height, width, _ = frames.shape
    device, cells = frames.device, small_size * small_size
    big = torch.empty((n + every - 1) // every, 3, big_size, big_size, device=device)
    small = torch.empty(n - 1, 3, small_size, small_size, device=device)
    sums = torch.empty(n, cells, 4, dtype=torch.float64, device=device)
    fn, fh, fw, fc = frames.stride()
    _inputs[(n * cells,)](
        frames, boxes.contiguous(), big, small, sums, n, height, width, fn, fh, fw, fc, big_size, small_size, every,
        eps, PIXELS=pixels, num_warps=8,
    )  # fmt: skip
    return big, small, sums.sum(1)

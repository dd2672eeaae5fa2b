"""Shift, convolution, bias and activation as one implicit matrix product, and its gradients.

Rows of the product are pixels, columns filters, and its depth runs over taps and channels: no shifted or unfolded copy
of the input is made, the shift is an offset added to an address. Where the taps step or spread (stride, dilation) or
the channels are grouped, the shift is followed by torch's own convolution.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import reference
from ..reference import memory_format
from .common import FEW, Blocks, activate, activation_backward, blocks, dot_dtype, dot_precision, index_dtype
from .wtsm import wtsm


@triton.jit
def _pixels(first, i, area, width):
    """(frame, row, column) of pixels number `first` + i, an int64 scalar and int32s; only frames need 64 bits."""
    frame = first // area
    i = (first - frame * area).to(tl.int32) + i
    pixel = i % area
    return frame + i // area, pixel // width, pixel % width


@triton.jit
def _source(frame, step: tl.constexpr, N_SEGMENT: tl.constexpr):
    """How many frames further on the one `step` further on in the clip lies, round its end; whether it went round."""
    t = frame % N_SEGMENT
    source = (t + step + N_SEGMENT) % N_SEGMENT
    return source - t, source != t + step


@triton.jit
def conv(
    x, y, weight, bias, out, pixels, height, width, out_height, out_width, xn, xc, xh, xw, wn, wc, wh, ww,
    on, oc, oh, ow,
    CHANNELS: tl.constexpr, FILTERS: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, N_SEGMENT: tl.constexpr, FOLD: tl.constexpr, WRAP: tl.constexpr,
    OUT_FOLD: tl.constexpr, ACTIVATION: tl.constexpr, POOL: tl.constexpr, TOGETHER: tl.constexpr, DOT: tl.constexpr,
    PRECISION: tl.constexpr, INDEX: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """out (pixels, FILTERS) = pool(activation(conv(shift(x), weight) + bias)), weight (FILTERS, CHANNELS, KH, KW).

    x (frames, CHANNELS, height, width), weight and out under any strides. TOGETHER pixels of a pooling's window are
    neighbouring rows of the product, which are summed up. With y, x is the gradient at an activation's output y, and
    the gradient at its input is convolved. OUT_FOLD: the adjoint of the shift, by where the result is stored.
    """
    tl.static_assert(POOL == 1 or OUT_FOLD == 0)
    results: tl.constexpr = ROWS // TOGETHER
    first = tl.program_id(0).to(tl.int64) * results
    i, area = tl.arange(0, ROWS), out_height * out_width
    frame, row, column = _pixels(first, i // TOGETHER, area, out_width)
    frame = frame.to(INDEX)
    inside = first + i // TOGETHER < pixels
    n = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    ahead, ahead_round = _source(frame, 1, N_SEGMENT)
    behind, behind_round = _source(frame, -1, N_SEGMENT)
    total = tl.zeros([results, COLUMNS], tl.float32)
    for begin in range(0, POOL * POOL, TOGETHER):
        window = begin + i % TOGETHER
        top, left = row * POOL + window // POOL - PH, column * POOL + window % POOL - PW
        base = frame * xn + top.to(INDEX) * xh + left.to(INDEX) * xw
        sums = tl.zeros([ROWS, COLUMNS], tl.float32)
        for start in range(0, KH * KW * CHANNELS, DEPTH):
            k = start + tl.arange(0, DEPTH)
            c, tap = k % CHANNELS, k // CHANNELS
            down, right = tap // KW, tap % KW
            offset = base[:, None] + (c.to(INDEX) * xc + down.to(INDEX) * xh + right.to(INDEX) * xw)[None, :]
            r, s = top[:, None] + down[None, :], left[:, None] + right[None, :]
            within = inside[:, None] & (k < KH * KW * CHANNELS)[None, :]
            within &= (r >= 0) & (r < height) & (s >= 0) & (s < width)
            if FOLD > 0:
                from_ahead, from_behind = (c < FOLD)[None, :], ((c >= FOLD) & (c < 2 * FOLD))[None, :]
                further = tl.where(from_behind, (behind * xn)[:, None], 0)
                offset += tl.where(from_ahead, (ahead * xn)[:, None], further)
                if not WRAP:
                    within &= ~((from_ahead & ahead_round[:, None]) | (from_behind & behind_round[:, None]))
            a = tl.load(x + offset, within, other=0)
            if y is not None:
                reached = tl.load(y + offset, within, other=0).to(tl.float32)
                a = activation_backward(a.to(tl.float32), reached, ACTIVATION)
            filters = (k < KH * KW * CHANNELS)[:, None] & (n < FILTERS)[None, :]
            b = tl.load(weight + (c * wc + down * wh + right * ww)[:, None] + (n * wn)[None, :], filters, other=0)
            sums = tl.dot(a.to(DOT), b.to(DOT), sums, input_precision=PRECISION)
        if bias is not None:
            sums += tl.load(bias + n, n < FILTERS, other=0).to(tl.float32)[None, :]
        sums = activate(sums, ACTIVATION) if y is None else sums
        if POOL == 1:
            total = sums
        else:
            sums = tl.where((window < POOL * POOL)[:, None], sums, 0.0)
            total += tl.sum(tl.reshape(sums, [results, TOGETHER, COLUMNS]), 1)
    if POOL > 1:
        frame, row, column = _pixels(first, tl.arange(0, results), area, out_width)
        frame = frame.to(INDEX)
        inside = first + tl.arange(0, results) < pixels
    target = (frame * on + row.to(INDEX) * oh + column.to(INDEX) * ow)[:, None] + (n.to(INDEX) * oc)[None, :]
    if OUT_FOLD > 0:
        to_ahead, to_behind = (n < OUT_FOLD)[None, :], ((n >= OUT_FOLD) & (n < 2 * OUT_FOLD))[None, :]
        further = tl.where(to_behind, (behind * on)[:, None], 0)
        target += tl.where(to_ahead, (ahead * on)[:, None], further)
        if not WRAP:
            lost = (to_ahead & ahead_round[:, None]) | (to_behind & behind_round[:, None])
            total = tl.where(lost, 0.0, total)
    tl.store(out + target, total / (POOL * POOL), inside[:, None] & (n < FILTERS)[None, :])


@triton.jit
def _weight_gradient(
    grad, y, x, partial, pixels, chunk, height, width, out_height, out_width, xn, xc, xh, xw, on, oc, oh, ow,
    CHANNELS: tl.constexpr, FILTERS: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, N_SEGMENT: tl.constexpr, FOLD: tl.constexpr, WRAP: tl.constexpr,
    ACTIVATION: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr, INDEX: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """partial[program] (KH*KW*CHANNELS + 1, FILTERS), float32: one program's `chunk` of the pixels summed.

    Rows of the product are taps and channels, its depth runs over pixels. The last row's input is 1: the bias's
    gradient. grad and y share their strides (on, oc, oh, ow).
    """
    taps: tl.constexpr = KH * KW * CHANNELS
    k = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    n = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    start = tl.program_id(2).to(tl.int64) * chunk
    c, tap = k % CHANNELS, k // CHANNELS
    down, right = tap // KW - PH, tap % KW - PW
    channel = (c.to(INDEX) * xc + down.to(INDEX) * xh + right.to(INDEX) * xw)[:, None]
    step = tl.where(c < FOLD, 1, tl.where(c < 2 * FOLD, -1, 0))[:, None]
    sums = tl.zeros([ROWS, COLUMNS], tl.float32)
    for first in range(start, tl.minimum(start + chunk, pixels), DEPTH):
        frame, row, column = _pixels(first, tl.arange(0, DEPTH), out_height * out_width, out_width)
        inside = first + tl.arange(0, DEPTH) < pixels
        t = (frame % N_SEGMENT).to(tl.int32)[None, :]
        frame = frame.to(INDEX)
        r, s = row[None, :] + down[:, None], column[None, :] + right[:, None]
        within = (k < taps)[:, None] & inside[None, :] & (r >= 0) & (r < height) & (s >= 0) & (s < width)
        source = (t + step + N_SEGMENT) % N_SEGMENT
        if not WRAP:
            within &= source == t + step
        base = frame * xn + row.to(INDEX) * xh + column.to(INDEX) * xw
        a = tl.load(x + (channel + base[None, :] + (source - t).to(INDEX) * xn), within, other=0)
        a = tl.where((k == taps)[:, None], 1.0, a.to(DOT))
        target = (frame * on + row.to(INDEX) * oh + column.to(INDEX) * ow)[:, None] + (n.to(INDEX) * oc)[None, :]
        known = inside[:, None] & (n < FILTERS)[None, :]
        g = tl.load(grad + target, known, other=0).to(tl.float32)
        g = activation_backward(g, tl.load(y + target, known, other=0).to(tl.float32), ACTIVATION)
        sums = tl.dot(a, g.to(DOT), sums, input_precision=PRECISION)
    where = (tl.program_id(2) * (taps + 1) + k)[:, None] * FILTERS + n[None, :]
    tl.store(partial + where, sums, (k <= taps)[:, None] & (n < FILTERS)[None, :])


def convolve(
    x: Tensor, y: Tensor | None, weight: Tensor, bias: Tensor | None, padding: list[int], layout: torch.memory_format,
    *, n_segment: int = 1, fold: int = 0, wrap: bool = True, out_fold: int = 0, activation: str = "none", pool: int = 1,
) -> Tensor:  # fmt: skip
    """`conv` launched for a new tensor of that layout."""
    filters, channels, kh, kw = weight.shape
    height, width = x.shape[2] + 2 * padding[0] - kh + 1, x.shape[3] + 2 * padding[1] - kw + 1
    shape = (x.shape[0], filters, height // pool, width // pool)
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
    results = out.numel() // max(filters, 1)
    together = min(triton.next_power_of_2(pool * pool), 16)
    pixels = results * pool * pool
    tile = blocks(x, pixels, filters, channels * kh * kw, masked=y is not None or (fold + out_fold > 0 and not wrap))
    if index_dtype(weight) == tl.int64:  # of a weight they are counted in 32 bits
        weight = weight.contiguous()
    if pixels >= FEW and weight.stride(1) != 1:  # for a launch more the filters are neighbours, where channels are not
        weight = weight.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)
    conv[(triton.cdiv(results, tile.rows // together), triton.cdiv(filters, tile.columns))](
        x, y, weight, None if bias is None else bias.contiguous(), out, results, *x.shape[2:], *out.shape[2:],
        *x.stride(), *weight.stride(), *out.stride(),
        CHANNELS=channels, FILTERS=filters, KH=kh, KW=kw, PH=padding[0], PW=padding[1],
        N_SEGMENT=n_segment, FOLD=fold, WRAP=wrap, OUT_FOLD=out_fold, ACTIVATION=activation, POOL=pool,
        TOGETHER=together, DOT=dot_dtype(x), PRECISION=dot_precision(), INDEX=index_dtype(x, out), ROWS=tile.rows,
        COLUMNS=tile.columns, DEPTH=tile.depth, num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return out


def is_plain(stride: list[int], dilation: list[int], groups: int) -> bool:
    """Whether it is a convolution for the kernel: any filter, any padding."""
    return stride == [1, 1] and dilation == [1, 1] and groups == 1


def wtsm_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, n_segment: int, fold_div: int, wrap: bool, stride: list[int],
    padding: list[int], dilation: list[int], groups: int, activation: str, packed: Tensor | None,
) -> Tensor:  # fmt: skip
    """`reference.wtsm_conv2d`."""
    if not is_plain(stride, dilation, groups):
        shifted = wtsm(x, n_segment, fold_div, wrap)
        y = torch.conv2d(shifted, weight, bias, stride, padding, dilation, groups)
        return reference.ACTIVATIONS[activation](y).contiguous(memory_format=memory_format(x))
    return convolve(
        x, None, weight, bias, padding, memory_format(x), n_segment=n_segment, fold=x.shape[1] // fold_div, wrap=wrap,
        activation=activation,
    )  # fmt: skip


PROGRAMS = 512  # that a weight's gradient is divided among: four for each of a large GPU's multiprocessors


def _weight_and_bias(
    grad: Tensor, y: Tensor, x: Tensor, weight: Tensor, n_segment: int, fold: int, wrap: bool, padding: list[int],
    activation: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Float32 gradients of weight and bias: sums over parts of the pixels, then over the parts in one order."""
    filters, channels, kh, kw = weight.shape
    rows = kh * kw * channels + 1
    pixels = y.shape[0] * y.shape[2] * y.shape[3]
    tile = Blocks(32, blocks(x, 0, filters, 0).columns, 32, 4)
    tiles = triton.cdiv(rows, tile.rows), triton.cdiv(filters, tile.columns)
    parts = max(min(PROGRAMS // (tiles[0] * tiles[1]), triton.cdiv(pixels, 8 * tile.depth)), 1)
    chunk = triton.cdiv(pixels, parts * tile.depth) * tile.depth
    partial = torch.empty(parts, rows, filters, device=x.device)
    grid = (*tiles, parts)
    _weight_gradient[grid](
        grad, y, x, partial, pixels, chunk, *x.shape[2:], *y.shape[2:], *x.stride(), *y.stride(),
        CHANNELS=channels, FILTERS=filters, KH=kh, KW=kw, PH=padding[0], PW=padding[1], N_SEGMENT=n_segment, FOLD=fold,
        WRAP=wrap, ACTIVATION=activation, DOT=dot_dtype(x), PRECISION=dot_precision(), INDEX=index_dtype(x, y),
        ROWS=tile.rows, COLUMNS=tile.columns, DEPTH=tile.depth, num_warps=tile.warps,
    )  # fmt: skip
    total = partial.sum(0)
    return total[:-1].view(kh, kw, channels, filters).permute(3, 2, 0, 1).contiguous(), total[-1]


def wtsm_conv2d_backward(
    grad: Tensor, y: Tensor, x: Tensor, weight: Tensor, has_bias: bool, n_segment: int, fold_div: int, wrap: bool,
    stride: list[int], padding: list[int], dilation: list[int], groups: int, activation: str, mask: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`reference.wtsm_conv2d_backward`: one kernel for x, one for weight and bias together."""
    kh, kw = weight.shape[2:]
    reach = [kh - 1 - padding[0], kw - 1 - padding[1]]
    if not is_plain(stride, dilation, groups) or min(reach) < 0:
        return reference.wtsm_conv2d_backward(
            grad, y, x, weight, has_bias, n_segment, fold_div, wrap, stride, padding, dilation, groups, activation, mask
        )
    fold = x.shape[1] // fold_div
    y = y.contiguous(memory_format=memory_format(y))
    grad = torch.empty_like(y).copy_(grad) if grad.stride() != y.stride() else grad
    gx, gw, gb = (x.new_empty(0) for _ in range(3))
    if mask[0]:
        gx = convolve(
            grad, y, weight.flip(2, 3).transpose(0, 1), None, reach, memory_format(x), n_segment=n_segment, wrap=wrap,
            out_fold=fold, activation=activation,
        )  # fmt: skip
    if mask[1] or mask[2]:
        total, last = _weight_and_bias(grad, y, x, weight, n_segment, fold, wrap, padding, activation)
        gw = total.to(weight.dtype) if mask[1] else gw
        gb = last.to(weight.dtype, copy=True) if mask[2] else gb
    return gx, gw, gb

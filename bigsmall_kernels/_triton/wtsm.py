"""The temporal shift: one read, one write."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..reference import memory_format

BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # a shift moves bits, of any dtype
BLOCK = 1024  # elements of a program: 8 a thread of 4 warps


@triton.jit
def _wtsm(
    x, out, frame_size, area, width, fold_area, blocks_fold, blocks_frame, xn, xc, xh, xw,
    CHANNELS: tl.constexpr, FOLD: tl.constexpr, N_SEGMENT: tl.constexpr, WRAP: tl.constexpr, DIRECTION: tl.constexpr,
    DENSE: tl.constexpr, CHANNELS_LAST: tl.constexpr, INDEX: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program writes BLOCK elements of one frame, in the order of the output's memory.

    With the channels outermost its elements all come from one frame: the blocks of the first two folds of channels
    (`blocks_fold` each) are counted before those of the rest, and a copy of consecutive elements is left.
    """
    pid = tl.program_id(0).to(tl.int64)
    frame = pid // blocks_frame
    block = (pid - frame * blocks_frame).to(INDEX)
    clip = frame // N_SEGMENT * N_SEGMENT
    t = (frame - clip).to(tl.int32)
    if CHANNELS_LAST:
        i = block * BLOCK + tl.arange(0, BLOCK)
        inside = i < frame_size
        c, pixel = i % CHANNELS, i // CHANNELS
        step = tl.where(c < FOLD, DIRECTION, tl.where(c < 2 * FOLD, -DIRECTION, 0))
    else:
        fold = tl.minimum(block // blocks_fold, 2)
        start = fold.to(INDEX) * fold_area
        i = start + (block - fold * blocks_fold) * BLOCK + tl.arange(0, BLOCK)
        inside = i < tl.where(fold == 2, frame_size, tl.minimum(start + fold_area, frame_size))
        c, pixel = i // area, i % area
        step = tl.where(fold == 0, DIRECTION, tl.where(fold == 1, -DIRECTION, 0))
    source = t + step
    within = inside & (source >= 0) & (source < N_SEGMENT) if not WRAP else inside
    source = clip + (source + N_SEGMENT) % N_SEGMENT
    if DENSE:
        offset = source * xn + i
    else:
        row, column = (pixel // width).to(tl.int64), (pixel % width).to(tl.int64)
        offset = source * xn + c.to(tl.int64) * xc + row * xh + column * xw
    tl.store(out + frame * frame_size + i, tl.load(x + offset, within, other=0), inside)


def _shift(x: Tensor, n_segment: int, fold_div: int, wrap: bool, direction: int) -> Tensor:
    frames, channels, height, width = x.shape
    area, fold = height * width, channels // fold_div
    layout = memory_format(x)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=layout)
    if out.numel() == 0:
        return out
    dense = x.is_contiguous(memory_format=layout)
    bits = BITS[x.element_size()]
    channels_last = layout == torch.channels_last
    if channels_last:
        blocks_fold, blocks = 1, triton.cdiv(channels * area, BLOCK)
    else:
        blocks_fold = max(triton.cdiv(fold * area, BLOCK), 1)
        blocks = 2 * blocks_fold + triton.cdiv(max(channels - 2 * fold, 0) * area, BLOCK)
    _wtsm[(frames * blocks,)](
        x.view(bits), out.view(bits), channels * area, area, width, fold * area, blocks_fold, blocks,
        channels * area if dense else x.stride(0), *x.stride()[1:],
        CHANNELS=channels, FOLD=fold, N_SEGMENT=n_segment, WRAP=wrap, DIRECTION=direction,
        DENSE=dense, CHANNELS_LAST=channels_last, INDEX=tl.int64 if channels * area >= 2**31 - BLOCK else tl.int32,
        BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
    return out


def wtsm(x: Tensor, n_segment: int, fold_div: int, wrap: bool) -> Tensor:
    """`reference.wtsm`."""
    return _shift(x, n_segment, fold_div, wrap, 1)


def wtsm_backward(grad: Tensor, n_segment: int, fold_div: int, wrap: bool) -> Tensor:
    """`reference.wtsm_backward`: the same shift with the two directions exchanged."""
    return _shift(grad, n_segment, fold_div, wrap, -1)

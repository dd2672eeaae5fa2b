"""The normalisers: one pass that sums, one that scales.

Both work on memory in its own order: a difference frame is a value and the one a frame further on. Every program of
the first pass leaves its float64 sums, and every program of the second adds all of them, in one order: the same bits
at every run.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..reference import memory_format
from .common import TL

BLOCK = 2048  # elements of a step: 8 a thread of 8 warps, whose four float64 sums take 64 registers
PROGRAMS = 512  # of the first pass at most: what the second adds up
SCALING = 2048  # programs of the second pass at most


@triton.jit
def _value(x, i, inside, far, eps, DIFFERENCE: tl.constexpr, REAL: tl.constexpr):
    """The value at i, or with DIFFERENCE that of the difference frames: (after - before) / (after + before + eps)."""
    value = tl.load(x + i, inside, other=0).to(REAL)
    if DIFFERENCE:
        after = tl.load(x + i + far, inside, other=0).to(REAL)
        value = (after - value) / (after + value + eps)
    return value


@triton.jit
def _sums(
    x, grad, partial, n, far, eps: tl.float64, DIFFERENCE: tl.constexpr, BACKWARD: tl.constexpr, REAL: tl.constexpr,
    BLOCK: tl.constexpr, PROGRAMS: tl.constexpr,
):  # fmt: skip
    """partial[j, program]: the sums of v and v^2, and with BACKWARD of g and g*v; v counted from the first value."""
    pid, step = tl.program_id(0).to(tl.int64), tl.num_programs(0) * BLOCK
    origin = _value(x, tl.zeros([1], tl.int64), tl.full([1], 1, tl.int1), far, eps, DIFFERENCE, REAL).to(tl.float64)
    sum_v = tl.zeros([BLOCK], tl.float64)
    sum_vv = tl.zeros([BLOCK], tl.float64)
    sum_g = tl.zeros([BLOCK], tl.float64)
    sum_gv = tl.zeros([BLOCK], tl.float64)
    for start in range(pid * BLOCK, n, step):
        i = start + tl.arange(0, BLOCK)
        inside = i < n
        v = _value(x, i, inside, far, eps, DIFFERENCE, REAL).to(tl.float64) - origin
        v = tl.where(inside, v, 0.0)
        sum_v += v
        sum_vv += v * v
        if BACKWARD:
            g = tl.load(grad + i, inside, other=0).to(tl.float64)
            sum_g += g
            sum_gv += g * v
    tl.store(partial + pid, tl.sum(sum_v))
    tl.store(partial + PROGRAMS + pid, tl.sum(sum_vv))
    if BACKWARD:
        tl.store(partial + 2 * PROGRAMS + pid, tl.sum(sum_g))
        tl.store(partial + 3 * PROGRAMS + pid, tl.sum(sum_gv))


@triton.jit
def _mean(partial, row, programs, n, PROGRAMS: tl.constexpr):
    i = tl.arange(0, PROGRAMS)
    return tl.sum(tl.load(partial + row * PROGRAMS + i, i < programs, other=0)) / n


@triton.jit
def _centre_and_scale(
    x, partial, n, programs, far, eps, mean, std, DIFFERENCE: tl.constexpr, OWN_MEAN: tl.constexpr,
    OWN_STD: tl.constexpr, REAL: tl.constexpr, PROGRAMS: tl.constexpr,
):  # fmt: skip
    """Float64: the data's own mean (0 where no sums were taken), the centre, and 1 / std, which is 0 for a zero std."""
    own = tl.full([], 0, tl.float64)
    mean, std = own + mean, own + std
    if OWN_MEAN or OWN_STD:
        origin = _value(x, tl.zeros([1], tl.int64), tl.full([1], 1, tl.int1), far, eps, DIFFERENCE, REAL)
        shift = _mean(partial, 0, programs, n, PROGRAMS)
        own = tl.sum(origin.to(tl.float64)) + shift
        if OWN_STD:
            variance = _mean(partial, 1, programs, n, PROGRAMS) - shift * shift
            std = tl.sqrt(tl.where(variance < 0, 0.0, variance))
    scale = tl.where(std == 0, 0.0, 1.0 / tl.where(std == 0, 1.0, std))
    return own, own if OWN_MEAN else mean, scale


@triton.jit
def _scale(
    x, partial, out, n, programs, far, eps: tl.float64, mean: tl.float64, std: tl.float64, DIFFERENCE: tl.constexpr,
    OWN_MEAN: tl.constexpr, OWN_STD: tl.constexpr, REAL: tl.constexpr, BLOCK: tl.constexpr, PROGRAMS: tl.constexpr,
):  # fmt: skip
    _, centre, scale = _centre_and_scale(
        x, partial, n, programs, far, eps, mean, std, DIFFERENCE, OWN_MEAN, OWN_STD, REAL, PROGRAMS
    )
    for start in range(tl.program_id(0).to(tl.int64) * BLOCK, n, tl.num_programs(0) * BLOCK):
        i = start + tl.arange(0, BLOCK)
        v = _value(x, i, i < n, far, eps, DIFFERENCE, REAL)
        if not DIFFERENCE:
            v = (v.to(tl.float64) - centre).to(REAL)
        tl.store(out + i, v * scale.to(REAL), i < n)


@triton.jit
def _scale_backward(
    x, grad, partial, out, n, total, programs, far, eps: tl.float64, mean: tl.float64, std: tl.float64,
    DIFFERENCE: tl.constexpr, OWN_MEAN: tl.constexpr, OWN_STD: tl.constexpr, REAL: tl.constexpr,
    BLOCK: tl.constexpr, PROGRAMS: tl.constexpr,
):  # fmt: skip
    """With y = (v - m) / s: the gradient of v is (g - mean(g) - y mean(g y)) / s, less what is not the data's own.

    That is a*g + b + c*(v - mean(v)); `total` elements of x get it, through the difference's derivative if any.
    """
    own, centre, a = _centre_and_scale(
        x, partial, n, programs, far, eps, mean, std, DIFFERENCE, OWN_MEAN, OWN_STD, REAL, PROGRAMS
    )
    b = tl.full([], 0, tl.float64)
    c = tl.full([], 0, tl.float64)
    if OWN_MEAN or OWN_STD:
        mean_g = _mean(partial, 2, programs, n, PROGRAMS)
        if OWN_MEAN:
            b = -mean_g * a
        if OWN_STD:
            mean_v = _mean(partial, 0, programs, n, PROGRAMS)
            mean_gv = _mean(partial, 3, programs, n, PROGRAMS) + (own - mean_v - centre) * mean_g
            c = -mean_gv * a * a * a
    a, b, c, own = a.to(REAL), b.to(REAL), c.to(REAL), own.to(REAL)
    for start in range(tl.program_id(0).to(tl.int64) * BLOCK, total, tl.num_programs(0) * BLOCK):
        i = start + tl.arange(0, BLOCK)
        v = tl.load(x + i, i < total, other=0).to(REAL)
        if DIFFERENCE:
            ahead, behind = i < n, (i >= far) & (i < total)
            after = tl.load(x + i + far, ahead, other=0).to(REAL)
            before = tl.load(x + i - far, behind, other=0).to(REAL)
            g_ahead = tl.load(grad + i, ahead, other=0).to(REAL)
            g_behind = tl.load(grad + i - far, behind, other=0).to(REAL)
            sum_ahead, sum_behind = after + v + eps, v + before + eps
            g_ahead = a * g_ahead + b + c * ((after - v) / sum_ahead - own)
            g_behind = a * g_behind + b + c * ((v - before) / sum_behind - own)
            result = tl.where(behind, g_behind * (2 * before + eps) / (sum_behind * sum_behind), 0.0)
            result -= tl.where(ahead, g_ahead * (2 * after + eps) / (sum_ahead * sum_ahead), 0.0)
        else:
            g = tl.load(grad + i, i < total, other=0).to(REAL)
            result = a * g + b + c * (v - own)
        tl.store(out + i, result, i < total)


def _normalize(
    frames: Tensor, grad: Tensor | None, far: int, eps: float, own_mean: bool, mean: float, std: float | None
) -> Tensor:
    """Both normalisers and, with `grad`, their derivatives; `far` elements lie between the ends of a difference."""
    layout = memory_format(frames)
    x = frames.contiguous(memory_format=layout)
    real = torch.float64 if frames.dtype == torch.float64 else torch.float32
    n = x.numel() - far
    shared = {"DIFFERENCE": far > 0, "REAL": TL[real], "BLOCK": BLOCK, "PROGRAMS": PROGRAMS, "num_warps": 8}
    programs = min(triton.cdiv(n, BLOCK), PROGRAMS)
    partial = torch.empty(4, PROGRAMS, dtype=torch.float64, device=x.device)
    if grad is not None:
        grad = grad.contiguous(memory_format=layout)
    if own_mean or std is None:
        _sums[(programs,)](x, grad, partial, n, far, eps, BACKWARD=grad is not None, **shared)
    total = n if grad is None else x.numel()
    grid = (min(triton.cdiv(total, BLOCK), SCALING),)
    own = {"OWN_MEAN": own_mean, "OWN_STD": std is None, **shared}
    std = 1.0 if std is None else std
    if grad is None:
        shape = (frames.shape[0] - (far > 0), *frames.shape[1:])
        out = torch.empty(shape, dtype=real, device=x.device, memory_format=layout)
        _scale[grid](x, partial, out, n, programs, far, eps, mean, std, **own)
    else:
        out = torch.empty(frames.shape, dtype=frames.dtype, device=x.device, memory_format=layout)
        _scale_backward[grid](x, grad, partial, out, n, total, programs, far, eps, mean, std, **own)
    return out


def diff_normalize(frames: Tensor, eps: float, std: float | None) -> Tensor:
    """`reference.diff_normalize`."""
    return _normalize(frames, None, frames[0].numel(), eps, False, 0.0, std)


def diff_normalize_backward(grad: Tensor, frames: Tensor, eps: float, std: float | None) -> Tensor:
    """`reference.diff_normalize_backward`."""
    return _normalize(frames, grad, frames[0].numel(), eps, False, 0.0, std)


def standardize(frames: Tensor, mean: float | None, std: float | None) -> Tensor:
    """`reference.standardize`."""
    return _normalize(frames, None, 0, 0.0, mean is None, mean or 0.0, std)


def standardize_backward(grad: Tensor, frames: Tensor, mean: float | None, std: float | None) -> Tensor:
    """`reference.standardize_backward`."""
    return _normalize(frames, grad, 0, 0.0, mean is None, mean or 0.0, std)

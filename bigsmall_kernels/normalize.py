"""Difference-frame normalisation and standardisation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _check
from ._library import call, ops, register_autograd


def _frames(frames: object, least: int, what: str) -> None:
    _check.tensor("frames", frames)
    assert isinstance(frames, Tensor)
    if frames.dtype != torch.uint8 and frames.dtype not in _check.FLOATING:
        raise TypeError(f"frames must be uint8, float32, float64, float16 or bfloat16, got {frames.dtype}")
    if frames.dim() < 1 or frames.shape[0] < least:
        raise ValueError(f"frames must be (T, ...) with T >= {least} for {what}, got {tuple(frames.shape)}")


def _number(name: str, value: float | None, least: float) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number or None, got {type(value).__name__}")
    if not value >= least:
        raise ValueError(f"{name} must be at least {least:g}, got {value}")
    return float(value)


def diff_normalize(frames: Tensor, eps: float = 1e-7, *, std: float | None = None) -> Tensor:
    """Normalised difference frames: d[t] = (x[t+1] - x[t]) / (x[t+1] + x[t] + eps), then d / std(d).

    Args:
        frames: (T, ...), T >= 2; uint8, float32, float64, float16 or bfloat16, any strides.
        eps: keeps 0/0 finite; its weight depends on the range of the pixels (1e-7 as released).
        std: the standard deviation to divide by, for a stream; None: the population standard deviation of all of d.

    Returns:
        (T-1, ...) float32 (float64 for float64): the T-1 true differences. A zero std gives zeros; NaN propagates.

    Raises:
        TypeError, ValueError: naming the argument, what it was and what was expected.

    Source: BigSmall (WACV 2024) section 4.1; FACTS 3.2.
    """
    _frames(frames, 2, "a difference")
    if eps is None or 0 < eps < 1e-30:
        raise ValueError(f"eps must be 0 or at least 1e-30, got {eps}")
    result: Tensor = call("diff_normalize", frames, _number("eps", eps, 0.0), _number("std", std, 0.0))
    return result


def standardize(frames: Tensor, *, mean: float | None = None, std: float | None = None) -> Tensor:
    """(x - mean) / std with one mean and one standard deviation over the whole input.

    Args:
        frames: (T, ...); uint8, float32, float64, float16 or bfloat16, any strides.
        mean, std: given from outside for a stream; None: the input's own (population standard deviation).

    Returns:
        The same shape, float32 (float64 for float64). A zero std gives zeros; NaN propagates.

    Raises:
        TypeError, ValueError: naming the argument, what it was and what was expected.

    Source: BigSmall (WACV 2024) section 4.1; FACTS 3.2.
    """
    _frames(frames, 0, "standardisation")
    result: Tensor = call("standardize", frames, _number("mean", mean, -float("inf")), _number("std", std, 0.0))
    return result


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    frames, *ctx.args = inputs
    ctx.save_for_backward(frames)


def _diff_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return ops.diff_normalize_backward(grad, *ctx.saved_tensors, *ctx.args), None, None


def _standardize_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return ops.standardize_backward(grad, *ctx.saved_tensors, *ctx.args), None, None


register_autograd("diff_normalize", _diff_backward, _setup)
register_autograd("standardize", _standardize_backward, _setup)

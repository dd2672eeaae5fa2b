"""Argument checks: every error names the argument, what it was and what was expected."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

OptionalTensor = Tensor | None
FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")


def floating(name: str, value: object) -> None:
    tensor(name, value)
    assert isinstance(value, Tensor)
    if value.dtype not in FLOATING:
        raise TypeError(f"{name} must be float32, float64, float16 or bfloat16, got {value.dtype}")


def frames_nchw(x: Tensor, n_segment: int) -> None:
    if x.dim() != 4:
        raise ValueError(f"x must be (B*n_segment, C, H, W), got {x.dim()} dimensions: {tuple(x.shape)}")
    if x.shape[0] % n_segment:
        raise ValueError(f"x must hold a multiple of n_segment={n_segment} frames, got {x.shape[0]}: {tuple(x.shape)}")


def positive(name: str, value: object) -> None:
    if not isinstance(value, int | torch.SymInt) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


def same_kind(name: str, value: Tensor, x: Tensor) -> None:
    if value.dtype != x.dtype:
        raise TypeError(f"{name} must have x's dtype {x.dtype}, got {value.dtype}")
    if value.device != x.device:
        raise ValueError(f"{name} must be on x's device {x.device}, got {value.device}")


def one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def weight_and_bias(names: tuple[str, str], weight: Tensor, bias: Tensor | None, x: Tensor, in_channels: int) -> None:
    """A convolution's parameters: (Cout, in_channels, kh, kw) and (Cout,), of x's dtype and device."""
    floating(names[0], weight)
    if weight.dim() != 4 or weight.shape[1] != in_channels:
        raise ValueError(f"{names[0]} must be (Cout, {in_channels}, kh, kw), got {tuple(weight.shape)}")
    same_kind(names[0], weight, x)
    if bias is not None:
        floating(names[1], bias)
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"{names[1]} must be ({weight.shape[0]},), got {tuple(bias.shape)}")
        same_kind(names[1], bias, x)


def autocast(x: Tensor, *others: OptionalTensor) -> tuple[Tensor, list[Any]]:
    """The tensors in autocast's dtype where it is on; float64 stays as autocast leaves it."""
    if not torch.is_autocast_enabled(x.device.type):
        return x, list(others)
    dtype = torch.get_autocast_dtype(x.device.type)

    def cast(t: OptionalTensor) -> Any:
        return t if t is None or not t.is_floating_point() or t.dtype == torch.float64 else t.to(dtype)

    return cast(x), [cast(t) for t in others]


def shift(n_segment: int, fold_div: int) -> None:
    positive("n_segment", n_segment)
    positive("fold_div", fold_div)


def three_by_three(name: str, weight: Tensor) -> None:
    if weight.shape[2:] != (3, 3):
        raise ValueError(f"{name} must be (Cout, Cin, 3, 3), got {tuple(weight.shape)}")

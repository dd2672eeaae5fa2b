"""Argument checks: every error names the argument, what it was and what was expected.

They run at every call beside kernels of a few microseconds: each shape, dtype and device is read once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

OptionalTensor = Tensor | None
FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")


def floating(name: str, value: Any) -> None:
    tensor(name, value)
    if value.dtype not in FLOATING:
        raise TypeError(f"{name} must be float32, float64, float16 or bfloat16, got {value.dtype}")


def positive(name: str, value: object) -> None:
    if not isinstance(value, (int, torch.SymInt)) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


def clips(x: Tensor, n_segment: int, fold_div: int) -> torch.Size:
    """x's shape (B*n_segment, C, H, W)."""
    positive("n_segment", n_segment)
    positive("fold_div", fold_div)
    shape = x.shape
    if len(shape) != 4:
        raise ValueError(f"x must be (B*n_segment, C, H, W), got {len(shape)} dimensions: {tuple(shape)}")
    if shape[0] % n_segment:
        raise ValueError(f"x must hold a multiple of n_segment={n_segment} frames, got {shape[0]}: {tuple(shape)}")
    return shape


def one_of(name: str, value: object, choices: Any) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def same_kind(name: str, value: Any, x: Tensor) -> None:
    floating(name, value)
    if value.dtype != x.dtype:
        raise TypeError(f"{name} must have x's dtype {x.dtype}, got {value.dtype}")
    if value.device != x.device:
        raise ValueError(f"{name} must be on x's device {x.device}, got {value.device}")


def parameters(
    names: tuple[str, str], weight: Tensor, bias: Tensor | None, x: Tensor, in_channels: int, three: bool = False
) -> torch.Size:
    """The weight's shape (Cout, in_channels, kh, kw); it and bias (Cout,) are of x's dtype and device."""
    same_kind(names[0], weight, x)
    shape = weight.shape
    if len(shape) != 4 or shape[1] != in_channels:
        raise ValueError(f"{names[0]} must be (Cout, {in_channels}, kh, kw), got {tuple(shape)}")
    if three and not (shape[2] == 3 and shape[3] == 3):
        raise ValueError(f"{names[0]} must be (Cout, {in_channels}, 3, 3), got {tuple(shape)}")
    if bias is not None:
        same_kind(names[1], bias, x)
        if bias.dim() != 1 or bias.shape[0] != shape[0]:
            raise ValueError(f"{names[1]} must be ({shape[0]},), got {tuple(bias.shape)}")
    return shape


def packed(value: Any, size: int) -> None:
    tensor("packed", value)
    if value.dtype != torch.float32 or value.numel() != size:
        raise ValueError(
            f"packed must be what the pack op makes of these weights, float32 ({size},), "
            f"got {value.dtype} {tuple(value.shape)}"
        )


def autocast(x: Tensor, *others: OptionalTensor) -> tuple[Tensor, tuple[Any, ...]]:
    """The tensors in autocast's dtype where it is on; float64 stays as autocast leaves it."""
    device = "cpu" if x.is_cpu else x.device.type
    if not torch.is_autocast_enabled(device):
        return x, others
    dtype = torch.get_autocast_dtype(device)

    def cast(t: OptionalTensor) -> Any:
        return t if t is None or not t.is_floating_point() or t.dtype == torch.float64 else t.to(dtype)

    return cast(x), tuple(cast(t) for t in others)

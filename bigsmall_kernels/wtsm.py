"""The wrapping temporal shift."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from . import _check
from ._library import call, ops, register_autograd


def wtsm(x: Tensor, n_segment: int = 3, fold_div: int = 3, *, wrap: bool = True) -> Tensor:
    """Shift a part of the channels by one frame within each clip (WTSM; with `wrap=False` the zero-padding TSM).

    With f = C // fold_div, channels [0, f) come from the next frame, [f, 2f) from the previous one, the others stay.
    At a clip's ends the frame comes from its other end (`wrap=True`) or is zero.

    Args:
        x: (B*n_segment, C, H, W), clip-major (index = clip*n_segment + t); any dtype, any strides.
        n_segment: frames of a clip.
        fold_div: C // fold_div channels go each way.
        wrap: circular in time (BigSmall's WTSM) or zero-padded (TSM).

    Returns:
        The same shape and dtype; channels_last for a channels_last input, else contiguous.

    Raises:
        TypeError: x is not a tensor, or a number is not an int.
        ValueError: a number below 1, x not 4-d, or frames not a multiple of n_segment.

    Source: BigSmall (WACV 2024) section 3.3; FACTS 1.2.
    """
    _check.tensor("x", x)
    _check.clips(x, n_segment, fold_div)
    result: Tensor = call("wtsm", x, n_segment, fold_div, wrap)
    return result


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.args = inputs[1:]


register_autograd("wtsm", lambda ctx, grad: (ops.wtsm_backward(grad, *ctx.args), None, None, None), _setup)

"""Temporal shift, convolution, bias and activation in one pass; alone and as a stack of layers."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from . import _check, reference
from ._library import call, given, ops, register_autograd, straight
from .reference import ACTIVATIONS

Pair = int | tuple[int, ...]
_NONE = [0, 0]


def _pair(name: str, value: Pair, least: int) -> list[int]:
    pair = [value, value] if isinstance(value, int) else list(value) if isinstance(value, (tuple, list)) else []
    if len(pair) != 2 or not all(isinstance(v, int) for v in pair) or min(pair) < least:
        raise ValueError(f"{name} must be an int or a pair of ints of at least {least}, got {value!r}")
    return pair


def _geometry(stride: Pair, padding: Pair | str, dilation: Pair, kh: int, kw: int) -> tuple[list[int], ...]:
    """Strides, paddings, dilations, and the row and column that an even kernel's "same" adds below and to the right."""
    strides, dilations = _pair("stride", stride, 1), _pair("dilation", dilation, 1)
    if not isinstance(padding, str):
        return strides, _pair("padding", padding, 0), dilations, [0, 0]
    if padding != "same":
        raise ValueError(f'padding must be "same", an int or a pair of ints, got {padding!r}')
    if strides != [1, 1]:
        raise ValueError(f'padding="same" needs stride 1, got stride {stride!r}')
    reach = [dilations[0] * (kh - 1), dilations[1] * (kw - 1)]
    return strides, [r // 2 for r in reach], dilations, [r % 2 for r in reach]


_known_geometry = lru_cache(typed=True)(_geometry)


def wtsm_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    n_segment: int = 3,
    fold_div: int = 3,
    *,
    wrap: bool = True,
    stride: Pair = 1,
    padding: Pair | str = "same",
    dilation: Pair = 1,
    groups: int = 1,
    activation: str = "none",
    packed: Tensor | None = None,
) -> Tensor:
    """activation(conv2d(wtsm(x), weight, bias)) without a shifted copy of x.

    Fast for 3x3 at stride 1 with padding 0 or 1 and for 1x1; correct for everything else that conv2d takes.

    Args:
        x: (B*n_segment, C, H, W), clip-major; float32, float64, float16 or bfloat16, any strides.
        weight: (Cout, C/groups, kh, kw), of x's dtype.
        bias: (Cout,) or None.
        n_segment, fold_div, wrap: as in `wtsm`.
        stride, padding, dilation, groups: as in torch.nn.functional.conv2d; "same" needs stride 1.
        activation: "none", "relu", "tanh" or "elu".
        packed: `torch.ops.bigsmall_kernels.pack_wtsm_conv2d(weight)` of the weight as it is now, to spare packing.

    Returns:
        (B*n_segment, Cout, H', W') of x's dtype (autocast's where it is on); channels_last for a channels_last x.
        A NaN or infinity may spread a few pixels further than in a direct convolution.

    Raises:
        TypeError, ValueError: naming the argument, what it was and what was expected.

    Source: BigSmall (WACV 2024) section 3.3; FACTS 1.1, 1.2.
    """
    options = (weight, bias, n_segment, fold_div, wrap, stride, padding, dilation, groups, activation, packed)
    if straight((x, weight, bias, packed), n_segment, fold_div, groups):
        try:
            _, _, kh, kw = weight.shape
            *geometry, odd = _known_geometry(stride, padding, dilation, kh, kw)
            if odd == _NONE:
                tail = (*geometry, groups, activation, packed)
                result: Tensor = call("wtsm_conv2d", x, weight, bias, n_segment, fold_div, wrap, *tail)
                return result
        except Exception:  # which argument it was, the checks say
            pass
    return _checked(x, *options)


def _checked(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    n_segment: int,
    fold_div: int,
    wrap: bool,
    stride: Pair,
    padding: Pair | str,
    dilation: Pair,
    groups: int,
    activation: str,
    packed: Tensor | None,
) -> Tensor:
    """`wtsm_conv2d` behind all checks of its arguments."""
    _check.floating("x", x)
    _, channels, *image = _check.clips(x, n_segment, fold_div)
    _check.positive("groups", groups)
    _check.one_of("activation", activation, ACTIVATIONS)
    x, (weight, bias) = _check.autocast(x, weight, bias)
    if channels % groups:
        raise ValueError(f"groups must divide x's {channels} channels, got {groups}")
    filters, _, *kernel = _check.parameters(("weight", "bias"), weight, bias, x, channels // groups)
    if filters % groups:
        raise ValueError(f"groups must divide weight's {filters} filters, got {groups}")
    strides, paddings, dilations, odd = _geometry(stride, padding, dilation, *kernel)
    if odd != _NONE:
        x = F.pad(x, (0, odd[1], 0, odd[0]))
    for axis in (0, 1):
        room, reach = image[axis] + odd[axis] + 2 * paddings[axis], dilations[axis] * (kernel[axis] - 1) + 1
        if room < reach:
            raise ValueError(f"weight reaches over {reach} pixels, more than x's padded {'HW'[axis]} of {room}")
    if packed is not None:
        _check.packed(packed, reference.packed_size(weight))
    result: Tensor = call(
        "wtsm_conv2d",
        x,
        weight,
        bias,
        n_segment,
        fold_div,
        wrap,
        strides,
        paddings,
        dilations,
        groups,
        activation,
        packed,
    )
    return result


def wtsm_conv2d_stack(
    x: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    n_segment: int = 3,
    fold_div: int = 3,
    *,
    wrap: bool = True,
    activation: str = "relu",
    packed: Tensor | None = None,
) -> Tensor:
    """A chain of `wtsm_conv2d` layers (3x3, stride 1, padding 1), the activation after each: a whole Small trunk.

    Args:
        x: (B*n_segment, C, H, W), clip-major; float32, float64, float16 or bfloat16, any strides.
        weights: the layers' (Cout, Cin, 3, 3), of x's dtype, each layer's Cin the Cout of the one before.
        biases: the layers' (Cout,).
        n_segment, fold_div, wrap, activation: as in `wtsm_conv2d`, for every layer.
        packed: `torch.ops.bigsmall_kernels.pack_wtsm_conv2d_stack(weights)` of the weights as they are now.

    Returns:
        (B*n_segment, Cout of the last layer, H, W), as of `wtsm_conv2d`. In bfloat16 the outputs between layers are
        rounded, as eager rounds them, of images up to 1,024 pixels where the processor has AMX, and stay floats
        elsewhere, and where a clip is large and there are fewer than 8 or a layer inside has fewer than 4 channels.

    Raises:
        TypeError, ValueError: naming the argument, what it was and what was expected.

    Source: BigSmall (WACV 2024) section 3.2; FACTS 1.1 (Small branch).
    """
    options = (weights, biases, n_segment, fold_div, wrap, activation, packed)
    lists = type(weights) is list and type(biases) is list
    if lists and straight((x, packed, *weights, *biases), n_segment, fold_div):
        try:
            result: Tensor = call("wtsm_conv2d_stack", x, *options)
            return result
        except Exception:  # which argument it was, the checks say
            pass
    return _checked_stack(x, *options)


def _checked_stack(
    x: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    n_segment: int,
    fold_div: int,
    wrap: bool,
    activation: str,
    packed: Tensor | None,
) -> Tensor:
    """`wtsm_conv2d_stack` behind all checks of its arguments."""
    _check.floating("x", x)
    channels = _check.clips(x, n_segment, fold_div)[1]
    _check.one_of("activation", activation, ACTIVATIONS)
    n = len(weights)
    if n == 0 or n != len(biases):
        raise ValueError(f"weights and biases must be one each a layer, got {n} and {len(biases)}")
    x, parameters = _check.autocast(x, *weights, *biases)
    weights, biases = list(parameters[:n]), list(parameters[n:])
    for i in range(n):
        names = (f"weights[{i}]", f"biases[{i}]")
        _check.tensor(names[1], biases[i])
        channels = _check.parameters(names, weights[i], biases[i], x, channels, three=True)[0]
    if packed is not None:
        _check.packed(packed, sum(reference.packed_size(weight) for weight in weights))
    result: Tensor = call("wtsm_conv2d_stack", x, weights, biases, n_segment, fold_div, wrap, activation, packed)
    return result


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, *ctx.args, _ = inputs
    ctx.mask = [t is not None and t.requires_grad for t in (x, weight, bias)]
    ctx.has_bias = bias is not None
    ctx.save_for_backward(output, x, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    grads = ops.wtsm_conv2d_backward(grad, *ctx.saved_tensors, ctx.has_bias, *ctx.args, ctx.mask)
    return *given(ctx.mask, grads), *[None] * 9


def _stack_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weights, biases, *ctx.args, _ = inputs
    ctx.layers = len(weights)
    ctx.need_x = x.requires_grad
    ctx.save_for_backward(x, *weights, *biases)


def _stack_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, *parameters = ctx.saved_tensors
    n = ctx.layers
    gx, *grads = ops.wtsm_conv2d_stack_backward(grad, x, parameters[:n], parameters[n:], *ctx.args, ctx.need_x)
    return gx if ctx.need_x else None, grads[:n], grads[n:], *[None] * 5


register_autograd("wtsm_conv2d", _backward, _setup)
register_autograd("wtsm_conv2d_stack", _stack_backward, _stack_setup)

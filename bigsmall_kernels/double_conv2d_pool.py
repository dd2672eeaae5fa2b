"""One block of the Big branch: two convolutions and a pooling, depth-first."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from . import _check, reference
from ._library import call, given, ops, register_autograd


def double_conv2d_pool(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    pool: int,
    *,
    packed: Tensor | None = None,
) -> Tensor:
    """conv3x3 - ReLU - conv3x3 - ReLU - average pool, without the intermediates in memory.

    Args:
        x: (B, C, H, W); float32, float64, float16 or bfloat16, any strides.
        weight1: (Cmid, C, 3, 3), of x's dtype; bias1: (Cmid,) or None.
        weight2: (Cout, Cmid, 3, 3), of x's dtype; bias2: (Cout,) or None.
        pool: side and stride of the average pooling; odd rests are dropped (floor).
        packed: `torch.ops.bigsmall_kernels.pack_double_conv2d_pool(weight1, weight2)` of the weights as they are now,
            to spare packing at each call.

    Returns:
        (B, Cout, H // pool, W // pool) of x's dtype (autocast's where it is on); channels_last for a channels_last x.
        A NaN or infinity may spread a few pixels further than in a direct convolution. In bfloat16 the first
        convolution's outputs are rounded, as eager rounds them, where the processor has AMX, and stay floats elsewhere.

    Raises:
        TypeError, ValueError: naming the argument, what it was and what was expected.

    Source: BigSmall (WACV 2024) section 3.1; FACTS 1.1 (Big branch).
    """
    _check.floating("x", x)
    shape = x.shape
    if len(shape) != 4:
        raise ValueError(f"x must be (B, C, H, W), got {len(shape)} dimensions: {tuple(shape)}")
    if shape[1] == 0:
        raise ValueError(f"x must have at least one channel, got {tuple(shape)}")
    _check.positive("pool", pool)
    if shape[2] < pool or shape[3] < pool:
        raise ValueError(f"pool must be at most x's height and width {tuple(shape[2:])}, got {pool}")
    x, (weight1, bias1, weight2, bias2) = _check.autocast(x, weight1, bias1, weight2, bias2)
    middle = _check.parameters(("weight1", "bias1"), weight1, bias1, x, shape[1], three=True)[0]
    _check.parameters(("weight2", "bias2"), weight2, bias2, x, middle, three=True)
    if packed is not None:
        _check.packed(packed, reference.packed_block_size(weight1, weight2))
    result: Tensor = call("double_conv2d_pool", x, weight1, bias1, weight2, bias2, pool, packed)
    return result


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.pool, _ = inputs
    ctx.mask = [t is not None and t.requires_grad for t in tensors]
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    grads = ops.double_conv2d_pool_backward(grad, *ctx.saved_tensors, ctx.pool, ctx.mask)
    return *given(ctx.mask, grads), None, None


register_autograd("double_conv2d_pool", _backward, _setup)

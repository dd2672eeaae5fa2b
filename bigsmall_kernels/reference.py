"""The plain PyTorch definition of every op: the law, the fallback and the baseline.

Every function here takes exactly the arguments of the op of the same name in `_library.py`, works on any device, dtype
and strides, and is differentiable by autograd where the op is. `*_backward` functions are the vector-Jacobian products;
those of the convolutions call the forward ops again, whose kernels are the fast ones where there are any.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "elu": F.elu,
}


def memory_format(x: Tensor) -> torch.memory_format:
    """The layout of an op's 4-d output: channels_last for a channels_last input, else contiguous."""
    if x.dim() != 4 or x.is_contiguous():
        return torch.contiguous_format
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format


# --- wtsm -------------------------------------------------------------------------------------------------------------


def _shift(x: Tensor, n_segment: int, fold_div: int, wrap: bool, direction: int) -> Tensor:
    clips = x.reshape(-1, n_segment, *x.shape[1:])
    fold = x.shape[1] // fold_div
    ahead, behind, same = clips[:, :, :fold], clips[:, :, fold : 2 * fold], clips[:, :, 2 * fold :]
    ahead, behind = ahead.roll(-direction, 1), behind.roll(direction, 1)
    if not wrap:
        first = torch.zeros(n_segment, dtype=torch.bool, device=x.device)
        first[0] = True
        last = first.flip(0)
        ahead_edge, behind_edge = (last, first) if direction == 1 else (first, last)
        ahead = ahead.masked_fill(ahead_edge.view(1, -1, 1, 1, 1), 0)
        behind = behind.masked_fill(behind_edge.view(1, -1, 1, 1, 1), 0)
    return torch.cat((ahead, behind, same), 2).reshape(x.shape).contiguous(memory_format=memory_format(x))


def wtsm(x: Tensor, n_segment: int, fold_div: int, wrap: bool) -> Tensor:
    """FACTS 1.2: with f = C // fold_div, channels [0, f) from the next frame, [f, 2f) from the previous."""
    return _shift(x, n_segment, fold_div, wrap, 1)


def wtsm_backward(grad: Tensor, n_segment: int, fold_div: int, wrap: bool) -> Tensor:
    """The adjoint of `wtsm`: the same shift with the two directions exchanged."""
    return _shift(grad, n_segment, fold_div, wrap, -1)


# --- wtsm_conv2d ------------------------------------------------------------------------------------------------------


def wtsm_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    n_segment: int,
    fold_div: int,
    wrap: bool,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    activation: str,
    packed: Tensor | None = None,
) -> Tensor:
    """Shift, convolve, activate. `packed` is a copy of `weight` for the compiled kernels and plays no part here."""
    y = F.conv2d(wtsm(x, n_segment, fold_div, wrap), weight, bias, stride, padding, dilation, groups)
    return ACTIVATIONS[activation](y).contiguous(memory_format=memory_format(x))


def activation_backward(grad: Tensor, y: Tensor, activation: str) -> Tensor:
    """Gradient at an activation's input, from the gradient at its output and that output `y`."""
    if activation == "relu":
        result: Tensor = torch.ops.aten.threshold_backward(grad, y, 0)
        return result
    if activation == "tanh":
        return grad * (1 - y * y)
    if activation == "elu":
        return torch.where(y > 0, grad, grad * (y + 1))
    return grad


def _empty(mask: list[bool], grads: tuple[Tensor | None, ...], like: Tensor) -> tuple[Tensor, ...]:
    """An op returns tensors: an empty one stands for a gradient that was not asked for."""
    pairs = zip(grads, mask, strict=True)
    return tuple(g if wanted and g is not None else like.new_empty(0) for g, wanted in pairs)


def wtsm_conv2d_backward(
    grad: Tensor,
    y: Tensor,
    x: Tensor,
    weight: Tensor,
    has_bias: bool,
    n_segment: int,
    fold_div: int,
    wrap: bool,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    activation: str,
    mask: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias (those in `mask`; the others are empty). `y` is the forward's output."""
    ops, shift, identity = torch.ops.bigsmall_kernels, (n_segment, fold_div, wrap), n_segment == 1 and wrap
    shifted = x if identity else ops.wtsm(x, *shift)
    before = activation_backward(grad, y, activation)
    options, reach = (stride, padding, dilation), [k - 1 - p for k, p in zip(weight.shape[2:], padding, strict=True)]
    # At stride 1 the adjoint of a convolution is a convolution, with the filter turned round: the fast kernel's again.
    plain = options[::2] == ([1, 1], [1, 1]) and groups == 1 and min(reach) >= 0
    turned = mask[0] and plain and x.dtype == torch.float32
    aten_mask = [mask[0] and not turned, mask[1], mask[2]]
    gx = gw = gb = None
    if any(aten_mask):
        sizes = [weight.shape[0]] if has_bias else None
        gx, gw, gb = torch.ops.aten.convolution_backward(
            before, shifted, weight, sizes, *options, False, [0, 0], groups, aten_mask
        )
    if turned:
        filters = weight.flip(2, 3).transpose(0, 1)
        gx = ops.wtsm_conv2d(before, filters, None, 1, 1, True, [1, 1], reach, [1, 1], 1, "none", None)
    if gx is not None:
        gx = gx if identity else ops.wtsm_backward(gx, *shift)
        gx = gx.contiguous(memory_format=memory_format(x))
    gx, gw, gb = _empty(mask, (gx, None if gw is None else gw.contiguous(), gb), x)
    return gx, gw, gb


DIRECT_CHANNELS = 4  # up to so many input channels a 3x3 convolution is computed directly, beyond by Winograd
WINOGRAD_3X3 = (  # F(3x3, 3x3): the transform of a 3-tap filter at the points 0, 1/2, -1, 2, infinity
    (1, 0, 0),
    (-8 / 9, -4 / 9, -2 / 9),
    (-2 / 9, 2 / 9, -2 / 9),
    (1 / 9, 2 / 9, 4 / 9),
    (0, 0, 1),
)
WINOGRAD_6X6 = (  # F(6x6, 3x3): the same at 0, 1, -1, 2, -2, 1/2, -1/2, infinity
    (1, 0, 0),
    (-2 / 9, -2 / 9, -2 / 9),
    (-2 / 9, 2 / 9, -2 / 9),
    (1 / 90, 1 / 45, 2 / 45),
    (1 / 90, -1 / 45, 2 / 45),
    (32 / 45, 16 / 45, 8 / 45),
    (32 / 45, -16 / 45, 8 / 45),
    (0, 0, 1),
)


def _pack_direct(weight: Tensor) -> Tensor:
    """(Cout, Cin, kh, kw) -> (ceil(Cout/16), kh, kw, Cin, 16), zero beyond Cout, flat float32."""
    out, in_, kh, kw = weight.shape
    blocks = (out + 15) // 16
    padded = F.pad(weight.float(), (0, 0, 0, 0, 0, 0, 0, blocks * 16 - out))
    return padded.view(blocks, 16, in_, kh, kw).permute(0, 3, 4, 2, 1).reshape(-1)


def _pack_winograd(weight: Tensor, transform: tuple[tuple[float, ...], ...]) -> Tensor:
    """(Cout, Cin, 3, 3) -> (n*n, ceil(Cout/16), Cin, 16), transformed in float64, zero beyond Cout, flat float32."""
    out, in_ = weight.shape[:2]
    blocks = (out + 15) // 16
    g = torch.tensor(transform, dtype=torch.float64, device=weight.device)
    u = torch.einsum("ia,ocab,jb->ijoc", g, weight.double(), g)
    u = F.pad(u, (0, 0, 0, blocks * 16 - out)).float()
    return u.reshape(len(g) ** 2, blocks, 16, in_).transpose(2, 3).reshape(-1)


def _is_3x3(weight: Tensor) -> bool:
    return tuple(weight.shape[2:]) == (3, 3)


def _is_direct(weight: Tensor) -> bool:
    return not _is_3x3(weight) or weight.shape[1] <= DIRECT_CHANNELS


def packed_size(weight: Tensor) -> int:
    """Number of elements of `pack_wtsm_conv2d`."""
    values = weight.shape[2] * weight.shape[3] if _is_direct(weight) else len(WINOGRAD_3X3) ** 2
    floats: int = (weight.shape[0] + 15) // 16 * 16 * weight.shape[1] * values
    return floats + (_tiles_size(weight, _is_few(weight)) if _is_3x3(weight) else 0)


def pack_wtsm_conv2d(weight: Tensor) -> Tensor:
    """As `pack_wtsm_conv2d_stack`, of one layer."""
    return pack_wtsm_conv2d_stack([weight])


# --- wtsm_conv2d_stack ------------------------------------------------------------------------------------------------


def wtsm_conv2d_stack(
    x: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    n_segment: int,
    fold_div: int,
    wrap: bool,
    activation: str,
    packed: Tensor | None = None,
) -> Tensor:
    """A chain of `wtsm_conv2d` layers: 3x3, stride 1, padding 1, activated (FACTS 1.1, Small branch)."""
    for weight, bias in zip(weights, biases, strict=True):
        x = wtsm_conv2d(x, weight, bias, n_segment, fold_div, wrap, [1, 1], [1, 1], [1, 1], 1, activation)
    return x


def wtsm_conv2d_stack_backward(
    grad: Tensor,
    x: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    n_segment: int,
    fold_div: int,
    wrap: bool,
    activation: str,
    need_x: bool,
) -> list[Tensor]:
    """[grad of x or an empty tensor, grads of the weights, grads of the biases]; the activations are computed again."""
    shift, tail = (n_segment, fold_div, wrap), ([1, 1], [1, 1], [1, 1], 1, activation)
    inputs = [x]
    for weight, bias in zip(weights, biases, strict=True):
        inputs.append(torch.ops.bigsmall_kernels.wtsm_conv2d(inputs[-1], weight, bias, *shift, *tail, None))
    grad_weights: list[Tensor] = []
    grad_biases: list[Tensor] = []
    for i in reversed(range(len(weights))):
        mask = [need_x or i > 0, True, True]
        grad, gw, gb = torch.ops.bigsmall_kernels.wtsm_conv2d_backward(
            grad, inputs[i + 1], inputs[i], weights[i], True, *shift, *tail, mask
        )
        grad_weights.insert(0, gw)
        grad_biases.insert(0, gb)
    return [grad, *grad_weights, *grad_biases]


def pack_wtsm_conv2d_stack(weights: list[Tensor]) -> Tensor:
    """The filters in blocks of 16 outputs, in the Winograd domain for 3x3; then the 3x3 ones as tiles of bfloat16.

    The same for any instruction set.
    """
    floats = (_pack_direct(w) if _is_direct(w) else _pack_winograd(w, WINOGRAD_3X3) for w in weights)
    tiles = (_pack_tiles(w, _is_few(w)) for w in weights if _is_3x3(w))
    return torch.cat([*floats, *tiles])


# --- double_conv2d_pool -----------------------------------------------------------------------------------------------


def double_conv2d_pool(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    pool: int,
    packed: Tensor | None = None,
) -> Tensor:
    """conv3x3 - ReLU - conv3x3 - ReLU - average pool (FACTS 1.1, Big branch); padding 1, floor pooling."""
    y = F.relu(F.conv2d(F.relu(F.conv2d(x, weight1, bias1, padding=1)), weight2, bias2, padding=1))
    return F.avg_pool2d(y, pool).contiguous(memory_format=memory_format(x))


def double_conv2d_pool_backward(
    grad: Tensor,
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    pool: int,
    mask: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight1, bias1, weight2, bias2 (those in `mask`); both layers' outputs are computed again."""
    conv_backward = torch.ops.bigsmall_kernels.wtsm_conv2d_backward
    plain = (1, 1, True, [1, 1], [1, 1], [1, 1], 1, "relu")  # n_segment 1: the shift is the identity

    def conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.dtype == torch.float32:
            y: Tensor = torch.ops.bigsmall_kernels.wtsm_conv2d(x, weight, bias, *plain, None)
            return y
        return F.relu(F.conv2d(x, weight, bias, padding=1))  # in half precision the processor's own instructions win

    given, x = x, x.contiguous(memory_format=torch.channels_last)  # the layout that convolutions like best
    grad = grad.contiguous(memory_format=torch.channels_last)
    hidden = conv(x, weight1, bias1)
    y = conv(hidden, weight2, bias2)
    grad = torch.ops.aten.avg_pool2d_backward(grad, y, [pool, pool], [], [0, 0], False, True, None)
    mask2 = [any(mask[:3]), mask[3], mask[4]]
    grad, gw2, gb2 = conv_backward(grad, y, hidden, weight2, bias2 is not None, *plain, mask2)
    if not mask2[0]:
        none = x.new_empty(0)
        return none, x.new_empty(0), x.new_empty(0), gw2, gb2
    gx, gw1, gb1 = conv_backward(grad, hidden, x, weight1, bias1 is not None, *plain, mask[:3])
    return gx.contiguous(memory_format=memory_format(given)) if mask[0] else gx, gw1, gb1, gw2, gb2


def _words_of_few(channels: int) -> int:
    return (3 * channels + 1) // 2


def _is_few(weight: Tensor) -> bool:
    """Whether all that an output of a 3x3 convolution sees fits into 32 values: up to three channels."""
    return 3 * _words_of_few(weight.shape[1]) <= 16


def _pack_tiles(weight: Tensor, few: bool) -> Tensor:
    """(Cout, Cin, 3, 3) -> (ceil(Cout/32), tiles, 2, 16, 16, 2) in bfloat16, flat, two in a float32's place.

    For each 32 outputs and each 32 values that they see, two matrices of 16 pairs of values by 16 outputs. The values
    are 32 channels at one place, or of few channels the whole neighbourhood: column, row, channel, each column's filled
    up to pairs. Zero where there is nothing.
    """
    out, in_ = weight.shape[:2]
    if few:
        columns = weight.permute(0, 3, 2, 1).reshape(out, 3, 3 * in_)
        values = F.pad(columns, (0, 2 * _words_of_few(in_) - 3 * in_)).reshape(out, -1)
        values = F.pad(values, (0, 32 - values.shape[1]))
    else:
        values = F.pad(weight.permute(0, 2, 3, 1), (0, -in_ % 32)).reshape(out, -1)
    values = F.pad(values, (0, 0, 0, -out % 32)).reshape(-1, 2, 16, values.shape[1] // 32, 16, 2)
    return values.permute(0, 3, 1, 4, 2, 5).float().bfloat16().contiguous().flatten().view(torch.float32)


def _tiles_size(weight: Tensor, few: bool) -> int:
    """Number of elements of `_pack_tiles`."""
    out, in_ = weight.shape[:2]
    size: int = (out + 31) // 32 * 512 * (1 if few else 9 * ((in_ + 31) // 32))
    return size


def pack_double_conv2d_pool(weight1: Tensor, weight2: Tensor) -> Tensor:
    """Both filters in the Winograd domain, and both as tiles of bfloat16; the same for any instruction set."""
    winograd = (_pack_winograd(w, WINOGRAD_6X6) for w in (weight1, weight2))
    return torch.cat([*winograd, _pack_tiles(weight1, _is_few(weight1)), _pack_tiles(weight2, False)])


def packed_block_size(weight1: Tensor, weight2: Tensor) -> int:
    """Number of elements of `pack_double_conv2d_pool`."""
    size = 0
    for weight, few in ((weight1, _is_few(weight1)), (weight2, False)):
        out, in_ = weight.shape[:2]
        size += len(WINOGRAD_6X6) ** 2 * ((out + 15) // 16) * 16 * in_
        size += _tiles_size(weight, few)
    return size


# --- the normalisers --------------------------------------------------------------------------------------------------


def real(frames: Tensor) -> Tensor:
    """float64 stays; everything else is computed and returned in float32."""
    return frames if frames.dtype == torch.float64 else frames.float()


def _std(x: Tensor) -> Tensor:
    """Population standard deviation of everything, summed in float64 (FACTS 3.2); of a constant exactly 0."""
    y = x.double()
    return (y - y.detach().flatten()[:1].sum()).var(correction=0).sqrt()


def _filled(value: float, like: Tensor, dtype: torch.dtype) -> Tensor:
    """A number on a device; a copy of it from the host would be waited for."""
    return torch.full((), value, dtype=dtype, device=like.device)


def _divide(x: Tensor, std: Tensor | float) -> Tensor:
    """x / std, and zeros for a zero std (FACTS 3.2: a constant video gives zeros); NaN propagates."""
    std = std if isinstance(std, Tensor) else _filled(std, x, torch.float64)
    scale = torch.where(std == 0, 0.0, 1.0 / torch.where(std == 0, 1.0, std))
    return (x * scale).to(x.dtype)


def difference(frames: Tensor, eps: float) -> Tensor:
    """(T, ...) -> (T-1, ...): (x[t+1] - x[t]) / (x[t+1] + x[t] + eps) (FACTS 3.2)."""
    x = real(frames)
    return (x[1:] - x[:-1]) / (x[1:] + x[:-1] + eps)


def diff_normalize(frames: Tensor, eps: float, std: float | None) -> Tensor:
    """`difference` over its standard deviation, or over `std`."""
    d = difference(frames, eps)
    y = _divide(d, _std(d) if std is None else std)
    return y.contiguous(memory_format=memory_format(frames))


def standardize(frames: Tensor, mean: float | None, std: float | None) -> Tensor:
    """(x - mean) / std, each the whole input's own where not given (FACTS 3.2)."""
    x = real(frames)
    centre = x.double().mean() if mean is None else mean
    y = _divide((x.double() - centre).to(x.dtype), _std(x) if std is None else std)
    return y.contiguous(memory_format=memory_format(frames))


def _normalized_backward(grad: Tensor, x: Tensor, centred: bool, mean: float, std: float | None) -> Tensor:
    """VJP of (x - m) / s for float64 x; m and s are the data's own, or constants."""
    own = _std(x)
    s = own if std is None else _filled(std, x, x.dtype)
    safe = torch.where(s == 0, 1.0, s)
    result = grad
    if centred:
        result = result - grad.mean()
    if std is None:
        m = x.mean() if centred else mean
        y = (x - m) / safe
        result = result - (x - x.mean()) / safe * (grad * y).mean()
    return torch.where(s == 0, 0.0, result / safe)


def standardize_backward(grad: Tensor, frames: Tensor, mean: float | None, std: float | None) -> Tensor:
    """Gradient of `frames` (floating), computed in float64."""
    g = _normalized_backward(grad.double(), frames.double(), mean is None, mean or 0.0, std)
    return g.to(frames.dtype).contiguous(memory_format=memory_format(frames))


def diff_normalize_backward(grad: Tensor, frames: Tensor, eps: float, std: float | None) -> Tensor:
    """Gradient of `frames` (floating), computed in float64."""
    x = frames.double()
    after, before = x[1:], x[:-1]
    total = after + before + eps
    g = _normalized_backward(grad.double(), (after - before) / total, False, 0.0, std)
    g_after = g * (2 * before + eps) / total**2
    g_before = -g * (2 * after + eps) / total**2
    result = torch.zeros_like(x)
    result[1:] += g_after
    result[:-1] += g_before
    return result.to(frames.dtype).contiguous(memory_format=memory_format(frames))


# --- bigsmall_inputs --------------------------------------------------------------------------------------------------


def area_weights(start: Tensor, length: Tensor, size: int, extent: int) -> Tensor:
    """(B,) starts and lengths in pixels -> (B, size, extent): the share of each source pixel in each target's mean."""
    base = start.floor()[:, None]  # the same bits wherever a box stands: positions count from its first pixel
    edges = (
        start[:, None] - base + length[:, None] * torch.arange(size + 1, device=base.device, dtype=base.dtype) / size
    )
    left, right = edges[:, :-1, None], edges[:, 1:, None]
    pixel = (torch.arange(extent, device=base.device, dtype=base.dtype) - base)[:, None]
    overlap = (torch.minimum(right, pixel + 1) - torch.maximum(left, pixel)).clamp_min(0)
    return overlap / (length / size)[:, None, None]


def resize_area(frames: Tensor, boxes: Tensor, size: int) -> Tensor:
    """(T, H, W, 3) -> (T, 3, size, size) float64: the exact means over the target pixels' areas of the box."""
    x, y, w, h = boxes.double().unbind(1)
    rows = area_weights(y, h, size, frames.shape[1])
    columns = area_weights(x, w, size, frames.shape[2])
    return torch.einsum("tij,tjkc,tlk->tcil", rows, frames.double(), columns)


def bigsmall_pixels(frames: Tensor, boxes: Tensor, size: int, pixels: str) -> Tensor:
    """Cropped and resized pixels (T, 3, size, size) float32: `exact` 0..255, `unit` [1/255, 1], `rounded` to whole."""
    x = resize_area(frames, boxes, size)
    if pixels == "unit":
        x = (x / 255).clamp(min=1 / 255)
    y = x.float()
    return y.round() if pixels == "rounded" else y  # rounded from float32, as OpenCV does: a half is a half


def rescale_(x: Tensor, shift: float, factor: float) -> None:
    """x := (x - shift) * factor"""
    x.sub_(shift).mul_(factor)


def bigsmall_inputs(
    frames: Tensor, boxes: Tensor, big_size: int, small_size: int, every: int, pixels: str, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The pass over the decoded frames, before any scaling.

    frames (T, H, W, 3) uint8, boxes (T, 4) float64 -> big (ceil(T/every), 3, S, S) the pixels of frames 0, every, ...;
    small (T-1, 3, s, s) the area means of the difference frames, both frames cut with the earlier one's box;
    sums (T, 4) float64: per frame the sums of x, x^2 over its pixels and of d, d^2 over its difference to the next.
    """
    x = bigsmall_pixels(frames, boxes, big_size, pixels)
    after = bigsmall_pixels(frames[1:], boxes[:-1], big_size, pixels)
    d = (after - x[:-1]) / (after + x[:-1] + eps)
    sums = torch.zeros(len(frames), 4, dtype=torch.float64, device=frames.device)
    for column, part in enumerate((x.double(), x.double() ** 2, d.double(), d.double() ** 2)):
        sums[: len(part), column] = part.sum((1, 2, 3))
    scale = area_weights(d.new_zeros(1).double(), d.new_full((1,), big_size).double(), small_size, big_size)[0]
    small = torch.einsum("ij,tcjk,lk->tcil", scale, d.double(), scale).float()
    return x[::every].contiguous(), small.contiguous(), sums

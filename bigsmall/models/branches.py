"""The two branches that every model of the family is made of (paper section 3; FACTS 1.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bigsmall_kernels as bk

from .network import Network, one_of

MAPS = 64  # channels of a branch's last feature map
HIDDEN = 128  # width of every head
BIG_BLOCKS = (  # (first convolution, second convolution), channels in, middle, out, pooling, dropout after the pooling
    (("big_conv1", "big_conv2"), (3, 32, 32), 2, 0.25),
    (("big_conv3", "big_conv4"), (32, 32, 64), 2, 0.5),
    (("big_conv5", "big_conv6"), (64, 64, MAPS), 4, 0.5),
)
BIG_REDUCTION = 16  # the product of the poolings
SMALL_CONVS = (("small_conv1", 3, 32), ("small_conv2", 32, 32), ("small_conv3", 32, 32), ("small_conv4", 32, MAPS))
SHIFTS = ("wtsm", "tsm", "none")

_BIG_FRAMES_AT_ONCE = 8  # in inference: keeps the block outputs of a long batch within a few MB


def _pack_block(*weights: Tensor) -> Tensor:
    packed: Tensor = torch.ops.bigsmall_kernels.pack_double_conv2d_pool(*weights)
    return packed


def _pack_trunk(*weights: Tensor) -> Tensor:
    packed: Tensor = torch.ops.bigsmall_kernels.pack_wtsm_conv2d_stack(list(weights))
    return packed


def positive(name: str, value: int) -> int:
    """`value` if it is an integer of at least 1, else an error naming the argument."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def _check_images(name: str, x: Tensor, size: int) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor, got {getattr(x, 'dtype', type(x).__name__)}")
    if x.dim() != 4 or tuple(x.shape[1:]) != (3, size, size):
        raise ValueError(f"{name} must have shape (frames, 3, {size}, {size}), got {tuple(x.shape)}")


class BigBranch(Network):
    """Appearance: three blocks of two 3x3 convolutions with ReLU, average pooling and dropout.

    Args:
        big_size: height and width of the frames in pixels; at least 16. The map is `big_size // 16` wide.
    """

    def __init__(self, *, big_size: int = 144) -> None:
        super().__init__()
        if positive("big_size", big_size) < BIG_REDUCTION:
            raise ValueError(f"big_size must be at least {BIG_REDUCTION} (pooling 2, 2 and 4), got {big_size}")
        self.big_size = big_size
        for (first, second), (c_in, c_mid, c_out), _, _ in BIG_BLOCKS:
            self.add_module(first, nn.Conv2d(c_in, c_mid, 3, padding=1))
            self.add_module(second, nn.Conv2d(c_mid, c_out, 3, padding=1))
        self._packed_blocks = [bk.nn.Packed(_pack_block) for _ in BIG_BLOCKS]

    def big_maps(self, big: Tensor) -> Tensor:
        """Standardised frames (n, 3, S, S) -> feature maps (n, 64, S // 16, S // 16)."""
        _check_images("big", big, self.big_size)
        blocks = []
        for (names, _, pool, dropout), pack in zip(BIG_BLOCKS, self._packed_blocks, strict=True):
            first, second = ((self.get_parameter(f"{n}.weight"), self.get_parameter(f"{n}.bias")) for n in names)
            packed = None if self.training else pack(first[0], second[0])
            blocks.append((first, second, pool, dropout, packed))

        def run(x: Tensor) -> Tensor:
            for first, second, pool, dropout, packed in blocks:
                x = bk.double_conv2d_pool(x, *first, *second, pool, packed=packed)
                x = F.dropout(x, dropout, self.training)
            return x

        if torch.is_grad_enabled() or torch.compiler.is_compiling() or big.shape[0] <= _BIG_FRAMES_AT_ONCE:
            return run(big)
        return torch.cat([run(part) for part in torch.split(big, _BIG_FRAMES_AT_ONCE)])


class SmallBranch(Network):
    """Motion: four 3x3 convolutions with ReLU, each after a temporal shift within its clip.

    Args:
        small_size: height and width of the frames in pixels; also of the map.
        n_segment: frames of a clip.
        shift: "wtsm" (wrapping around, the paper's), "tsm" (zero padding) or "none".
    """

    def __init__(self, *, small_size: int = 9, n_segment: int = 3, shift: str = "wtsm", **big: int) -> None:
        super().__init__(**big)  # the Big branch where a model has both: its parameters come first, as released
        self.small_size = positive("small_size", small_size)
        self.n_segment = positive("n_segment", n_segment)
        self.shift = one_of("shift", shift, SHIFTS)
        for name, c_in, c_out in SMALL_CONVS:
            self.add_module(name, nn.Conv2d(c_in, c_out, 3, padding=1))
        self._packed_trunk = bk.nn.Packed(_pack_trunk)

    def small_maps(self, small: Tensor) -> Tensor:
        """Normalised differences (B*N, 3, s, s) -> feature maps (B*N, 64, s, s)."""
        _check_images("small", small, self.small_size)
        weights: list[Tensor] = [self.get_parameter(f"{name}.weight") for name, _, _ in SMALL_CONVS]
        biases: list[Tensor] = [self.get_parameter(f"{name}.bias") for name, _, _ in SMALL_CONVS]
        packed = None if self.training else self._packed_trunk(*weights)
        # Wrapping around within clips of one frame moves nothing: the trunk without a shift.
        n_segment = 1 if self.shift == "none" else self.n_segment
        return bk.wtsm_conv2d_stack(small, weights, biases, n_segment, wrap=self.shift != "tsm", packed=packed)

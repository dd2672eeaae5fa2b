"""The two branches that every model of the family is made of (paper section 3; FACTS 1.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bigsmall_kernels as bk

from .network import Network, check_images, one_of, positive

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

_BIG_FRAMES_AT_ONCE = {"cpu": 8, "cuda": 256}  # in inference: block outputs within a few MB, a GPU's within two GB


def _pack_block(*weights: Tensor) -> Tensor:
    packed: Tensor = torch.ops.bigsmall_kernels.pack_double_conv2d_pool(*weights)
    return packed


def _pack_trunk(*weights: Tensor) -> Tensor:
    packed: Tensor = torch.ops.bigsmall_kernels.pack_wtsm_conv2d_stack(list(weights))
    return packed


class _Branch(Network):
    more_inputs: ClassVar[Mapping[str, int]] = {}  # channels that a convolution reads beyond those listed above

    def _parameters_of(self, name: str) -> tuple[Tensor, Tensor]:
        """The weight and the bias of a layer; `get_parameter` would take twice as long, 40 times a call."""
        layer = getattr(self, name)
        return layer.weight, layer.bias


class BigBranch(_Branch):
    """Appearance: three blocks of two 3x3 convolutions with ReLU, average pooling and dropout.

    Args:
        big_size: height and width of the frames in pixels; at least 16. The map is `big_size // 16` wide.
    """

    last_maps: ClassVar[Mapping[str, str]] = {"big": "big_conv6"}

    def __init__(self, *, big_size: int = 144) -> None:
        super().__init__()
        if positive("big_size", big_size) < BIG_REDUCTION:
            raise ValueError(f"big_size must be at least {BIG_REDUCTION} (pooling 2, 2 and 4), got {big_size}")
        self.big_size = big_size
        for (first, second), (c_in, c_mid, c_out), _, _ in BIG_BLOCKS:
            self.add_module(first, nn.Conv2d(c_in + self.more_inputs.get(first, 0), c_mid, 3, padding=1))
            self.add_module(second, nn.Conv2d(c_mid, c_out, 3, padding=1))
        self._packed_blocks = [bk.nn.Packed(_pack_block) for _ in BIG_BLOCKS]

    def big_maps(self, big: Tensor) -> Tensor:
        """Standardised frames (n, 3, S, S) -> feature maps (n, 64, S // 16, S // 16)."""
        check_images("big", big, self.big_size)
        return self._big_blocks(big)

    def _big_blocks(self, x: Tensor, first: int = 0) -> Tensor:
        """The blocks from the one numbered `first` to the last, a few frames at a time in inference."""
        blocks = [self._big_block(number) for number in range(first, len(BIG_BLOCKS))]

        def run(x: Tensor) -> Tensor:
            if x.is_cuda:  # where channels that are neighbours are loaded together
                x = x.contiguous(memory_format=torch.channels_last)
            for block in blocks:
                x = block(x)
            return x

        step = _BIG_FRAMES_AT_ONCE.get(x.device.type)
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or step is None or x.shape[0] <= step:
            return run(x)
        found = run(x[:step])
        # Into one tensor as they come: parts kept to be joined would lie between what is freed, half a MB a frame.
        maps = found.new_empty(len(x), *found.shape[1:])
        maps[:step] = found
        for at in range(step, len(x), step):
            maps[at : at + step] = run(x[at : at + step])
        return maps

    def _big_block(self, number: int) -> Callable[[Tensor], Tensor]:
        """One block with its weights as they are now."""
        names, _, pool, dropout = BIG_BLOCKS[number]
        first, second = (self._parameters_of(name) for name in names)
        packed = None if self.training else self._packed_blocks[number](first[0], second[0])

        def run(x: Tensor) -> Tensor:
            x = bk.double_conv2d_pool(x, *first, *second, pool, packed=packed)
            return F.dropout(x, dropout) if self.training else x

        return run


class SmallBranch(_Branch):
    """Motion: four 3x3 convolutions with ReLU, each after a temporal shift within its clip.

    Args:
        small_size: height and width of the frames in pixels; also of the map.
        n_segment: frames of a clip.
        shift: "wtsm" (wrapping around, the paper's), "tsm" (zero padding) or "none".
    """

    last_maps: ClassVar[Mapping[str, str]] = {"small": "small_conv4"}

    def __init__(self, *, small_size: int = 9, n_segment: int = 3, shift: str = "wtsm", **big: int) -> None:
        super().__init__(**big)  # the Big branch where a model has both: its parameters come first, as released
        self.small_size = positive("small_size", small_size)
        self.n_segment = positive("n_segment", n_segment)
        self.shift = one_of("shift", shift, SHIFTS)
        for name, c_in, c_out in SMALL_CONVS:
            self.add_module(name, nn.Conv2d(c_in + self.more_inputs.get(name, 0), c_out, 3, padding=1))
        self._packed_trunk = bk.nn.Packed(_pack_trunk)

    def small_maps(self, small: Tensor) -> Tensor:
        """Normalised differences (B*N, 3, s, s) -> feature maps (B*N, 64, s, s)."""
        check_images("small", small, self.small_size)
        return self._small_layers(small, SMALL_CONVS, self._packed_trunk)

    def _small_layers(
        self, x: Tensor, layers: Sequence[tuple[str, int, int]], pack: bk.nn.Packed | None = None
    ) -> Tensor:
        parameters = [self._parameters_of(name) for name, _, _ in layers]
        weights, biases = [weight for weight, _ in parameters], [bias for _, bias in parameters]
        packed = None if self.training or pack is None else pack(*weights)
        # Wrapping around within clips of one frame moves nothing: the trunk without a shift.
        n_segment = 1 if self.shift == "none" else self.n_segment
        return bk.wtsm_conv2d_stack(x, weights, biases, n_segment, wrap=self.shift != "tsm", packed=packed)

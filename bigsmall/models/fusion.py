"""BigSmall with other ways of joining its branches, and with a grey Big (FACTS 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .bigsmall import BigSmall
from .branches import MAPS, SMALL_CONVS
from .network import check_images


class ConcatFusion(BigSmall):
    """The heads read the channels of both maps, Big's first, instead of their sum."""

    head_features = 2 * MAPS

    def _features(self, big_maps: Tensor, small_maps: Tensor) -> Tensor:
        """Both maps for every frame."""
        return torch.cat((big_maps.repeat_interleave(self.big_every, 0), small_maps), 1)


class GreyBig(BigSmall):
    """Big sees the mean of the three colours."""

    more_inputs: ClassVar[Mapping[str, int]] = {"big_conv1": -2}

    def big_maps(self, big: Tensor) -> Tensor:
        """Standardised frames (n, 3, S, S) -> feature maps (n, 64, S // 16, S // 16)."""
        check_images("big", big, self.big_size)
        return self._big_blocks(big.mean(1, keepdim=True))


class Lateral(BigSmall):
    """After Big's first block and Small's second layer each branch reads the other's map too, before its own channels.

    Big's map is averaged down to Small's size, and repeated for the frames that it stands for; the mean of Small's maps
    over those frames is enlarged to Big's.
    """

    more_inputs: ClassVar[Mapping[str, int]] = {"big_conv3": 32, "small_conv3": 32}

    def maps(self, big: Tensor, small: Tensor) -> tuple[Tensor, Tensor]:
        """What the heads read: the maps of the B*N/M frames that Big reads, and those of Small's B*N frames."""
        check_images("big", big, self.big_size)
        check_images("small", small, self.small_size)
        big = self._big_block(0)(big)
        small = self._small_layers(small, SMALL_CONVS[:2])
        from_big = F.adaptive_avg_pool2d(big, self.small_size).repeat_interleave(self.big_every, 0)
        from_small = F.interpolate(small.unflatten(0, (-1, self.big_every)).mean(1), size=big.shape[-1])
        if "small_conv3" in self.more_inputs:
            small = torch.cat((from_big, small), 1)
        if "big_conv3" in self.more_inputs:
            big = torch.cat((from_small, big), 1)
        return self._big_blocks(big, first=1), self._small_layers(small, SMALL_CONVS[2:])


class BigToSmall(Lateral):
    """Only Small reads Big's map."""

    more_inputs: ClassVar[Mapping[str, int]] = {"small_conv3": 32}


class SmallToBig(Lateral):
    """Only Big reads Small's maps."""

    more_inputs: ClassVar[Mapping[str, int]] = {"big_conv3": 32}

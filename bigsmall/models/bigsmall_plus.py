"""BigSmall++: BigSmall with JÂA-Net for Big (paper Tables 2 to 4).

The paper gives no fusion and no code for it exists, so this one is inferred: JÂA-Net's 64-channel features, averaged
down to Small's size, take the place of Big's map in the sum that pulse and respiration are read from, and the action
units are JÂA-Net's own, held for the frames that Big's frame stands for. It reads Big's frames as BigSmall does, 144
pixels wide where JÂA-Net alone has 176.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from .bigsmall import checked_every, read_frames
from .branches import BIG_REDUCTION, HIDDEN, MAPS, SmallBranch
from .jaanet import BP4D_UNITS, JAANet, Seen, checked_size
from .network import TASKS, check_clips, check_images

_POOL = 4  # from JÂA-Net's features to Small's size


class BigSmallPlus(SmallBranch):
    """Action units, pulse and respiration from clips of frames of aligned faces.

    Args:
        n_segment, big_every, shift: as in `BigSmall`.
        action_units: as in `JAANet`, which is trained with landmarks; as the units, they are held for all frames.
        big_size: height and width of Big's frames in pixels, a multiple of 16 from 32 on; Small's are `big_size // 16`.
    """

    tasks, reads, also = TASKS, ("big", "small"), JAANet.also
    last_maps: ClassVar[Mapping[str, str]] = {"big": f"big.{JAANet.last_maps['big']}", **SmallBranch.last_maps}

    def __init__(
        self,
        *,
        n_segment: int = 3,
        big_every: int | None = None,
        shift: str = "wtsm",
        action_units: Sequence[str] = BP4D_UNITS,
        big_size: int = 144,
    ) -> None:
        small_size = checked_size("big_size", big_size) // BIG_REDUCTION
        super().__init__(small_size=small_size, n_segment=n_segment, shift=shift)
        self.big = JAANet(action_units=action_units, size=big_size)
        self.action_units = self.big.action_units
        self.big_size, self.big_every = big_size, checked_every(big_every, n_segment)
        for head in ("bvp", "resp"):
            self.add_module(f"{head}_fc1", nn.Linear(MAPS * small_size**2, HIDDEN))
            self.add_module(f"{head}_fc2", nn.Linear(HIDDEN, 1))

    def forward(self, big: Tensor, small: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """
        Args:
            big: standardised frames (B*N, 3, S, S), or only those that are read, (B*N/M, 3, S, S); index = clip*N + t.
            small: normalised differences (B*N, 3, S // 16, S // 16).
        Returns:
            action-unit logits (B*N, units), derivative of the BVP (B*N, 1), derivative of respiration (B*N, 1).
        """
        seen, bvp, respiration = self._detail(big, small)
        return JAANet.logits(seen).repeat_interleave(self.big_every, 0), bvp, respiration

    def taught(self, big: Tensor, small: Tensor) -> tuple[Seen, Tensor, Tensor]:
        """`forward` with all that is learnt from in place of the logits, (B*N, ...)."""
        seen, bvp, respiration = self._detail(big, small)
        return seen.held(self.big_every), bvp, respiration

    def _detail(self, big: Tensor, small: Tensor) -> tuple[Seen, Tensor, Tensor]:
        check_images("big", big, self.big_size)
        big = read_frames(big, check_clips("small", small, self.n_segment), self.big_every)
        seen = self.big.detail(big)
        features = F.avg_pool2d(seen.features, _POOL).repeat_interleave(self.big_every, 0)
        features = (features + self.small_maps(small)).flatten(1)
        bvp, respiration = (self._head(head, features) for head in ("bvp", "resp"))
        return seen, bvp, respiration

    def _head(self, head: str, features: Tensor) -> Tensor:
        hidden = F.relu(self.get_submodule(f"{head}_fc1")(features))
        output: Tensor = self.get_submodule(f"{head}_fc2")(hidden)
        return output

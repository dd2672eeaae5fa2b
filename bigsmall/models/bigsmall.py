"""The multi-task network and its ablations: BigSmall (WACV 2024, section 3; FACTS 1.1 and 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .branches import BIG_REDUCTION, HIDDEN, MAPS, BigBranch, SmallBranch
from .network import TASKS, check_clips, positive

HEADS = ("au", "bvp", "resp")  # in the order of the outputs, as the authors' files name them
_FEW_ROWS = 64


def read_frames(big: Tensor, frames: int, every: int) -> Tensor:
    """Those of Big's frames that are read, one of `every`, of all `frames` or of only those."""
    if big.shape[0] == frames:
        return big[::every]
    if big.shape[0] != frames // every:
        raise ValueError(
            f"big must hold the {frames} frames of small, or the {frames // every} that are read "
            f"(one of every {every}), got {big.shape[0]}"
        )
    return big


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`F.linear`; of few rows in bfloat16 on a CPU turned round, which takes the library 0.7 of the time."""
    if x.dtype == torch.bfloat16 and x.is_cpu and not torch.compiler.is_compiling() and len(x) <= _FEW_ROWS:
        return torch.addmm(bias.unsqueeze(1), weight, x.t()).t()
    return F.linear(x, weight, bias)


def checked_every(big_every: int | None, n_segment: int) -> int:
    """`big_every`, by default `n_segment`, if it divides `n_segment`, else an error naming the argument."""
    every = positive("big_every", n_segment if big_every is None else big_every)
    if n_segment % every:
        raise ValueError(f"big_every must divide n_segment = {n_segment}, got {big_every}")
    return every


class BigSmall(SmallBranch, BigBranch):
    """Action units, pulse and respiration from clips of frames.

    Big sees one frame of every `big_every` and its map is repeated in time; the maps are summed with Small's, and three
    independent heads read the sum for every frame. Parameter names and shapes are those of the authors' files.

    Args:
        n_segment: N, frames of a clip.
        big_every: M, a divisor of N: Big reads frames 0, M, 2M, ... of a clip. The default is N, the first frame alone.
        shift: the temporal shift of the Small branch: "wtsm", "tsm" or "none".
        out_size: number of action units.
        big_size: height and width of Big's frames in pixels; Small's are `big_size // 16`.
    """

    tasks, reads = TASKS, ("big", "small")
    last_maps: ClassVar[Mapping[str, str]] = {**BigBranch.last_maps, **SmallBranch.last_maps}
    head_features = MAPS  # channels of the map that the heads read

    def __init__(
        self,
        *,
        n_segment: int = 3,
        big_every: int | None = None,
        shift: str = "wtsm",
        out_size: int = 12,
        big_size: int = 144,
    ) -> None:
        small_size = max(1, positive("big_size", big_size) // BIG_REDUCTION)
        super().__init__(small_size=small_size, n_segment=n_segment, shift=shift, big_size=big_size)
        self.big_every = checked_every(big_every, n_segment)
        for task, outputs in zip(HEADS, (positive("out_size", out_size), 1, 1), strict=True):
            self.add_module(f"{task}_fc1", nn.Linear(self.head_features * small_size**2, HIDDEN))
            self.add_module(f"{task}_fc2", nn.Linear(HIDDEN, outputs))

    def forward(self, big: Tensor, small: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """
        Args:
            big: standardised frames (B*N, 3, S, S), or only those that are read, (B*N/M, 3, S, S); index = clip*N + t.
            small: normalised differences (B*N, 3, S // 16, S // 16).
        Returns:
            action-unit logits (B*N, out_size), derivative of the BVP (B*N, 1), derivative of respiration (B*N, 1).
        """
        big = read_frames(big, check_clips("small", small, self.n_segment), self.big_every)
        return self.heads(*self.maps(big, small))

    def maps(self, big: Tensor, small: Tensor) -> tuple[Tensor, Tensor]:
        """What the heads read: the maps of the B*N/M frames that Big reads, and those of Small's B*N frames."""
        return self.big_maps(big), self.small_maps(small)

    def heads(self, big_maps: Tensor, small_maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The outputs of `forward` from the maps of Big's B*N/M frames and of Small's B*N frames."""
        features = self._features(big_maps.flatten(1), small_maps.flatten(1))
        au, bvp, respiration = (self._head(task, features) for task in HEADS)
        return au, bvp, respiration

    def _features(self, big_maps: Tensor, small_maps: Tensor) -> Tensor:
        """The sum of the maps for every frame: less work than the products of either branch's maps apart, although
        Big's would then be computed once for the frames that it stands for."""
        clips: Tensor = small_maps.unflatten(0, (big_maps.shape[0], self.big_every))
        return (clips + big_maps.unsqueeze(1)).flatten(0, 1)

    def _head(self, task: str, features: Tensor) -> Tensor:
        # Three products read the 8 MB of first-layer weights once, as one over their concatenation would: that was no
        # faster, and to know that such a copy is fresh takes 2 ms.
        hidden = F.relu(_linear(features, *self._parameters_of(f"{task}_fc1")))
        return F.linear(hidden, *self._parameters_of(f"{task}_fc2"))

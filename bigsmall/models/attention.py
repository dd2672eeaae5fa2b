"""Networks of motion gated by attention: DeepPhys, TS-CAN, MTTS-CAN and EfficientPhys (FACTS 3.6 and 7).

Parameter names are those of the authors' files, misspelt as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bigsmall_kernels as bk

from .branches import HIDDEN, MAPS, SHIFTS
from .network import SIGNALS, Network, check_clips, check_images, one_of, positive

_CHANNELS = (3, 32, 32, MAPS, MAPS)
_LEAST = 10  # pixels that two convolutions without padding and two poolings leave one of
_POOLED_DROPOUT = 0.25


class _Attention(Network):
    """A motion tower, an appearance tower that says where to look, and a head for each task.

    A tower is two stages of two 3x3 convolutions with tanh. After a stage the motion map is multiplied by a mask made
    of the appearance map. With pooling a stage's second convolution is not padded, and average pooling and dropout
    follow the mask; without, maps keep their size.
    """

    last_maps: ClassVar[Mapping[str, str]] = {"big": "apperance_conv4", "small": "motion_conv4"}

    def __init__(
        self,
        task: str | None,
        size: int,
        *,
        pooling: bool,
        n_segment: int,
        shift: str,
        dropout: float = 0.5,
        appearance: bool = True,
    ) -> None:
        super().__init__()
        if positive("size", size) < _LEAST and pooling:
            raise ValueError(f"size must be at least {_LEAST} where maps are pooled, got {size}")
        self.tasks = SIGNALS if task is None else (one_of("task", task, SIGNALS),)
        self.n_segment = positive("n_segment", n_segment)
        self.shift = one_of("shift", shift, SHIFTS)
        self.pooling, self.dropout = pooling, dropout
        for tower in ("motion", "apperance") if appearance else ("motion",):
            shifted = tower == "motion" and shift != "none"
            for number in (1, 2, 3, 4):
                layer = bk.nn.WTSMConv2d(
                    _CHANNELS[number - 1],
                    _CHANNELS[number],
                    n_segment=n_segment if shifted else 1,  # wrapping around within one frame moves nothing
                    wrap=not shifted or shift == "wtsm",
                    padding=0 if pooling and number % 2 == 0 else 1,
                    activation="tanh",
                )
                self.add_module(f"{tower}_conv{number}", layer)
        for stage in (1, 2):
            self.add_module(f"apperance_att_conv{stage}", nn.Conv2d(_CHANNELS[2 * stage], 1, 1))
        self.pool = nn.AvgPool2d(2)
        side = ((size - 2) // 2 - 2) // 2 if pooling else size
        self._heads = ("",) if task else ("_y", "_r")
        for head in self._heads:
            self.add_module(f"final_dense_1{head}", nn.Linear(MAPS * side**2, HIDDEN))
            self.add_module(f"final_dense_2{head}", nn.Linear(HIDDEN, 1))

    def gated(self, motion: Tensor, appearance: Tensor | None) -> Tensor | tuple[Tensor, ...]:
        """The heads' outputs from the frames of both towers; without an appearance, motion makes its own masks."""
        for stage in (1, 2):
            motion = self._stage("motion", stage, motion)
            if appearance is not None:
                appearance = self._stage("apperance", stage, appearance)
            seen = motion if appearance is None else appearance
            mask = torch.sigmoid(self.get_submodule(f"apperance_att_conv{stage}")(seen))
            motion = self._shrink(motion * (mask / (2 * mask.mean((2, 3), keepdim=True))))  # masks of mean 1/2
            if appearance is not None and stage == 1:
                appearance = self._shrink(appearance)
        outputs = tuple(self._head(head, motion.flatten(1)) for head in self._heads)
        return outputs if len(outputs) > 1 else outputs[0]

    def _stage(self, tower: str, stage: int, x: Tensor) -> Tensor:
        for number in (2 * stage - 1, 2 * stage):
            x = self.get_submodule(f"{tower}_conv{number}")(x)
        return x

    def _shrink(self, x: Tensor) -> Tensor:
        return F.dropout(self.pool(x), _POOLED_DROPOUT, self.training) if self.pooling else x

    def _head(self, head: str, features: Tensor) -> Tensor:
        hidden = torch.tanh(self.get_submodule(f"final_dense_1{head}")(features))
        hidden = F.dropout(hidden, self.dropout, self.training)
        output: Tensor = self.get_submodule(f"final_dense_2{head}")(hidden)
        return output


class TwoTowers(_Attention):
    """DeepPhys, TS-CAN and MTTS-CAN as rPPG-Toolbox has them.

    Args:
        task: "pulse", "respiration", or None for both, with a head each (MTTS-CAN).
        size: height and width of the frames in pixels.
        n_segment, shift: of the motion tower: "none" (DeepPhys), "tsm" (TS-CAN, MTTS-CAN) or "wtsm".
        pooling, dropout: False and 0.8 (in the head) for Fig. 5, whose maps keep their size.
    """

    def __init__(
        self,
        *,
        task: str | None = "pulse",
        size: int = 72,
        n_segment: int = 1,
        shift: str = "none",
        pooling: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(task, size, pooling=pooling, n_segment=n_segment, shift=shift, dropout=dropout)
        self.size = size
        self.reads = (f"difference:{size}", f"standard:{size}")

    def forward(self, difference: Tensor, standard: Tensor) -> Tensor | tuple[Tensor, ...]:
        """
        Args:
            difference, standard: (frames, 3, size, size) normalised differences and standardised frames.
        Returns:
            derivative of the signal (frames, 1), or of both.
        """
        check_images("difference", difference, self.size)
        check_images("standard", standard, self.size)
        _check_same("standard", standard, "difference", check_clips("difference", difference, self.n_segment))
        return self.gated(difference, standard)


class FromBig(_Attention):
    """DeepPhys and MTTS-CAN at 9x9 as BigSmall's authors compare with: motion is Small, appearance Big, resized.

    Args:
        task: "pulse", "respiration", or None for both, with a head each (MTTS-CAN).
        n_segment, shift: of the motion tower.
        big_size, small_size: height and width of the frames in pixels.
    """

    reads = ("big", "small")

    def __init__(
        self,
        *,
        task: str | None = "pulse",
        n_segment: int = 1,
        shift: str = "none",
        big_size: int = 144,
        small_size: int = 9,
    ) -> None:
        super().__init__(task, positive("small_size", small_size), pooling=False, n_segment=n_segment, shift=shift)
        self.big_size, self.small_size = positive("big_size", big_size), small_size

    def forward(self, big: Tensor, small: Tensor) -> Tensor | tuple[Tensor, ...]:
        """
        Args:
            big: every standardised frame (frames, 3, big_size, big_size).
            small: normalised differences (frames, 3, small_size, small_size).
        Returns:
            derivative of the signal (frames, 1), or of both.
        """
        check_images("big", big, self.big_size)
        check_images("small", small, self.small_size)
        _check_same("big", big, "small", check_clips("small", small, self.n_segment))
        return self.gated(small, self.appearance(big))

    def appearance(self, big: Tensor) -> Tensor:
        """Big's frames at Small's size: bilinear without antialiasing, so few of its pixels are read, as released."""
        return F.interpolate(big, size=(self.small_size, self.small_size), mode="bilinear", align_corners=False)


class EfficientPhys(_Attention):
    """One tower on the differences of standardised frames, which makes its own masks.

    Differences stay within a clip, whose last frame has the difference 0 (the authors' code appends a copy of a batch's
    last frame and so takes them across clips, FACTS 7). Long clips lose the least by it: the toolbox's have
    n_segment=180, frame_depth=10.

    Args:
        task: "pulse" or "respiration".
        size: height and width of the frames in pixels.
        n_segment: frames of a clip.
        frame_depth: a divisor of n_segment: the temporal shift stays within so many frames. None: within the clip.
        shift: "tsm", "wtsm" or "none".
    """

    last_maps: ClassVar[Mapping[str, str]] = {"small": "motion_conv4"}

    def __init__(
        self,
        *,
        task: str = "pulse",
        size: int = 72,
        n_segment: int = 10,
        frame_depth: int | None = None,
        shift: str = "tsm",
    ) -> None:
        depth = positive("n_segment", n_segment) if frame_depth is None else positive("frame_depth", frame_depth)
        if n_segment % depth:
            raise ValueError(f"frame_depth must divide n_segment = {n_segment}, got {frame_depth}")
        super().__init__(task, size, pooling=True, n_segment=depth, shift=shift, appearance=False)
        self.size, self.n_segment = size, n_segment
        self.reads = (f"standard:{size}",)
        self.batch_norm = nn.BatchNorm2d(3)

    def forward(self, standard: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Standardised frames (frames, 3, size, size) -> derivative of the signal (frames, 1)."""
        check_images("standard", standard, self.size)
        check_clips("standard", standard, self.n_segment)
        clips = standard.unflatten(0, (-1, self.n_segment))
        difference = torch.diff(clips, dim=1, append=clips[:, -1:]).flatten(0, 1)
        return self.gated(self.batch_norm(difference), None)


def _check_same(name: str, x: Tensor, other: str, frames: int) -> None:
    if x.shape[0] != frames:
        raise ValueError(f"{name} must hold the {frames} frames of {other}, got {x.shape[0]}")

"""From frames and their boxes to the model's Big and Small inputs, in two passes of bounded memory.

First pass: `InputSums` takes frame after frame and gives the statistics of the whole video. Second pass: `InputPieces`
takes the same frames again and gives the inputs piece by piece, the same numbers as one call of
`bigsmall_kernels.bigsmall_inputs` on the whole video.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

import bigsmall_kernels as bk

Crop = tuple[np.ndarray, Sequence[float]]  # a frame (H, W, 3) uint8 RGB, and the box x, y, w, h to use of it, pixels
PIECE_BYTES = 1 << 26  # of decoded frames held at once
PIECE_FRAMES = 300  # held at once however small they are, for their inputs are not: 75 MB of Big
LEAST = 3  # frames that every convention can make inputs of
LOOKAHEAD = 3  # frames that decide how any convention's last outputs look


def _stack(crops: Sequence[Crop]) -> tuple[Tensor, Tensor]:
    """Frames (T, h, w, 3) cut to what their boxes cover, and the boxes (T, 4) in them."""
    boxes = np.array([box for _, box in crops], dtype=np.float64)
    height, width = crops[0][0].shape[:2]
    x, y = (max(math.floor(v), 0) for v in boxes[:, :2].min(0))
    right, bottom = (math.ceil(v) for v in (boxes[:, :2] + boxes[:, 2:]).max(0))
    frames = np.stack([rgb[y : min(bottom, height), x : min(right, width)] for rgb, _ in crops])
    return torch.from_numpy(frames), torch.from_numpy(boxes - (x, y, 0, 0))


def _full(crops: Sequence[Crop], least: int) -> bool:
    return len(crops) >= max(least, min(PIECE_FRAMES, PIECE_BYTES // max(crops[0][0].nbytes, 1)))


class InputSums:
    """The first pass: the statistics that scale a video's inputs.

    Args:
        big_size: side of the Big input, where statistics are taken.
        convention: as in `bigsmall_kernels.bigsmall_inputs`.
    """

    def __init__(self, *, big_size: int = 144, convention: str = "exact") -> None:
        self._big_size, self._convention = big_size, convention
        self._rows: list[Tensor] = []
        self._held: list[Crop] = []

    def add(self, rgb: np.ndarray, box: Sequence[float]) -> None:
        """The next frame, (H, W, 3) uint8 RGB, and its box x, y, w, h. It is kept a while: not to be overwritten."""
        if self._held and _full(self._held, LEAST):  # what stays is, with this frame, long enough for every convention
            self._rows.append(self._sums()[: 1 - LEAST])
            del self._held[: 1 - LEAST]
        self._held.append((rgb, box))

    def cut(self) -> None:
        """The next frame does not follow the last: no difference is taken between them.

        Stretches of fewer than three frames between two cuts count for nothing.
        """
        if len(self._held) >= LEAST:
            self._rows.append(self._sums())
        self._held = []

    def stats(self) -> bk.InputStats:
        """Of all frames so far.

        Raises:
            ValueError: too few frames for the convention, or a box outside its picture.
        """
        rows = [*self._rows, *([self._sums()] if self._held else []), torch.zeros(0, 4, dtype=torch.float64)]
        return bk.InputStats.from_sums(torch.cat(rows), big_size=self._big_size, convention=self._convention)

    def _sums(self) -> Tensor:
        frames, boxes = _stack(self._held)
        return bk.bigsmall_input_sums(frames, boxes, big_size=self._big_size, convention=self._convention)


class InputPieces:
    """The second pass: the inputs, whole clips at a time.

    Args:
        stats: from the first pass.
        big_size, small_size, n_segment, all_big, convention: as in `bigsmall_kernels.bigsmall_inputs`.
    """

    def __init__(
        self,
        stats: bk.InputStats,
        *,
        big_size: int = 144,
        small_size: int = 9,
        n_segment: int = 3,
        all_big: bool = False,
        convention: str = "exact",
    ) -> None:
        self._stats, self._n_segment, self._all_big = stats, n_segment, all_big
        self._big_size, self._small_size, self._convention = big_size, small_size, convention
        self._held: list[Crop] = []

    def add(self, rgb: np.ndarray, box: Sequence[float]) -> tuple[Tensor, Tensor] | None:
        """The next frame of the first pass, with its box.

        Returns:
            big and small of the next clips, float32 NCHW, once there are enough; all of a stretch concatenated are what
            one call on it returns.

        Raises:
            ValueError: a box outside its picture.
        """
        self._held.append((rgb, box))
        if not _full(self._held, self._n_segment + LOOKAHEAD):
            return None
        clips = (len(self._held) - LOOKAHEAD) // self._n_segment
        big, small = self._inputs()
        del self._held[: clips * self._n_segment]
        return big[: clips * (self._n_segment if self._all_big else 1)], small[: clips * self._n_segment]

    def cut(self) -> tuple[Tensor, Tensor] | None:
        """The next frame does not follow the last: what is left of the stretch, None of fewer than 3 frames."""
        made = self._inputs() if len(self._held) >= LEAST else None
        self._held = []
        return made

    def _inputs(self) -> tuple[Tensor, Tensor]:
        return bk.bigsmall_inputs(
            *_stack(self._held), big_size=self._big_size, small_size=self._small_size, n_segment=self._n_segment,
            all_big=self._all_big, convention=self._convention, stats=self._stats,
        )  # fmt: skip

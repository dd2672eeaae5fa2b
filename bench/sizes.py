"""How much data the rows take, and what float64 says about it in bounded memory and time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

STEP = 300  # clips
SIZES = ("1clip", "8clips", "60clips")  # of rows that are measured at fewer sizes than the others
FRAME_BYTES = 144 * 144 * 3 * 4


def frames_beyond_cache() -> Tensor:
    """float32 frames (T, 144, 144, 3) worth four times the last-level cache, but at most a twelfth of the memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    caches = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    largest = max((int(file.read_text().rstrip("K\n")) * 1024 for file in caches), default=64 << 20)
    return torch.rand(min(4 * largest, memory // 12) // FRAME_BYTES, 144, 144, 3) + 0.1


def in_steps(clips: int) -> tuple[int, int]:
    """(the steps that fit in memory, the clips of each): what a call of 3,000 clips would hold is more than 10 GB."""
    steps = max(1, clips // STEP)
    return steps, clips // steps


def frames_of(clips: int, size: int, most: int = 8) -> Tensor:
    """The indices of the frames of all clips, or of some spread evenly over them: float64 would take long for all."""
    chosen = torch.linspace(0, clips - 1, min(clips, most)).long()
    return (chosen[:, None] * size + torch.arange(size)).flatten()


def mean_and_std(pieces: Iterator[Tensor]) -> tuple[float, float]:
    """Population statistics over all pieces, in float64."""
    count, total, square = 0, 0.0, 0.0
    for piece in pieces:
        count += piece.numel()
        total += float(piece.sum())
        square += float(piece.square().sum())
    mean = total / count
    return mean, (square / count - mean**2) ** 0.5

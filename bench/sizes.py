"""Data that does not fit in a cache, and its float64 statistics in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

FRAME_BYTES = 144 * 144 * 3 * 4


def frames_beyond_cache() -> Tensor:
    """float32 frames (T, 144, 144, 3) worth four times the last-level cache, but at most a twelfth of the memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    caches = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    largest = max((int(file.read_text().rstrip("K\n")) * 1024 for file in caches), default=64 << 20)
    return torch.rand(min(4 * largest, memory // 12) // FRAME_BYTES, 144, 144, 3) + 0.1


def mean_and_std(pieces: Iterator[Tensor]) -> tuple[float, float]:
    """Population statistics over all pieces, in float64."""
    count, total, square = 0, 0.0, 0.0
    for piece in pieces:
        count += piece.numel()
        total += float(piece.sum())
        square += float(piece.square().sum())
    mean = total / count
    return mean, (square / count - mean**2) ** 0.5

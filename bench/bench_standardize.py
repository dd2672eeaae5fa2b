"""`standardize` on 144x144 frames: uint8 as decoded, and float32 beyond the last-level cache."""

from __future__ import annotations

from typing import Any

import eager
import numpy as np
import peers
import pytest
import torch
from sizes import SIZES, frames_beyond_cache, mean_and_std

import bigsmall_kernels as bk


def released(frames: np.ndarray) -> np.ndarray:
    """As the authors' preprocessing computes it, in float64 (FACTS 3.2)."""
    x = frames.astype(np.float64)
    x = x - np.mean(x)
    x = x / np.std(x)
    x[np.isnan(x)] = 0
    return x


@pytest.mark.parametrize("clips", [1, 8, 60], ids=SIZES)
def test_standardize(paired: Any, clips: int, threads: int, quick: bool) -> None:
    frames = torch.randint(0, 256, (3 * clips, 144, 144, 3), dtype=torch.uint8)
    array = frames.numpy()
    x = frames.double()
    paired(
        "standardize",
        lambda: bk.standardize(frames),
        [
            ("numpy as released", lambda: released(array)),
            *peers.inference(eager.Standardize(), [frames], threads, quick=quick),
        ],
        [(x - x.mean()) / x.std(correction=0)],
        nbytes=2 * frames.nbytes + 4 * frames.numel(),
        frames=len(frames),
    )


def test_standardize_beyond_cache(paired: Any, threads: int) -> None:
    """The bandwidth row: eager PyTorch is the peer that fits in memory."""
    frames = frames_beyond_cache()
    mean, std = mean_and_std(piece.double() for piece in frames.split(64))
    paired(
        "standardize beyond cache",
        lambda: bk.standardize(frames),
        [("eager NCHW", peers.eager(eager.Standardize(), [frames]))],
        [(frames[:1].double() - mean) / std],
        kernel="standardize",
        nbytes=3 * frames.nbytes,
        frames=len(frames),
        compared=lambda y: y[:1],
        bars={"share_of_copy": 0.8},
    )

"""`diff_normalize` on 144x144 frames: uint8 as decoded, and float32 beyond the last-level cache."""

from __future__ import annotations

from typing import Any

import eager
import numpy as np
import peers
import pytest
import torch
from sizes import SIZES, frames_beyond_cache, mean_and_std
from torch import Tensor

import bigsmall_kernels as bk


def released(frames: np.ndarray) -> np.ndarray:
    """As the authors' preprocessing computes it: float64, a loop over the frames (FACTS 3.2), every difference."""
    x = frames.astype(np.float64)
    differences = np.zeros((len(x) - 1, *x.shape[1:]), dtype=np.float32)
    for t in range(len(x) - 1):
        differences[t] = (x[t + 1] - x[t]) / (x[t + 1] + x[t] + 1e-7)
    differences = differences / np.std(differences)
    differences[np.isnan(differences)] = 0
    return differences


def difference(frames: Tensor) -> Tensor:
    x = frames.double()
    return (x[1:] - x[:-1]) / (x[1:] + x[:-1] + 1e-7)


@pytest.mark.parametrize("clips", [1, 8, 60], ids=SIZES)
def test_diff_normalize(paired: Any, clips: int, threads: int, quick: bool) -> None:
    frames = torch.randint(1, 256, (3 * clips + 1, 144, 144, 3), dtype=torch.uint8)
    array = frames.numpy()
    d = difference(frames)
    paired(
        "diff_normalize",
        lambda: bk.diff_normalize(frames),
        [
            ("numpy as released", lambda: released(array)),
            *peers.inference(eager.DiffNormalize(), [frames], threads, quick=quick),
        ],
        [d / d.std(correction=0)],
        nbytes=2 * frames.nbytes + 4 * d.numel(),
        frames=len(frames),
    )


def test_diff_normalize_beyond_cache(paired: Any, threads: int) -> None:
    """The bandwidth row: eager PyTorch is the peer that fits in memory."""
    frames = frames_beyond_cache()
    _, std = mean_and_std(difference(frames[t : t + 65]) for t in range(0, len(frames) - 1, 64))
    paired(
        "diff_normalize beyond cache",
        lambda: bk.diff_normalize(frames),
        [("eager NCHW", peers.eager(eager.DiffNormalize(), [frames]))],
        [difference(frames[:2]) / std],
        kernel="diff_normalize",
        nbytes=2 * frames.nbytes + frames[1:].nbytes,
        frames=len(frames),
        compared=lambda y: y[:1],
        bars={"share_of_copy": 0.8},
    )

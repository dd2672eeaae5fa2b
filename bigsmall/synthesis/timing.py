"""When pictures are taken, and which of them the frames of a file show."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Timing(NamedTuple):
    """T frames of a file and the P pictures that they show."""

    timestamps: np.ndarray  # (T,) float64, seconds: when each frame is shown
    pictures: np.ndarray  # (T,) int64: which picture it shows
    taken: np.ndarray  # (T,) float64, seconds: when that was taken


def timing(
    n: int,
    fps: float,
    shot_fps: float | None,
    jitter: float,
    dropped: float,
    repeated: float,
    rng: np.random.Generator,
) -> Timing:
    """Times of the frames that are left of `n` at `fps`.

    `shot_fps`: the camera's rate where it was another; the file shows, at each of its times, the latest picture.
    `jitter`: how far a picture is taken off its time, in frame intervals, uniform to either side up to half of it;
    its timestamp says so, but a re-encoded file's does not. `dropped`, `repeated`: shares of frames that are missing,
    and that show the picture before again.
    """
    grid = np.arange(n) / fps
    rate = fps if shot_fps is None else shot_fps
    pictures = np.floor(grid * rate + 1e-6).astype(np.int64)
    taken = (np.arange(pictures[-1] + 1) + jitter * rng.uniform(-0.5, 0.5, pictures[-1] + 1)) / rate
    taken -= taken[0]
    timestamps = taken if shot_fps is None else grid
    again = rng.uniform(size=n) < repeated
    again[0] = False
    pictures = np.maximum.accumulate(np.where(again, 0, pictures))
    kept = rng.uniform(size=n) >= dropped
    kept[[0, -1]] = True
    return Timing(timestamps[kept], pictures[kept], taken[pictures[kept]])

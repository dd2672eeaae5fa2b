"""Movement between pictures by 1-D profiles: a few hundred numbers a frame, so that it costs next to nothing.

`Breathing` follows chest and shoulders below the face: an estimate of respiration that shares neither the pixels of the
face nor a network with the first one, as POS is for the pulse.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bigsmall.signals.filters import Array

STRIPS = 12  # upright strips across the chest
# Of the chest: left, right (face widths from its middle), top, bottom (face heights below it).
REACH = (-1.6, 1.6, 0.05, 1.0)
LEAST_HEIGHT = 0.15  # face heights of chest below which there is nothing to follow
FAR = 3.0  # pixels: a movement beyond which the profiles are compared with the present picture's


def shift(profiles: Array, reference: Array) -> tuple[Array, Array]:
    """How far `profiles` (n, columns) have moved from `reference` along axis 0, and how surely: both (columns,).

    The least squares of Lucas and Kanade (1981) in one dimension, free of brightness and contrast. The weight is
    the inverse variance of the shift for noise of one level; it is zero where nothing stands out.
    """
    basis = reference - reference.mean(axis=0)
    scale = (basis**2).sum(axis=0)
    slope = np.gradient(reference, axis=0)
    slope -= slope.mean(axis=0) + basis * _ratio((slope * basis).sum(axis=0), scale)
    weight = (slope**2).sum(axis=0)
    contrast = _ratio((profiles * basis).sum(axis=0), scale)
    return -_ratio((slope * profiles).sum(axis=0), weight * contrast), weight


def _ratio(x: Array, y: Array) -> Array:
    """x / y, zero where y is."""
    return np.divide(x, y, out=np.zeros_like(y), where=y != 0)


class Breathing:
    """Follows the chest of one person, frame by frame."""

    def __init__(self) -> None:
        self._reference: Array | None = None
        self._place: tuple[int, int, int, int] | None = None
        self._down = 0.0  # from the reference to the frame before, pixels

    def update(self, rgb: np.ndarray, face: Sequence[float], moved: bool = False) -> float:
        """How far chest and shoulders went down since the frame before, in face heights.

        Args:
            rgb: the picture (H, W, 3) uint8.
            face: its box x, y, w, h in pixels (more numbers may follow), the same while `moved` is False.
            moved: the box is not the one of the frame before, or frames are missing: nothing is compared across.

        Returns:
            the movement, 0 where there is nothing to compare with, NaN where the picture ends above the chest.
        """
        if moved or self._place is None:
            self._place, self._reference = _chest(rgb, face), None
        left, top, right, bottom = self._place
        if bottom - top < max(LEAST_HEIGHT * face[3], 4) or right - left < 4 * STRIPS:
            return float("nan")
        strips = (right - left) // STRIPS
        step = max(1, strips // 8)
        part = rgb[top:bottom, left : left + strips * STRIPS, 1].reshape(bottom - top, STRIPS, strips)
        profiles = part[:, :, ::step].mean(axis=2, dtype=np.float64)
        if self._reference is None:
            self._reference, self._down = profiles, 0.0
            return 0.0
        down, weight = shift(profiles, self._reference)
        # A sideways movement of sloping shoulders lifts one side and lowers the other: both count the same.
        half = STRIPS // 2
        sides = [np.average(down[side], weights=weight[side] + 1e-9) for side in (slice(half), slice(half, None))]
        now = float(np.mean(sides))
        step_down, self._down = now - self._down, now
        if abs(now) > FAR:
            self._reference, self._down = profiles, 0.0
        return step_down / face[3]


def _chest(rgb: np.ndarray, face: Sequence[float]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom (pixels) of what is seen of the chest below a face."""
    height, width = rgb.shape[:2]
    x, y, w, h = face[:4]
    left, right, top, bottom = REACH
    middle, below = x + w / 2, y + h
    return (
        round(min(max(middle + left * w, 0), width)),
        round(min(max(below + top * h, 0), height)),
        round(min(max(middle + right * w, 0), width)),
        round(min(max(below + bottom * h, 0), height)),
    )

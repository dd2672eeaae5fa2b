"""Under which conditions a face was seen: what lowers the confidence in a rate, and why a rate is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bigsmall.signals.evidence import Band, Spectra
from bigsmall.signals.filters import Array, resample
from bigsmall.signals.motion import shift

# The powers of red, green and blue whose product follows the light, to which all three are proportional, and does not
# follow the pulse, which changes them by 0.33, 0.77 and 0.53 (Wang et al., IEEE TBME 2017).
_PULSE = np.array([[1.0, 1.0, 1.0], [0.33, 0.77, 0.53]])
LIGHT = np.linalg.pinv(_PULSE) @ [1.0, 0.0]
SAMPLES = 64  # the face is looked at in about so many rows and columns


class Look(NamedTuple):
    """What one frame shows of a face; NaN where it cannot be told."""

    width: float  # pixels
    level: float  # mean of its pixels, 0..255
    clipped: float  # share of its pixels with a channel at 250 or above
    dark: float  # share of its pixels with green at 20 or below
    still: float  # share of its pixels exactly as they were in the frame before
    right: float  # its movement since the frame before, in face widths
    down: float
    light: float  # mean level of the picture beside the face, or as the face's colours tell it: whatever the blood does


def look(rgb: np.ndarray, face: Sequence[float], previous: np.ndarray | None = None) -> Look:
    """Look at the face `face` (x, y, w, h in pixels; more numbers may follow) of a picture (H, W, 3) uint8 RGB.

    `previous` is the frame before, where it belongs to the same stretch and has the same size.
    """
    height, width = rgb.shape[:2]
    x, y, w, h = face[:4]
    left, right = (round(min(max(side, 0), width)) for side in (x, x + w))
    top, bottom = (round(min(max(side, 0), height)) for side in (y, y + h))
    if right - left < 8 or bottom - top < 8:
        return Look(w, *[float("nan")] * 7)
    down_step, right_step = max(1, (bottom - top) // SAMPLES), max(1, (right - left) // SAMPLES)
    part = (slice(top, bottom, down_step), slice(left, right, right_step))
    now = np.ascontiguousarray(rgb[part])
    green = now[..., 1].astype(np.float64)
    still = moved_right = moved_down = float("nan")
    if previous is not None and previous.shape == rgb.shape:
        before = np.ascontiguousarray(previous[part])
        same = now == before
        still = float((same[..., 0] & same[..., 1] & same[..., 2]).mean())
        then = before[..., 1].astype(np.float64)
        moved_right = _along(green.mean(axis=0), then.mean(axis=0)) * right_step / w
        moved_down = _along(green.mean(axis=1), then.mean(axis=1)) * down_step / w
    if width - (right - left) < 0.2 * (right - left):  # little lies beside it
        light = float(np.exp(LIGHT @ np.log(np.maximum(now.reshape(-1, 3).mean(axis=0), 1.0))))
    else:
        rows = rgb[top:bottom:8, ::4, 1]
        light = float(np.concatenate([rows[:, : left // 4].ravel(), rows[:, right // 4 :].ravel()]).mean())
    return Look(
        float(w),
        float(now.mean()),
        float(((now[..., 0] >= 250) | (now[..., 1] >= 250) | (now[..., 2] >= 250)).mean()),
        float((green <= 20).mean()),
        still,
        moved_right,
        moved_down,
        light,
    )


def _along(profile: np.ndarray, reference: np.ndarray) -> float:
    return float(shift(profile[:, None], reference[:, None])[0][0])


@dataclass(frozen=True, eq=False)
class Conditions:
    """Under which conditions a stretch of video shows a face.

    Attributes:
        width: of the face, pixels. clipped, dark: shares of its pixels. still: share of its pixels that do not change
            from frame to frame; a sensor's noise changes nearly all, compression leaves them.
        motion: root mean square speed of the face, face widths a second.
        fs: Hz, of the traces, which are evenly sampled: `face` and `light` (T,), the level of the face and of the
            picture beside it, each over its own mean.
    """

    width: float
    clipped: float
    dark: float
    still: float
    motion: float
    fs: float
    face: Array
    light: Array

    @classmethod
    def of(cls, looks: Sequence[Look], timestamps: ArrayLike) -> Conditions:
        """Of a stretch's looks (one a frame) and their `timestamps` (T,), increasing seconds.

        Raises:
            ValueError: fewer than two looks, or not one timestamp for each.
        """
        times = np.asarray(timestamps, dtype=np.float64)
        if len(looks) < 2 or times.shape != (len(looks),):
            raise ValueError(f"timestamps: expected one for each of {len(looks)} looks, 2 or more, got {times.shape}")
        table = np.array(looks, dtype=np.float64)
        column = dict(zip(Look._fields, table.T, strict=True))
        speed = np.nan_to_num(np.hypot(column["right"], column["down"])[1:]) / np.diff(times)
        still = column["still"]
        still = still[still < 1] if (still < 1).any() else still  # a repeated picture says nothing of the others
        fs = (len(times) - 1) / (times[-1] - times[0])
        return cls(
            width=_median(column["width"]),
            clipped=_median(column["clipped"]),
            dark=_median(column["dark"]),
            still=_median(still),
            motion=float(np.sqrt(np.mean(speed**2))),
            fs=fs,
            face=_even(column["level"], times, fs),
            light=_even(column["light"], times, fs),
        )

    def flicker(self, frequency: float, band: Band) -> float:
        """How much of the face's change at `frequency` (Hz) the light explains, 0..1."""
        light, face, rest = (Spectra(x, self.fs, band) for x in (self.light, self.face, self.face - self.light))
        share = 1 - rest.amplitude(frequency) / max(face.amplitude(frequency), 1e-9)
        return max(share, 0.0) * _surely(light.at(frequency))

    def reason(self) -> str | None:
        """The condition that stands most in the way of a measurement, in words; None where none does."""
        severity = {
            f"motion: the face moves by {self.motion:.2f} of its width a second": self.motion / 0.5,
            f"exposure: {100 * self.clipped:.0f} % of the face is overexposed": self.clipped / 0.2,
            f"exposure: {100 * self.dark:.0f} % of the face is nearly black": self.dark / 0.3,
            f"compression: {100 * self.still:.0f} % of the face's pixels do not change": self.still / 0.6,
            f"small face: it is {self.width:.0f} pixels wide": 40 / max(self.width, 1),
        }
        worst = max(severity, key=lambda name: severity[name])
        return worst if severity[worst] >= 1 else None


def _median(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else 0.0


def _even(values: Array, times: Array, fs: float) -> Array:
    """`values` over their mean, NaN bridged, on an even clock; zeros where there are none."""
    known = ~np.isnan(values)
    if not known.any():
        values, known = np.zeros_like(values), ~known
    return resample(np.interp(times, times[known], values[known] / (values[known].mean() or 1.0)), times, fs)


def _surely(evidence: float) -> float:
    """0 without evidence, near 1 from 6 nats on."""
    return float(-np.expm1(-evidence / 3))

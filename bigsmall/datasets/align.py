"""Labels on the frames' clock: what was recorded beside a video, at the moments of its frames.

Labels have clocks of their own: other rates, an earlier start, a later end. They are read at the frames' timestamps,
and where there is no label there is no number. How far the two clocks are apart is reported, never repaired.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

TOLERANCE = 2e-3  # s: so far outside its span a label still counts: Matroska's timestamps are whole milliseconds
RATIO = 0.01  # a label's duration may differ from the video's by so much of it
OFFSET = 0.5  # s: and begin or end so far inside it, before the report warns


class Signal(NamedTuple):
    """A label over time: `values` (n,) float, NaN where unknown, at `times` (n,), increasing seconds of the video.

    With `frames` the times are numbers of the video's frames instead, from 0.
    """

    values: np.ndarray
    times: np.ndarray
    frames: bool = False

    @classmethod
    def even(cls, values: np.ndarray, rate: float, start: float = 0.0) -> Signal:
        """Samples at `rate` Hz, the first at `start` seconds of the video."""
        return cls(np.asarray(values, np.float64), start + np.arange(len(values)) / rate)

    def on(self, clock: np.ndarray) -> Signal:
        """With its times in seconds: the video's frames have theirs at `clock` (n,), and go on at their mean rate."""
        if not self.frames:
            return self
        last, step = len(clock) - 1, (clock[-1] - clock[0]) / max(1, len(clock) - 1)
        number = np.asarray(self.times, np.float64)
        beyond = step * (number - np.clip(number, 0, last))
        return Signal(self.values, np.interp(number, np.arange(last + 1), clock) + beyond)

    def at(self, times: np.ndarray) -> np.ndarray:
        """Linearly interpolated at `times` (T,), seconds: NaN outside the label's span and beside unknown samples.

        Raises:
            ValueError: fewer than two samples, not as many times as values, or times that do not increase.
        """
        known, clock = np.asarray(self.values, np.float64), np.asarray(self.times, np.float64)
        if known.ndim != 1 or known.shape != clock.shape or len(clock) < 2 or not (np.diff(clock) > 0).all():
            shapes = f"values {known.shape} at times {clock.shape}"
            raise ValueError(f"a label had {shapes}, expected at least two values at as many increasing seconds")
        inside = (times >= clock[0] - TOLERANCE) & (times <= clock[-1] + TOLERANCE)
        times = np.clip(times, clock[0], clock[-1])
        before = np.clip(np.searchsorted(clock, times, side="right") - 1, 0, len(clock) - 2)
        share = (times - clock[before]) / (clock[before + 1] - clock[before])
        left, right = known[before], known[before + 1]
        between = left + share * (right - left)  # a sample that is met exactly does not need its neighbour
        made: np.ndarray = np.where(share == 0, left, np.where(share == 1, right, between))
        return np.where(inside, made, np.nan)

    def stretched(self, frames: int, past: int) -> np.ndarray:
        """All n samples, whatever their times, spread over `frames` frames: number linspace(0, n - 1 + past, frames).

        The authors of BigSmall go one past the last (FACTS 3.3), so that the last frames repeat it.
        """
        known = np.asarray(self.values, np.float64)
        return np.interp(np.linspace(0, len(known) - 1 + past, frames), np.arange(len(known)), known)


def drift(signal: Signal, start: float, end: float) -> dict[str, Any]:
    """How a label's clock lies beside that of a video whose frames run from `start` to `end`, seconds.

    Returns:
        seconds: from its first to its last sample; ratio: of that to the video's; begins, ends: seconds after the
        video's first and last frame; warning: a sentence where the ratio is off by more than `RATIO` or the label
        leaves more than `OFFSET` seconds of the video's begin or end without a value, else None.
    """
    seconds, video = float(signal.times[-1] - signal.times[0]), end - start
    begins, ends = float(signal.times[0]) - start, float(signal.times[-1]) - end
    ratio = seconds / video if video else 1.0
    wrong = []
    if abs(ratio - 1) > RATIO:
        wrong.append(f"lasts {seconds:.2f} s and the video {video:.2f} s")
    if begins > OFFSET:
        wrong.append(f"begins {begins:.2f} s after the video")
    if ends < -OFFSET:
        wrong.append(f"ends {-ends:.2f} s before the video")
    return {
        "seconds": round(seconds, 4), "ratio": round(ratio, 6), "begins": round(begins, 4), "ends": round(ends, 4),
        "warning": " and ".join(wrong) or None,
    }  # fmt: skip

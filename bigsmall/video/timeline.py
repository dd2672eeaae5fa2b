"""Timestamps that only go forward, whatever the file says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Times = Sequence[float] | np.ndarray

LEAP = 3600.0  # seconds: no gap between two frames is longer; seconds further back than 1 are a clock set anew
RANGE = 1e10  # seconds: a clock beyond this has no meaning, and no room for milliseconds


class Clock:
    """The user's clock: seconds of the frame number n, by `fps` or by `timestamps`.

    Attributes:
        rate: frames per second, nominal. length: how many frames it can tell the time of, None: any.
    """

    def __init__(self, fps: float | None, timestamps: Times | None) -> None:
        if fps is not None and timestamps is not None:
            raise ValueError("fps and timestamps were both given, expected one of them")
        self._times: np.ndarray | None = None
        self.length: int | None = None
        if fps is not None:
            if not (_number(fps) and math.isfinite(fps) and fps > 0):
                raise ValueError(f"fps was {fps!r}, expected a positive number of frames per second")
            self.rate = float(fps)
            return
        try:
            times = np.asarray(timestamps, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise TypeError(f"timestamps was {timestamps!r:.60}, expected seconds, one for every frame") from error
        if times.ndim != 1 or len(times) < 2 or not np.isfinite(times).all() or not (np.diff(times) > 0).all():
            expected = "at least two finite, strictly increasing seconds in one row"
            raise ValueError(f"timestamps had shape {times.shape}, expected {expected}")
        self._times, self.length = times, len(times)
        self.rate = (len(times) - 1) / float(times[-1] - times[0])

    def __call__(self, number: int) -> float:
        if self._times is None:
            return number / self.rate
        if number >= len(self._times):
            raise ValueError(f"timestamps held {len(self._times)} values, expected one for every frame of the video")
        return float(self._times[number])

    def check(self, frames: int) -> None:
        """Refuse a source of `frames` frames that the timestamps do not fit."""
        if self.length not in (None, frames):
            raise ValueError(f"timestamps held {self.length} values, expected {frames}: one for every frame")


def needed(clock: Clock | None, what: str) -> Clock:
    if clock is None:
        raise ValueError(f"fps and timestamps were both missing, expected one of them for {what}")
    return clock


def _number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


class Timeline:
    """Makes a file's own timestamps finite and strictly increasing, one after another, changing as few as can be.

    - A missing one is the one before and 1 / fps.
    - One that does not go forward, alone, lies half a frame after the one before, so that the next can be its own.
    - Where the clock goes back for good (by a second, or twice in a row) or leaps an hour ahead, it was set anew: time
      goes on at 1 / fps and then by the differences.
    """

    def __init__(self, fps: float) -> None:
        self._step = 1 / fps
        self._last: float | None = None
        self._shift = 0.0
        self._back = False
        self.filled = self.leaps = 0

    def __call__(self, seconds: float | None) -> float:
        """The timestamp of the next frame; `seconds` is the file's, None where it has none."""
        if seconds is not None and not abs(seconds) < RANGE:
            seconds = None
        if self._last is None:
            self.filled += seconds is None
            self._last = seconds or 0.0
            return self._last
        now = None if seconds is None else seconds + self._shift
        back = now is not None and now <= self._last
        if now is None:
            self.filled += 1
            now = self._last + self._step
        elif seconds is not None and (now > self._last + LEAP or now < self._last - 1 or (back and self._back)):
            self.leaps += 1
            self._shift += self._last + self._step - now
            now = self._last + self._step
        elif back:
            self.filled += 1
            now = self._last + self._step / 2
        self._back, self._last = back, now
        return now

    def notes(self) -> list[str]:
        """What was changed, for people."""
        said = []
        if self.filled:
            said.append(f"{self.filled} timestamps were missing or not increasing and were filled in")
        if self.leaps:
            said.append(f"the clock was set anew {self.leaps} times; a frame there takes 1/{1 / self._step:g} s")
        return said

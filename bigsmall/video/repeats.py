"""Which frames show the same picture as the one before.

A re-encode of 25 frames a second at 60 holds more repeats than pictures. Copied pixels are equal, but an encoder goes
on refining a repeated picture, so that its copies differ by a little. They are told by the size of the change:

A frame is a repeat of the last picture that was none, if the mean change of its pixels is at most `SAME`, or if it is
less than `SMALLER` times the largest change of the last tenth of a second, where that one was plain to see (`PLAIN`).

The first part makes a photograph all repeats, and cannot swallow a slow change: it is compared with the last *picture*,
not the last frame, so that small changes add up. The second sees the alternation of re-encodes; a movement that ends
costs at most the tenth of a second after it. Neither looks ahead, and both passes over a video give the same answer.

Tried on x264 encodes (crf 18, 23, 28, 30, preset medium; 23 veryfast, 30 ultrafast) of simulated faces and of four real
clips, at their own rate and repeated up to 30 and 60 a second, in hundredths of the repeats found and of the new
pictures taken for repeats:

- three clips in which people move: crf 18 and 23: 95 to 100 and at most 2; crf 28 and 30: 76 to 98 and at most 8; the
  faster presets, which spread a new picture over several frames: 11 to 90 and at most 13; at their own rate at most 4.
- one of a man who sits still before a fixed camera: crf 18: 75 to 91 and at most 2; crf 23: 47 to 68 and at most 10;
  beyond that hardly any are found: the encoder has left no less change in repeats than in new pictures. At its own rate
  at most 6 (crf 18 and 23), 16 (crf 30) and 24 (ultrafast).
- photographs at 30 a second, any of these: 94 to 100 of the frames after the first.
- simulated faces: as the sitting man, and with less noise and light worse. Before encoding, still and with a tenth of a
  webcam's noise and more, none is taken for a repeat; without noise, motion and drift 20, where hardly a pixel changes.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

SAME = 0.02  # grey levels, mean over the picture
SMALLER = 0.4
PLAIN = 0.25  # grey levels
MOST = 0.5  # grey levels: no repeat changes more, whatever went before


class Repeats:
    """Tell repeats in a stream of frames, about `fps` a second; about 0.1 ms a frame at any size."""

    def __init__(self, fps: float) -> None:
        self._changes: deque[float] = deque([0.0], maxlen=max(2, math.ceil(fps / 10)))
        self._last: np.ndarray | None = None

    def __call__(self, rgb: np.ndarray) -> bool:
        """Whether `rgb` (H, W, 3) uint8 shows the same picture as the frame before."""
        step = max(1, min(rgb.shape[:2]) // 120)  # a grid of the green pixels is enough
        picture = rgb[step // 2 :: step, step // 2 :: step, 1].astype(np.int16)
        if self._last is None:
            self._last = picture
            return False
        change = float(np.abs(picture - self._last).mean())
        largest = max(self._changes)
        repeated = change <= SAME or (largest >= PLAIN and change < min(MOST, SMALLER * largest))
        self._changes.append(change)
        if not repeated:
            self._last = picture
        return repeated

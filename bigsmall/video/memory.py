"""Videos that the caller already decodes: arrays and captures."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .files import File
from .frames import Frame, Video, VideoError
from .limits import Limits
from .timeline import Clock, needed
from .writer import VideoWriter


class Array(Video):
    """An array (T, H, W, 3) of uint8 RGB."""

    def __init__(self, frames: np.ndarray, clock: Clock | None, limits: Limits) -> None:
        if frames.dtype != np.uint8:
            raise TypeError(f"source was an array of {frames.dtype}, expected uint8 RGB frames (T, H, W, 3)")
        if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise ValueError(f"source was an array of shape {frames.shape}, expected RGB frames (T, H, W, 3)")
        clock = needed(clock, "an array of frames")
        clock.check(len(frames))
        self._clock, self._array = clock, frames
        super().__init__("array", frames.shape[2], frames.shape[1], clock.rate, len(frames), limits)

    def _frames(self, notes: list[str]) -> Iterator[Frame]:
        for index, rgb in enumerate(self._array):
            yield Frame(index, self._clock(index), rgb)


class Capture(Video):
    """A capture with OpenCV's `read()`, kept losslessly in a temporary file on the first pass.

    The clock, where none is given: the capture's own position where it has one (a file), else the time of the reading
    (a camera).
    """

    def __init__(self, capture: Any, clock: Clock | None, limits: Limits) -> None:
        self._capture, self._clock = capture, clock
        self._folder = tempfile.TemporaryDirectory(prefix="bigsmall-")
        self._times: list[float] = []
        self._start = time.monotonic()
        try:
            ok, first = capture.read()
        except (TypeError, ValueError) as error:  # an open file has read() too
            raise TypeError(f"source was {capture!r}, expected a capture whose read() gives (ok, frame)") from error
        if not ok:
            raise VideoError("the capture gives no frame")
        self._first = self._rgb(first)
        self._next_time = self._now(0)
        nominal = clock.rate if clock else float(capture.get(5)) if hasattr(capture, "get") else 0.0  # CAP_PROP_FPS
        super().__init__(
            "capture", first.shape[1], first.shape[0], nominal if 0 < nominal <= 1000 else 30.0, None, limits
        )

    @staticmethod
    def _rgb(bgr: np.ndarray) -> np.ndarray:
        if not (isinstance(bgr, np.ndarray) and bgr.dtype == np.uint8 and bgr.ndim == 3 and bgr.shape[2] == 3):
            raise TypeError("source was a capture whose read() does not give (H, W, 3) uint8 BGR frames as expected")
        return np.ascontiguousarray(bgr[:, :, ::-1])

    def _now(self, index: int) -> float:
        if self._clock is not None:
            return self._clock(index)
        position = float(self._capture.get(0)) / 1000 if hasattr(self._capture, "get") else 0.0  # CAP_PROP_POS_MSEC
        if not position > 0 and index:
            position = time.monotonic() - self._start
        return max(position, self._times[-1] + 1e-6) if self._times else position

    def _record(self, notes: list[str]) -> Iterator[Frame]:
        with VideoWriter(Path(self._folder.name) / "capture.mkv", self.fps) as writer:
            rgb, now = self._first, self._next_time
            while True:
                writer.write(rgb)
                self._times.append(now)
                yield Frame(len(self._times) - 1, now, rgb)
                ok, bgr = self._capture.read()
                if not ok:
                    break
                if len(self._times) == self.limits.frames:
                    notes.append(f"reading ended after {len(self._times)} frames, the limit")
                    break
                rgb, now = self._rgb(bgr), self._now(len(self._times))
        self.n_frames = len(self._times)

    def _frames(self, notes: list[str]) -> Iterator[Frame]:
        if self.n_frames is None:
            if self._times:
                raise VideoError("the capture was left before its end and cannot be read from its beginning again")
            yield from self._record(notes)
        else:
            recorded = File(Path(self._folder.name) / "capture.mkv", None, self.limits)
            for frame in recorded._frames(notes):
                yield frame._replace(timestamp=self._times[frame.index])

"""What every source of frames has in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .limits import Limits
from .repeats import Repeats


class VideoError(ValueError):
    """The input cannot be read as a video; the message is one sentence that says why."""


class Frame(NamedTuple):
    """One decoded picture."""

    index: int  # type: ignore[assignment]
    timestamp: float  # seconds
    rgb: np.ndarray  # (H, W, 3) uint8
    repeated: bool = False  # shows the same picture as the frame before (`bigsmall.video.repeats` says how it is told)


class Video(ABC):
    """Frames in order, with strictly increasing timestamps, as often as wanted.

    Attributes:
        name: what the user calls it, e.g. the file's name.
        width, height: pixels, after the file's rotation.
        fps: nominal frames per second.
        n_frames: how many frames are expected, None where nobody knows.
        note: after an iteration, what was wrong on the way (frames lost, stopped early, repeats), else None.
    """

    def __init__(
        self, name: str, width: int, height: int, fps: float, n_frames: int | None, limits: Limits
    ) -> None:
        self.name, self.width, self.height, self.fps, self.n_frames = name, width, height, fps, n_frames
        self.limits = limits
        self.note: str | None = None

    def __iter__(self) -> Iterator[Frame]:
        self.note, notes = None, list[str]()
        repeated, seen, count, first, last = Repeats(self.fps), 0, 0, 0.0, 0.0
        gap, since = max(1.0, 3 / self.fps), math.nan
        for frame in self._frames(notes):
            if count == self.limits.frames:
                notes.append(f"reading ended after {count} frames, the limit")
                break
            again = repeated(frame.rgb)
            if count and frame.timestamp - last > gap:
                gap, since = frame.timestamp - last, last
            first, last, count, seen = first if count else frame.timestamp, frame.timestamp, count + 1, seen + again
            yield frame._replace(repeated=again)
        if not math.isnan(since):
            notes.append(f"there are no frames for up to {gap:.1f} s, as after {since:.1f} s")
        if seen > 0.05 * count:
            rate = (count - seen) / ((last - first) * count / max(1, count - 1))
            share = f"{100 * seen / count:.0f} % of the frames repeat the one before"
            notes.append(f"{share}: {rate:.3g} different pictures a second")
        self.note = "; ".join(notes) or None

    @abstractmethod
    def _frames(self, notes: list[str]) -> Iterator[Frame]:
        """The frames; what went wrong on the way is added to `notes`."""

"""Decode and encode video. Frames are RGB, timestamps are the file's own (pts * time_base), memory is bounded.

`open_video` makes one kind of object, `Video`, of a file, an array, a folder of images or a capture; a `Video` can be
iterated again and again (the measurement needs two passes). Files are decoded in a child process within `Limits`.
`VideoWriter` writes lossless FFV1 or x264.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from .files import File, Folder
from .frames import Frame, Video, VideoError
from .limits import Limits
from .memory import Array, Capture
from .timeline import Clock, Times
from .writer import VideoWriter

__all__ = ["Frame", "Limits", "Times", "Video", "VideoError", "VideoWriter", "open_video"]

NO_LIMITS_GIVEN = Limits()


def open_video(
    source: Any, *, fps: float | None = None, timestamps: Times | None = None, limits: Limits = NO_LIMITS_GIVEN
) -> Video:
    """Open `source` for reading.

    Args:
        source: a path to a video file; an array (T, H, W, 3) of uint8 RGB; a path to a folder of images (in the natural
            order of their names); a capture, any object whose `read()` gives `(ok, BGR frame)` as OpenCV's does; or a
            `Video` that is open already, with its own clock and limits.
        fps: frames per second. Arrays and folders need it, or `timestamps`; it replaces a file's own clock.
        timestamps: seconds of each frame, strictly increasing; instead of `fps`. One for every frame: of a file, also
            for its damaged ones.
        limits: what decoding a file may cost.

    Raises:
        VideoError: the source is missing, empty, no video, or beyond the limits.
        ValueError, TypeError: an argument is wrong; the message names it.
    """
    clock = None if fps is None and timestamps is None else Clock(fps, timestamps)
    if isinstance(source, Video):
        if clock is not None:
            raise ValueError("fps or timestamps were given, expected neither with a Video that is open already")
        return source
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        try:
            return Folder(path, clock, limits) if path.is_dir() else File(path, clock, limits)
        except OSError as error:  # no permission, a name too long, a drive that is gone
            raise VideoError(f"{path} cannot be read: {error.strerror or error}") from error
    if hasattr(source, "read") and not isinstance(source, np.ndarray):
        return Capture(source, clock, limits)
    return Array(np.asarray(source), clock, limits)

"""Encode video."""

from __future__ import annotations

import math
import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np

from bigsmall.files import beside


class VideoWriter:
    """Write RGB frames to a file: lossless FFV1 (.mkv or .mp4) by default, or x264 (.mp4).

    Timestamps are kept to 1/90000 s in .mp4 and .mov, to 1/1000 s in .mkv (Matroska's clock). Written aside and renamed
    when the `with` block ends well; after an exception nothing is left.

    Args:
        path: where to; its suffix names the container.
        fps: frames per second.
        codec: "ffv1" (lossless RGB) or "libx264" (lossy, 4:2:0 where the size is even).
        options: the encoder's own, e.g. {"crf": "18"}.
    """

    def __init__(
        self, path: str | os.PathLike[str], fps: float, *, codec: str = "ffv1", options: dict[str, str] | None = None
    ) -> None:
        if codec not in ("ffv1", "libx264"):
            raise ValueError(f"codec was {codec!r}, expected 'ffv1' or 'libx264'")
        if not (math.isfinite(fps) and fps > 0):
            raise ValueError(f"fps was {fps!r}, expected a positive number of frames per second")
        self.path = Path(path)
        self._aside = beside(self.path, self.path.suffix)  # absolute: to FFmpeg a relative a:b.mkv is an address
        self._rate, self._codec, self._options = Fraction(fps).limit_denominator(100_000), codec, options
        self._container: Any = None
        self._stream: Any = None
        self._shape: tuple[int, ...] = ()
        self._count = 0

    def _start(self, shape: tuple[int, ...]) -> None:
        height, width = shape[:2]
        # bitexact: no random identifiers, so that the same frames give the same file
        options = {"fflags": "+bitexact"}
        if self.path.suffix in (".mp4", ".mov"):
            options["movie_timescale"] = "90000"  # in which the start is kept
        self._container = av.open(str(self._aside), "w", options=options)
        self._stream = self._container.add_stream(self._codec, rate=self._rate, options=self._options)
        self._stream.width, self._stream.height, self._shape = width, height, shape
        even = width % 2 == 0 and height % 2 == 0
        self._stream.pix_fmt = "bgr0" if self._codec == "ffv1" else "yuv420p" if even else "yuv444p"
        # a fine clock for frames that come with their own timestamps
        self._stream.codec_context.time_base = Fraction(1, 90_000)
        try:
            self._container.start_encoding()
        except av.FFmpegError as error:
            raise OSError(f"{self.path} cannot be written: {error.strerror}") from error

    def write(self, rgb: np.ndarray, timestamp: float | None = None) -> None:
        """Append one frame (H, W, 3) uint8; `timestamp` in seconds where the frames are not evenly spaced."""
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise ValueError(f"rgb was {rgb.dtype} of shape {rgb.shape}, expected uint8 (H, W, 3)")
        if self._container is None:
            self._start(rgb.shape)
        if rgb.shape != self._shape:
            raise ValueError(f"rgb had shape {rgb.shape}, expected {self._shape} as the frames before")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
        seconds = self._count / self._rate if timestamp is None else Fraction(timestamp)
        frame.pts, frame.time_base = round(seconds * 90_000), Fraction(1, 90_000)
        self._container.mux(self._stream.encode(frame))
        self._count += 1

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if self._container is None:
                if kind is None:
                    raise ValueError(f"no frame was written to {self.path}, expected at least one")
                return
            if kind is None:
                self._container.mux(self._stream.encode(None))
            self._container.close()
            if kind is None:
                os.replace(self._aside, self.path)
        finally:
            self._aside.unlink(missing_ok=True)

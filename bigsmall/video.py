"""Decode and encode video. Frames are RGB, timestamps are the file's own (pts * time_base), memory is bounded.

`open_video` makes one kind of object, `Video`, of a file, an array, a folder of images or a capture; a `Video` can be
iterated again and again (the measurement needs two passes). `VideoWriter` writes lossless FFV1 or x264.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


class VideoError(ValueError):
    """The input cannot be read as a video; the message is one sentence that says why."""


class Frame(NamedTuple):
    """One decoded picture."""

    index: int  # type: ignore[assignment]
    timestamp: float  # seconds
    rgb: np.ndarray  # (H, W, 3) uint8
    repeated: bool = False  # shows the same picture as the frame before


class Video(ABC):
    """Frames in order, as often as wanted.

    Attributes:
        name: what the user calls it, e.g. the file's name.
        width, height: pixels, after the file's rotation.
        fps: nominal frames per second.
        n_frames: how many frames are expected, None where nobody knows.
        note: after an iteration, what was wrong on the way (frames lost, stopped early), else None.
    """

    def __init__(self, name: str, width: int, height: int, fps: float, n_frames: int | None) -> None:
        self.name, self.width, self.height, self.fps, self.n_frames = name, width, height, fps, n_frames
        self.note: str | None = None

    def __iter__(self) -> Iterator[Frame]:
        last: np.ndarray | None = None
        for frame in self._frames():
            repeated = last is not None and np.array_equal(last, frame.rgb)
            last = frame.rgb
            yield frame._replace(repeated=repeated)

    @abstractmethod
    def _frames(self) -> Iterator[Frame]: ...


Clock = Callable[[int], float]


Times = Sequence[float] | np.ndarray


def open_video(source: Any, *, fps: float | None = None, timestamps: Times | None = None) -> Video:
    """Open `source` for reading.

    Args:
        source: a path to a video file; an array (T, H, W, 3) of uint8 RGB; a path to a folder of images (in the natural
            order of their names); or a capture, any object whose `read()` gives `(ok, BGR frame)` as OpenCV's does.
        fps: frames per second. Arrays and folders need it, or `timestamps`; it replaces a file's own clock.
        timestamps: seconds of each frame, strictly increasing; instead of `fps`.

    Raises:
        VideoError: the source is missing, empty, or is no video.
        ValueError, TypeError: an argument is wrong; the message names it.
    """
    clock, rate = _clock(fps, timestamps)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if path.is_dir():
            return _Folder(path, clock, rate)
        return _File(path, clock, rate)
    if hasattr(source, "read") and not isinstance(source, np.ndarray):
        return _Capture(source, clock, rate)
    return _Array(np.asarray(source), clock, rate)


def _clock(fps: float | None, timestamps: Times | None) -> tuple[Clock | None, float | None]:
    """The given clock as a function of the frame's index and its nominal rate; (None, None) where none is given."""
    if fps is not None and timestamps is not None:
        raise ValueError("fps and timestamps were both given, expected one of them")
    if fps is not None:
        if not (isinstance(fps, (int, float, np.number)) and math.isfinite(fps) and fps > 0):
            raise ValueError(f"fps was {fps!r}, expected a positive number of frames per second")
        rate = float(fps)
        return lambda index: index / rate, rate
    if timestamps is None:
        return None, None
    times = np.asarray(timestamps, dtype=np.float64)
    if times.ndim != 1 or len(times) < 2 or not np.isfinite(times).all() or not (np.diff(times) > 0).all():
        raise ValueError(
            f"timestamps had shape {times.shape}, expected at least two finite, strictly increasing seconds in one row"
        )

    def clock(index: int) -> float:
        if index >= len(times):
            raise ValueError(f"timestamps held {len(times)} values, expected one for every frame of the video")
        return float(times[index])

    return clock, (len(times) - 1) / float(times[-1] - times[0])


def _needs_clock(clock: Clock | None, rate: float | None, what: str) -> tuple[Clock, float]:
    if clock is None or rate is None:
        raise ValueError(f"fps and timestamps were both missing, expected one of them for {what}")
    return clock, rate


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")


class _File(Video):
    """A file that FFmpeg can read."""

    def __init__(self, path: Path, clock: Clock | None, rate: float | None) -> None:
        self._path, self._clock = path, clock
        if not path.is_file():
            raise VideoError(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
        if path.stat().st_size == 0:
            raise VideoError(f"{path} is empty")
        with self._open() as container:
            stream = container.streams.video[0]
            nominal = stream.average_rate or stream.guessed_rate
            n_frames = stream.frames or None
            if n_frames is None and nominal and container.duration:
                n_frames = round(float(container.duration * nominal / av.time_base))
        super().__init__(path.name, 0, 0, rate or (float(nominal) if nominal else 25.0), n_frames)
        first = next(iter(self), None)  # the first frame says whether it decodes, and its size after rotation
        if first is None:
            raise VideoError(f"{path} holds no frame that can be decoded ({self.note or 'its video stream is empty'})")
        self.height, self.width = first.rgb.shape[:2]
        self.note = None

    def _open(self) -> Any:
        try:
            # Only plain files: a playlist must not make the decoder open an address.
            container = av.open(str(self._path), options={"protocol_whitelist": "file"})
        except (av.FFmpegError, OSError, ValueError) as error:
            raise VideoError(f"{self._path} cannot be read as a video: {_reason(error)}") from error
        if not container.streams.video or container.format.name == "tty":  # FFmpeg renders plain text as a terminal
            container.close()
            raise VideoError(f"{self._path} holds no video stream")
        return container

    def _frames(self) -> Iterator[Frame]:
        damaged, refilled, index, last, stopped = 0, 0, 0, -math.inf, None
        with self._open() as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            reformatter, size = VideoReformatter(), None
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets, None)
                    if packet is None:
                        break
                except av.FFmpegError as error:
                    stopped = _reason(error)
                    break
                try:
                    pictures = packet.decode()
                except av.FFmpegError:
                    damaged += 1
                    continue
                for picture in pictures:
                    if picture.is_corrupt:
                        damaged += 1
                        continue
                    size = size or (picture.width, picture.height)
                    rgb: np.ndarray = reformatter.reformat(picture, *size, "rgb24").to_ndarray()
                    if picture.rotation:
                        rgb = np.ascontiguousarray(np.rot90(rgb, round(picture.rotation / 90)))
                    timestamp = self._clock(index) if self._clock else picture.time
                    if timestamp is None or timestamp <= last:
                        timestamp = last + 1 / self.fps if index else 0.0
                        refilled += 1
                    yield Frame(index, timestamp, rgb)
                    index, last = index + 1, timestamp
        notes = []
        if stopped:
            notes.append(f"reading stopped after frame {index - 1}: {stopped}")
        if damaged:
            notes.append(f"{damaged} damaged frames were left out")
        if self.n_frames and self.n_frames - index > max(1.0, 0.01 * self.n_frames):
            notes.append(f"the file announces {self.n_frames} frames and {index} could be read")
        if refilled:
            notes.append(f"{refilled} timestamps were missing or not increasing; filled in at {self.fps:g} a second")
        self.note = "; ".join(notes) or None


class _Array(Video):
    """An array (T, H, W, 3) of uint8 RGB."""

    def __init__(self, frames: np.ndarray, clock: Clock | None, rate: float | None) -> None:
        if frames.dtype != np.uint8:
            raise TypeError(f"source was an array of {frames.dtype}, expected uint8 RGB frames (T, H, W, 3)")
        if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise ValueError(f"source was an array of shape {frames.shape}, expected RGB frames (T, H, W, 3)")
        self._clock, rate = _needs_clock(clock, rate, "an array of frames")
        self._array = frames
        super().__init__("array", frames.shape[2], frames.shape[1], rate, len(frames))

    def _frames(self) -> Iterator[Frame]:
        for index, rgb in enumerate(self._array):
            yield Frame(index, self._clock(index), rgb)


class _Folder(Video):
    """A folder of images of one size, in the natural order of their names (2.png before 10.png)."""

    def __init__(self, path: Path, clock: Clock | None, rate: float | None) -> None:
        def natural(p: Path) -> list[tuple[bool, int, str]]:
            return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", p.name)]

        self._paths = sorted((p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES), key=natural)
        if not self._paths:
            raise VideoError(f"{path} is a folder without images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        self._clock, rate = _needs_clock(clock, rate, "a folder of images")
        height, width = self._read(self._paths[0]).shape[:2]
        super().__init__(path.name, width, height, rate, len(self._paths))

    @staticmethod
    def _read(path: Path) -> np.ndarray:
        return next(iter(_File(path, None, None))).rgb

    def _frames(self) -> Iterator[Frame]:
        lost, index = [], 0
        for number, path in enumerate(self._paths):
            try:
                rgb = self._read(path)
            except VideoError:
                lost.append(path.name)
                continue
            if rgb.shape != (self.height, self.width, 3):
                raise VideoError(
                    f"{path} is {rgb.shape[1]}x{rgb.shape[0]}, expected {self.width}x{self.height} as the first image"
                )
            yield Frame(index, self._clock(number), rgb)
            index += 1
        self.note = f"{len(lost)} images could not be read and were left out, first {lost[0]}" if lost else None


class _Capture(Video):
    """A capture with OpenCV's `read()`, kept losslessly in a temporary file on the first pass.

    The clock, where none is given: the capture's own position where it has one (a file), else the time of the reading
    (a camera).
    """

    def __init__(self, capture: Any, clock: Clock | None, rate: float | None) -> None:
        self._capture, self._clock = capture, clock
        self._folder = tempfile.TemporaryDirectory(prefix="bigsmall-")
        self._times: list[float] = []
        self._start = time.monotonic()
        ok, first = capture.read()
        if not ok:
            raise VideoError("the capture gives no frame")
        self._first = self._rgb(first)
        self._next_time = self._now(0)
        nominal = rate or (float(capture.get(5)) if hasattr(capture, "get") else 0.0)  # 5: CAP_PROP_FPS
        super().__init__("capture", first.shape[1], first.shape[0], nominal if nominal > 0 else 30.0, None)

    @staticmethod
    def _rgb(bgr: np.ndarray) -> np.ndarray:
        if not (isinstance(bgr, np.ndarray) and bgr.dtype == np.uint8 and bgr.ndim == 3 and bgr.shape[2] == 3):
            raise TypeError("source was a capture whose read() does not give (H, W, 3) uint8 BGR frames as expected")
        return np.ascontiguousarray(bgr[:, :, ::-1])

    def _now(self, index: int) -> float:
        if self._clock is not None:
            return self._clock(index)
        position = float(self._capture.get(0)) / 1000 if hasattr(self._capture, "get") else 0.0  # 0: CAP_PROP_POS_MSEC
        if position <= 0 and index:
            position = time.monotonic() - self._start
        return max(position, self._times[-1] + 1e-6) if self._times else position

    def _record(self) -> Iterator[Frame]:
        with VideoWriter(Path(self._folder.name) / "capture.mkv", self.fps) as writer:
            rgb, now = self._first, self._next_time
            while True:
                writer.write(rgb)
                self._times.append(now)
                yield Frame(len(self._times) - 1, now, rgb)
                ok, bgr = self._capture.read()
                if not ok:
                    break
                rgb, now = self._rgb(bgr), self._now(len(self._times))
        self.n_frames = len(self._times)

    def _frames(self) -> Iterator[Frame]:
        if self.n_frames is None:
            if self._times:
                raise VideoError("the capture was left before its end and cannot be read from its beginning again")
            yield from self._record()
        else:
            recorded = _File(Path(self._folder.name) / "capture.mkv", self._times.__getitem__, self.fps)
            yield from recorded._frames()


class VideoWriter:
    """Write RGB frames to a file: lossless FFV1 (.mkv) by default, or x264 (.mp4).

    Written aside and renamed when the `with` block ends well; after an exception nothing is left.

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
        self._aside = self.path.with_name(f".{self.path.stem}.{os.getpid()}{self.path.suffix}")
        self._rate, self._codec, self._options = Fraction(fps).limit_denominator(100_000), codec, options
        self._container: Any = None
        self._stream: Any = None
        self._shape: tuple[int, ...] = ()
        self._count = 0

    def _start(self, shape: tuple[int, ...]) -> None:
        height, width = shape[:2]
        # bitexact: no random identifiers, so that the same frames give the same file
        self._container = av.open(str(self._aside), "w", options={"fflags": "+bitexact"})
        self._stream = self._container.add_stream(self._codec, rate=self._rate, options=self._options)
        self._stream.width, self._stream.height, self._shape = width, height, shape
        even = width % 2 == 0 and height % 2 == 0
        self._stream.pix_fmt = "bgr0" if self._codec == "ffv1" else "yuv420p" if even else "yuv444p"
        # a fine clock for frames that come with their own timestamps
        self._stream.codec_context.time_base = Fraction(1, 90_000)

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

"""The program of the child process that decodes for `bigsmall.video.decoder`. It imports PyAV and numpy, never torch.

It says that it is there (an empty object), then takes orders from the connection, one after another, and answers each
with a head, frames and an end, all JSON:

    {"head": {width, height, fps, n_frames, slots}}      after the first picture
    {"frame": number, "time": seconds or null}           its pixels lie in the next of the shared slots, in turn
    {"end": [notes]}                                     the video was read, as far as the notes say
    {"error": sentence}                                  it is no video
    {"lost": why}                                        out of memory and the like; the child is not used again

A frame's slot is written again once the parent has said (an empty message) that it has copied it. Where only the head
is asked for, there are no frames and no slots.
"""

from __future__ import annotations

import gc
import json
import math
import mmap
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

LOOK_AHEAD = 2**26  # bytes of decoded frames that may wait for the parent
TRANSFERS = {16: "PQ", 18: "HLG"}  # HDR, by the number of the transfer curve (ITU-T H.273)


class UnreadableError(Exception):
    """Why a file cannot be read as a video; one sentence that names it."""


def reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")


class Reader:
    """The pictures of a file's main video stream; None for each that is damaged.

    Attributes:
        fps, n_frames: nominal rate, and number of frames where the file announces a believable one.
        notes: what was wrong, complete after the iteration.
    """

    def __init__(self, path: str, pixels: int) -> None:
        self._path, self._pixels = path, pixels
        self.notes: list[str] = []
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None  # of the first picture
        self._turns, self._changed = 0, False
        try:
            # Only plain files: a playlist must not make the decoder open an address, nor 1%d.png stand for 10.png.
            options = {"protocol_whitelist": "file", "pattern_type": "none"}
            self._container = av.open(path, options=options, metadata_errors="replace")
        except (av.FFmpegError, OSError, ValueError) as error:
            raise UnreadableError(f"{path} cannot be read as a video: {reason(error)}") from error
        self._stream: Any = None
        try:
            self._stream = self._main_stream()
        except UnreadableError:
            self.close()
            raise
        rates = (self._stream.average_rate, self._stream.guessed_rate)
        self.fps = next((float(rate) for rate in rates if rate and 0.01 <= rate <= 1000), 25.0)
        self.n_frames = self._announced()

    def close(self) -> None:
        """Free the decoder with its threads, which sit in reference cycles."""
        self._container.close()
        del self._container, self._stream
        gc.collect()

    def _main_stream(self) -> Any:
        moving = [s for s in self._container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not moving or self._container.format.name == "tty":  # FFmpeg renders plain text as a terminal
            raise UnreadableError(f"{self._path} holds no video stream")
        known = [stream for stream in moving if stream.codec_context is not None]
        if not known:
            raise UnreadableError(f"{self._path} holds a video stream of a kind that cannot be decoded")
        stream = max(known, key=lambda s: s.codec_context.width * s.codec_context.height)
        if len(moving) > 1:
            self.notes.append(f"the file holds {len(moving)} video streams; number {moving.index(stream) + 1} is read")
        codec = stream.codec_context
        self._check_size(codec.width, codec.height)
        codec.options = {"max_pixels": str(self._pixels)}  # within the decoder too, where sizes change midway
        stream.thread_type = "AUTO"
        return stream

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._pixels:
            raise UnreadableError(
                f"{self._path} has pictures of {width}x{height}, more than the limit of {self._pixels} pixels"
            )

    def _announced(self) -> int | None:
        """How many frames to expect, if the file says anything believable."""
        count = self._stream.frames or round((self._container.duration or 0) / av.time_base * self.fps)
        return count if 0 < count <= os.path.getsize(self._path) else None  # a frame takes a byte at least

    def _missing(self, count: int, until: float | None) -> str | None:
        """What the file announces beyond the `count` frames that were read, the last of them at `until` seconds."""
        container = self._container
        if until is None or not container.duration:
            missing = self.n_frames is not None and self.n_frames - count > max(1, 0.01 * self.n_frames)
            return f"the file announces {self.n_frames} frames and {count} could be read" if missing else None
        # Matroska's duration counts from zero, that of others from the start
        start = 0 if container.format.name.startswith("matroska") else (container.start_time or 0) / av.time_base
        end = container.duration / av.time_base + start
        loose = 1.0 if container.streams.audio else 0.0  # the sound may be longer
        if end - until <= max(2 * (until - start) / count, 2 / self.fps, 0.01 * end) + loose:
            return None
        return f"the file announces {end:.2f} s and could be read until {until:.2f} s ({count} frames)"

    def __iter__(self) -> Iterator[tuple[np.ndarray, float | None] | None]:
        damaged = index = 0
        until: float | None = None
        for picture in self._pictures():
            rgb = None if picture is None else self._rgb(picture, index)
            if rgb is None:
                damaged += 1
                yield None
                continue
            yield rgb, picture.time
            index, until = index + 1, picture.time
        if damaged:
            self.notes.append(f"{damaged} damaged frames were left out")
        missing = self._missing(index, until)
        if missing:
            self.notes.append(missing)

    def _rgb(self, picture: Any, index: int) -> np.ndarray | None:
        """(H, W, 3) uint8 without a copy, as large as the first picture and turned like it; None for a damaged one."""
        size = picture.width, picture.height
        if picture.is_corrupt:
            return None
        if not self._size:
            self._look(picture)
            self._size, self._turns = size, round(picture.rotation / 90) % 4
        elif size != self._size and not self._changed:
            self._changed = True
            self.notes.append(f"from frame {index} on the picture is {size[0]}x{size[1]}, scaled to the first size")
        width, height = self._size
        try:
            plane: Any = self._reformatter.reformat(picture, width, height, "rgb24").planes[0]
        except MemoryError:
            raise
        except (av.FFmpegError, OSError, ValueError):
            return None
        rows = np.frombuffer(plane, np.uint8, height * plane.line_size).reshape(height, plane.line_size)
        return np.rot90(rows[:, : 3 * width].reshape(height, width, 3), self._turns)

    def _pictures(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except MemoryError:
                raise
            except (av.FFmpegError, OSError, ValueError) as error:
                self.notes.append(f"reading stopped early: {reason(error)}")
                return
            if packet is None:
                return
            try:
                pictures = packet.decode()
            except MemoryError:
                raise
            except (av.FFmpegError, OSError, ValueError):
                yield None
                continue
            yield from pictures

    def _look(self, picture: Any) -> None:
        """What to say of the kind of picture."""
        self._check_size(picture.width, picture.height)
        if picture.interlaced_frame:
            self.notes.append("the video is interlaced, and its fields were left woven together")
        curve = TRANSFERS.get(int(self._stream.codec_context.color_trc or 0))
        if curve:
            self.notes.append(f"the video is HDR ({curve}); its colours were taken as they are, without tone mapping")


class Slots:
    """The shared memory: a ring of frames. A slot is free again once the parent has said so."""

    def __init__(self, connection: Connection, memory: int, shape: tuple[int, ...]) -> None:
        size = math.prod(shape)
        self.count = min(8, max(2, LOOK_AHEAD // size))
        os.ftruncate(memory, self.count * size)
        self._ring = np.frombuffer(mmap.mmap(memory, self.count * size), np.uint8).reshape(self.count, *shape)
        self._connection, self._turn, self._free = connection, -1, self.count

    def next(self) -> np.ndarray:
        """(H, W, 3) uint8, to be written."""
        self._wait(1)
        self._turn, self._free = (self._turn + 1) % self.count, self._free - 1
        slot: np.ndarray = self._ring[self._turn]
        return slot

    def finish(self) -> None:
        """Wait until the parent has them all."""
        self._wait(self.count)

    def _wait(self, free: int) -> None:
        while self._free < free:
            self._connection.recv_bytes()
            self._free += 1


class Job:
    """One order: a file or a folder's images, to be read once, or only its head."""

    def __init__(self, connection: Connection, memory: int, order: dict[str, Any]) -> None:
        self._connection, self._memory, self._order = connection, memory, order
        self._slots: Slots | None = None
        self._shape: tuple[int, ...] | None = None

    def say(self, **message: Any) -> None:
        self._connection.send_bytes(json.dumps(message).encode())

    def run(self) -> None:
        _limit_memory(self._order["memory"])
        try:
            last: dict[str, Any] = {"end": self._images() if self._order["folder"] else self._video()}
        except UnreadableError as error:
            last = {"error": str(error)}
        except MemoryError:
            last = {"lost": f"more than {self._order['memory'] / 2**20:.0f} MiB of memory would be needed"}
        except Exception as error:  # whatever else PyAV stumbles over
            last = {"lost": reason(error)}
        if self._slots:
            self._slots.finish()
        self.say(**last)

    def _video(self) -> list[str]:
        path = self._order["paths"][0]
        with closing(Reader(path, self._order["pixels"])) as reader:
            for number, picture in enumerate(reader):
                if picture is not None:
                    self._send(*picture, number, reader.fps, reader.n_frames)
                    if self._order["head"]:
                        return []
        if self._shape is None:
            why = "; ".join(reader.notes) or "its video stream is empty"
            raise UnreadableError(f"{path} holds no frame that can be decoded ({why})")
        return reader.notes

    def _images(self) -> list[str]:
        lost, paths = [], self._order["paths"]
        for number, path in enumerate(paths):
            picture = None
            with suppress(UnreadableError), closing(Reader(path, self._order["pixels"])) as reader:
                picture = next((p for p in reader if p is not None), None)
            if picture is None:
                lost.append(Path(path).name)
                continue
            shape = picture[0].shape
            if self._shape and shape != self._shape:
                (height, width, _), (h, w, _) = self._shape, shape
                raise UnreadableError(f"{path} is {w}x{h}, expected {width}x{height} as the first image")
            self._send(*picture, number, None, len(paths))
            if self._order["head"]:
                return []
        if self._shape is None:
            raise UnreadableError(f"{Path(paths[0]).parent} holds no image that can be decoded")
        return [f"{len(lost)} images could not be read and were left out, first {lost[0]}"] if lost else []

    def _send(self, rgb: np.ndarray, time: float | None, number: int, fps: float | None, n_frames: int | None) -> None:
        if self._shape is None:
            self._shape = rgb.shape
            if not self._order["head"]:
                self._slots = Slots(self._connection, self._memory, rgb.shape)
            slots = self._slots.count if self._slots else 0
            height, width, _ = rgb.shape
            self.say(head={"width": width, "height": height, "fps": fps, "n_frames": n_frames, "slots": slots})
        if self._slots:
            np.copyto(self._slots.next(), rgb)
            self.say(frame=number, time=time)


def _limit_memory(size: int) -> None:
    import resource

    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (size if most == resource.RLIM_INFINITY else min(size, most), most))


def _leave_with(parent: int) -> None:
    """End with the parent, also while FFmpeg is busy."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main(connection: int, memory: int, parent: int) -> None:
    """Take orders until the connection closes. Arguments: two file descriptors and the parent's process number."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    gc.freeze()  # what is loaded by now stays: collecting afterwards takes no time
    orders = Connection(connection)
    try:
        orders.send_bytes(b"{}")
        while True:
            Job(orders, memory, json.loads(orders.recv_bytes())).run()
    except (EOFError, OSError):
        return

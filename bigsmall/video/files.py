"""Videos on disk, decoded in a child process."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from .decoder import DecoderLostError, decoder
from .frames import Frame, Video, VideoError
from .limits import Limits
from .timeline import Clock, Timeline, needed

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}

Told = dict[str, Any]


class Decoded(Video):
    """What the child reads: `paths`, one file or a folder's images.

    Where the child is lost (a crash, a hang, too much memory) before the first frame, that is a `VideoError`; after it,
    the video ends there, with a note.
    """

    def __init__(self, path: Path, paths: list[Path], clock: Clock | None, limits: Limits) -> None:
        self._path, self._paths, self._clock = path, [str(p.absolute()) for p in paths], clock
        self._folder = path.is_dir()
        self.limits = limits
        with closing(self._messages(head=True)) as messages:
            head = next(told["head"] for told, _ in messages if "head" in told)
            for _ in messages:
                pass
        rate = clock.rate if clock else head["fps"]
        name = os.fsencode(path.name).decode(errors="replace")  # one that is no text is to be written all the same
        super().__init__(name, head["width"], head["height"], rate, head["n_frames"], limits)

    def _messages(self, *, head: bool) -> Generator[tuple[Told, np.ndarray | None]]:
        begun = False
        try:
            with decoder() as child:
                for told, rgb in child.read(self._paths, folder=self._folder, head=head, limits=self.limits):
                    if "error" in told:
                        raise VideoError(told["error"])
                    yield told, rgb
                    begun = begun or rgb is not None
        except DecoderLostError as lost:
            if not begun:
                raise VideoError(f"{self._path} cannot be read as a video: {lost}") from lost
            yield {"lost": str(lost)}, None

    def _frames(self, notes: list[str]) -> Iterator[Frame]:
        timeline, index, number, timestamp = Timeline(self.fps), 0, -1, 0.0
        with closing(self._messages(head=False)) as messages:
            for told, rgb in messages:
                if rgb is not None:
                    number = told["frame"]
                    timestamp = self._clock(number) if self._clock else timeline(told["time"])
                    yield Frame(index, timestamp, rgb)
                    index += 1
                elif "lost" in told:
                    read = f"{index} frames were read, until {timestamp:.2f} s"
                    notes.append(f"reading stopped early: {told['lost']}; {read}")
                elif "head" in told:
                    if (told["head"]["width"], told["head"]["height"]) != (self.width, self.height):
                        raise VideoError(f"{self._path} has changed since it was opened")
                else:
                    notes += told["end"]
        notes += timeline.notes()
        if self._clock and (self._clock.length or 0) > number + 1:
            notes.append(f"timestamps held {self._clock.length} values and the video {number + 1} frames")


class File(Decoded):
    """A file that FFmpeg can read."""

    def __init__(self, path: Path, clock: Clock | None, limits: Limits) -> None:
        if not path.is_file():
            raise VideoError(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
        if path.stat().st_size == 0:
            raise VideoError(f"{path} is empty")
        super().__init__(path, [path], clock, limits)


class Folder(Decoded):
    """A folder of images of one size, in the natural order of their names (2.png before 10.png)."""

    def __init__(self, path: Path, clock: Clock | None, limits: Limits) -> None:
        def natural(p: Path) -> list[tuple[bool, int, str]]:
            return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", p.name)]

        paths = sorted((p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES), key=natural)
        if not paths:
            raise VideoError(f"{path} is a folder without images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        clock = needed(clock, "a folder of images")
        clock.check(len(paths))
        super().__init__(path, paths, clock, limits)

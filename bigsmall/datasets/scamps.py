"""SCAMPS: 2,800 rendered faces of 20 s at 30 Hz, with the waves they were rendered from; needs the extra [scamps].

`P000001.mat`, MATLAB's v7.3 format, which is HDF5 (the dataset's README): `Xsub`, the face, 240x240, or `RawFrames`,
320x240, both colour x width x height x time in HDF5's order and from 0 to 1; `d_ppg`, `d_br` and `au2` ... `au45`, a
value for each frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..video import Frame, Limits, Video
from .align import Signal
from .recording import Labels, Recording, RecordingJob
from .recording import jobs as recording_jobs
from .text import not_here

LAYOUT = "files such as P000001.mat"
FPS = 30.0
UNITS = (2, 4, 7, 12, 15, 17, 18, 26, 27, 45)
PICTURES = ("Xsub", "RawFrames")
PIECE = 32  # frames read at once: time is the last axis, so that one frame alone costs nearly as much


@dataclass(frozen=True)
class Rendered(Recording):
    """A recording whose frames are the array `pictures` of an HDF5 file."""

    pictures: str = "Xsub"

    @contextmanager
    def open(self) -> Iterator[Video]:
        """The array as a video."""
        assert isinstance(self.video, Path)
        yield MatVideo(self.video, self.pictures)


class MatVideo(Video):
    """An array (3, W, H, T) of an HDF5 file, frame by frame, a piece of it in memory at a time.

    Raises:
        ValueError: no HDF5 file, or no such array in it.
    """

    def __init__(self, path: Path, array: str) -> None:
        self._path, self._array = path, array
        with _open(path) as file:
            shape: tuple[int, ...] = file[array].shape if array in file else ()
        if len(shape) != 4 or shape[0] != 3:
            raise ValueError(f"{path} has {array} of shape {shape}, expected (3, width, height, frames)")
        super().__init__(path.name, shape[1], shape[2], FPS, shape[3], Limits())

    def _frames(self, notes: list[str]) -> Iterator[Frame]:
        with _open(self._path) as file:
            for start in range(0, self.n_frames or 0, PIECE):
                piece = np.asarray(file[self._array][..., start : start + PIECE], np.float64).T
                if not (piece.min() >= 0 and piece.max() <= 1):
                    span = f"from {piece.min():g} to {piece.max():g}"
                    raise ValueError(f"{self._path} has {self._array} {span}, expected values from 0 to 1")
                pixels = np.rint(piece * 255).astype(np.uint8)
                yield from (Frame(start + i, (start + i) / FPS, rgb) for i, rgb in enumerate(pixels))


def find(root: Path, *, pictures: str = "Xsub", present: float | None = None) -> list[Recording]:
    """The recordings under `root`, each a person of its own.

    Args:
        pictures: "Xsub" or "RawFrames".
        present: the intensity above which an action unit counts as present. The scale is not documented: None leaves
            the units out.

    Raises:
        ValueError: `root` has not the layout, or an option is wrong. ModuleNotFoundError: without h5py.
    """
    if pictures not in PICTURES:
        raise ValueError(f"pictures was {pictures!r}, expected {' or '.join(PICTURES)}")
    files = sorted(p for p in root.glob("P*.mat") if p.is_file())
    if not files:
        not_here(root, LAYOUT)
    _h5py()  # now rather than in each recording
    options: dict[str, Any] = {"fps": FPS, "crop": "frame", "pictures": pictures}
    return [Rendered(p.stem, p.stem, p, partial(labels, p, present), **options) for p in files]


def labels(path: Path, present: float | None = None) -> Labels:
    """Pulse, respiration and, with `present`, the action units of a file.

    Raises:
        ValueError: the file does not hold them.
    """
    with _open(path) as file:
        wanted = ("d_ppg", "d_br", *(f"au{unit}" for unit in UNITS if present is not None))
        if missing := [name for name in wanted if name not in file]:
            raise ValueError(f"{path} has no {', '.join(missing)}")
        pulse, breath, *units = (np.asarray(file[name], np.float64).ravel() for name in wanted)
    made: dict[str, Any] = {"bvp": Signal.even(pulse, FPS), "respiration": Signal.even(breath, FPS)}
    if present is None:
        return Labels(**made)
    au = (np.stack(units, axis=1) > present).astype(np.uint8)
    return Labels(**made, au=au, au_frames=np.arange(len(au)), action_units=tuple(f"AU{unit:02d}" for unit in UNITS))


def _open(path: Path) -> Any:
    """The HDF5 file, to be closed by `with`."""
    try:
        return _h5py().File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} is no MATLAB file of version 7.3 (HDF5): {error}") from error


def _h5py() -> Any:
    try:
        import h5py
    except ModuleNotFoundError:
        raise ModuleNotFoundError("SCAMPS needs h5py: pip install bigsmall-kernels[scamps]") from None
    return h5py


def jobs(spec: Mapping[str, Any]) -> list[RecordingJob]:
    """As `datasets.jobs` wants it; options of `find` and of `recording.Settings`."""
    return recording_jobs(find, spec)

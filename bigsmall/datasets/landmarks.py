"""Faces turned upright by the landmarks that come with a dataset, as for the paper's models with aligned faces.

FACTS 3.5: 49 points a frame, from which a similarity is made as JAANet makes it. The eyes' centres, the means of the
points 19-24 and 25-30, come to lie level, and a square around them and the points 13, 31 and 37, twice as large as
their greater extent, fills the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..face import Box
from ..video import Frame, Video
from .prepared import POINTS
from .recording import Labels, Recording

SIZE = 144
ENLARGE = 2.0  # the square's side over the extent of the points; JAANet's own is 2.9


def similarity(points: np.ndarray, *, released: bool = False) -> np.ndarray:
    """(2, 3) float64, from pixels x, y of a picture to those of its aligned 144x144 picture.

    Args:
        points: (49, 2) x and y.
        released: with the y of point 7 in place of point 37's, as the authors' branch has it by mistake.
    """
    left, right = points[19:25].mean(0), points[25:31].mean(0)
    chin = np.array([points[37, 0], points[7 if released else 37, 1]])
    (dx, dy), around = right - left, np.stack([left, right, points[13], points[31], chin])
    turn = np.array([[dx, dy], [-dy, dx]]) / np.hypot(dx, dy)
    turned = around @ turn.T
    low, high = turned.min(0), turned.max(0)
    scale = (SIZE - 1) / (ENLARGE * (high - low).max())
    offset = (SIZE - 1) / 2 - scale * (low + high) / 2
    return np.hstack([scale * turn, offset[:, None]])


def warp(rgb: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) uint8 through a similarity: (144, 144, 3) uint8, bilinear, black outside."""
    from scipy.ndimage import affine_transform

    back = np.linalg.inv(matrix[:, :2])
    shift = -back @ matrix[:, 2]
    rows = back[::-1, ::-1]  # scipy's axes are y, x
    planes = [
        affine_transform(plane, rows, shift[::-1], (SIZE, SIZE), np.float32, order=1, mode="grid-constant")
        for plane in np.moveaxis(rgb, 2, 0)
    ]
    made: np.ndarray = np.rint(np.stack(planes, axis=2)).astype(np.uint8)
    return made


def read_landmarks(path: Path) -> np.ndarray:
    """(n, 49, 2) float64 of a file of BP4D+'s 2DFeatures (`fit.pts_2d`); NaN of a frame without.

    Raises:
        ValueError: no such file, or one without landmarks.
    """
    from scipy.io import loadmat

    try:
        given = loadmat(path)["fit"]["pts_2d"].ravel()
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise ValueError(f"{path} has no landmarks fit.pts_2d ({type(error).__name__}: {error})") from error
    unseen = np.full((POINTS, 2), np.nan)
    made = np.stack([points if points.shape == (POINTS, 2) else unseen for points in given])
    if np.isnan(made).any((1, 2)).all():
        raise ValueError(f"{path} has landmarks of no frame, expected {POINTS} points each")
    return made


def with_landmarks(labels: Callable[[], Labels], path: Path, released: bool) -> Labels:
    """The labels of a recording with the landmarks of a file as they lie in its aligned pictures."""
    made, points = labels(), read_landmarks(path)
    known = ~np.isnan(points).any((1, 2))
    matrices = np.array([similarity(of, released=released) for of in points[known]])
    points[known] = points[known] @ matrices[:, :, :2].swapaxes(1, 2) + matrices[:, None, :, 2]
    return replace(made, landmarks=points)


def in_boxes(points: np.ndarray, frames: Sequence[int], boxes: Sequence[Box]) -> np.ndarray:
    """The landmarks of some frames of a video in shares of their boxes, (F, 49, 2) float32.

    Args:
        points: (n, 49, 2) x, y in pixels of the video's frames 0, 1, ...
        frames, boxes: which frames, and a box of each.
    Returns:
        NaN of a frame that has none, lacks a point, or whose eyes are at one place, which is no face.
    """
    if points.shape[1:] != (POINTS, 2):
        raise ValueError(f"landmarks had shape {points.shape}, expected (frames, {POINTS}, 2)")
    used, of = np.array(frames), np.array(boxes, np.float64)
    made, there = np.full((len(used), POINTS, 2), np.nan), used < len(points)
    made[there] = (points[used[there]] + 0.5 - of[there, None, :2]) / of[there, None, 2:]
    apart = np.abs(made[:, 19:25].mean(1) - made[:, 25:31].mean(1)).max(1) > 0
    made[~apart | np.isnan(made).any((1, 2))] = np.nan
    return made.astype(np.float32)


@dataclass(frozen=True)
class Aligned(Recording):
    """A recording whose frames are aligned by the `landmarks` of a file; `released` as of `similarity`."""

    landmarks: Path = Path()
    released: bool = False

    @contextmanager
    def open(self) -> Iterator[Video]:
        """The aligned video."""
        points = read_landmarks(self.landmarks)
        with super().open() as video:
            yield AlignedVideo(video, points, self.released)


class AlignedVideo(Video):
    """A video's faces, turned upright: a frame without landmarks takes those of the last one before it that has any,
    the first ones those of the first that has, and the video ends where the landmarks do.
    """

    def __init__(self, video: Video, points: np.ndarray, released: bool = False) -> None:
        super().__init__(video.name, SIZE, SIZE, video.fps, video.n_frames, video.limits)
        self._video, self._released = video, released
        known = ~np.isnan(points).any((1, 2))
        last = np.maximum.accumulate(np.where(known, np.arange(len(points)), -1))
        self._points = points[np.where(last < 0, known.argmax(), last)]
        self._missing = int((~known).sum())

    def _frames(self, notes: list[str]) -> Iterator[Frame]:
        if self._missing:
            notes.append(f"{self._missing} frames have no landmarks and are aligned as the ones before")
        for frame in self._video:
            if frame.index >= len(self._points):
                notes.append(f"there are landmarks of {len(self._points)} frames only")
                return
            yield frame._replace(rgb=warp(frame.rgb, similarity(self._points[frame.index], released=self._released)))
        notes += [self._video.note] if self._video.note else []

"""Follow one face: look often, move the box seldom."""

from __future__ import annotations

import math
from typing import NamedTuple

from bigsmall.face.detector import Face, FaceDetector
from bigsmall.video import Frame


class Track(NamedTuple):
    """Where a face is held to be, and how sure the detector was when it last looked."""

    face_id: int
    face: Face
    confidence: float


class FaceTracker:
    """Follow the largest face, holding its box still until the face has really moved.

    A box that follows every jitter of the detector shakes the picture, and a shaking picture looks like a pulse. So
    the whole picture is searched every `detect_every` seconds and at once when the face is no longer where it was;
    between, the last network alone checks the spot every `look_every` seconds; and the box moves only when the face
    found overlaps it by less than `min_overlap` (intersection over union) or its centre is off by more than
    `max_shift` of the width.

    Args:
        detector: made if not given.
        several: follow all faces, not the largest only.
        detect_every, look_every: seconds.
    """

    def __init__(
        self,
        detector: FaceDetector | None = None,
        *,
        several: bool = False,
        detect_every: float = 0.5,
        look_every: float = 0.1,
        min_overlap: float = 0.7,
        max_shift: float = 0.12,
    ) -> None:
        self._detector, self.several = detector or FaceDetector(), several
        self.detect_every, self.look_every = detect_every, look_every
        self.min_overlap, self.max_shift = min_overlap, max_shift
        self._track: Track | None = None
        self._detected = self._looked = -math.inf

    def update(self, frame: Frame) -> list[Track]:
        """The faces in this frame, none while there is none. Frames come in order of time."""
        now, held = frame.timestamp, self._track
        if now - self._looked < self.look_every - 1e-3:
            return [held] if held else []
        self._looked = now
        found: Face | None = None
        if held is not None and now - self._detected < self.detect_every - 1e-3:
            found = self._detector.verify(frame.rgb, held.face)
        if found is None:
            found = self._choose(self._detector.detect(frame.rgb))
            self._detected = now
        if found is None:
            self._track = None
        elif held is None or self._moved(held.face, found):
            self._track = Track(0, found, found.confidence)
        else:
            self._track = Track(0, held.face, found.confidence)
        return [self._track] if self._track else []

    def _choose(self, faces: list[Face]) -> Face | None:
        """The face that was followed if it is still there, else the largest."""
        if self._track is not None:
            held = self._track.face
            near = max(faces, key=lambda face: overlap(face, held), default=None)
            if near is not None and overlap(near, held) > 0.3:
                return near
        return max(faces, key=lambda face: face.w * face.h, default=None)

    def _moved(self, held: Face, found: Face) -> bool:
        shift = math.hypot(found.x + found.w / 2 - held.x - held.w / 2, found.y + found.h / 2 - held.y - held.h / 2)
        return shift > self.max_shift * held.w or overlap(held, found) < self.min_overlap


def overlap(a: Face, b: Face) -> float:
    """Intersection over union of two boxes."""
    w = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
    h = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
    inside = max(w, 0.0) * max(h, 0.0)
    return inside / (a.w * a.h + b.w * b.h - inside)

"""Follow faces: look often, search seldom, move the box hardly ever."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from bigsmall.face.detector import SURE, Face, FaceDetector
from bigsmall.video import Frame

MAX_SHIFT = 0.12  # face widths: a centre further off has really moved
MIN_OVERLAP = 0.7  # intersection over union: less has really grown, shrunk or moved
RECENT = 10  # looks whose median says where the face is: about a second
SPEED = 3.0  # face widths a second: none goes faster,
REACH = 2.0  # face widths: and none that has gone further is taken for the same
RIVAL = 2.0  # times the area of the face that is followed
SCENE = 48  # rows and columns, at least, of the pixels by which cuts are seen
SAME_SCENE = 0.5  # correlation of two successive pictures
FLAT = 10.0  # levels (0..255): pictures of less contrast may be noise
FAR = 1e6  # a distance that no face comes by
LOOK_EVERY = 0.1  # s: between two looks at a face; between two searches while one is missing, twice that
SEARCH_EVERY = 2.0  # s: between two searches otherwise
GRACE = 0.5  # s: a face not found for so long is lost
MEMORY = 5.0  # s: a face that comes back within has its old face_id


class Track(NamedTuple):
    """Where a face is held to be, and how sure the detector was when it last looked there."""

    face_id: int
    face: Face
    confidence: float


@dataclass
class _Followed:
    face_id: int
    held: Face
    recent: list[Face]  # where it was found last
    seen: float  # seconds: when it was last found
    confidence: float
    lost: bool = False

    def found(self, face: Face, now: float) -> None:
        """It is there: hold the box where it is held, or move it in one step to where the face has come to rest.

        A jump is followed at once. A smaller move counts when the median of about a second has moved, so that the box
        of a head that nods to and fro stays around the middle.
        """
        self.recent = [face] if self.lost else [*self.recent, face][-RECENT:]
        self.seen, self.confidence, self.lost = now, face.confidence, False
        x, y, w, h = np.median([past[:4] for past in self.recent], axis=0).tolist()
        if _moved(self.held, face, 2):
            self.held, self.recent = face, [face]
        elif len(self.recent) == RECENT and _moved(self.held, typical := face._replace(x=x, y=y, w=w, h=h)):
            self.held = typical

    def distance(self, face: Face, now: float) -> float:
        """In face widths, from where it was last seen; FAR where it cannot have come to in the time."""
        last = self.recent[-1]
        distance = _shift(last, face)
        reach = min(0.5 + SPEED * (now - self.seen), REACH)
        return distance if distance < reach and 2 / 3 < face.w / last.w < 3 / 2 else FAR


class FaceTracker:
    """Follow the largest face, or all faces, holding each box still until the face has really moved.

    A box that follows every jitter of the detector shakes the picture, and a shaking picture looks like a pulse. So
    between two searches of the whole picture the detector's last network looks only at the spots where faces are, and
    a box is moved seldom and then in one step. A face that is not found, in a blink or a turn of the head, is lost
    after `GRACE`, or at once where the scene is cut; one that comes back within `MEMORY`, to where it can have got to
    in the time, has its old face_id. A face once chosen as the largest is followed until it is lost, or until one of
    twice its area has been there for two searches.

    Args:
        detector: made if not given.
        several: follow all faces, not the largest only. The largest only is always face_id 0.
    """

    def __init__(self, detector: FaceDetector | None = None, *, several: bool = False) -> None:
        self._detector = detector or FaceDetector()
        self.several = several
        self._followed: list[_Followed] = []
        self._next_id = 0
        self._looked = self._searched = -math.inf
        self._rival: float | None = None  # since when a much larger face has been there
        self._scene: np.ndarray | None = None

    def update(self, frame: Frame) -> list[Track]:
        """The faces in this frame by face_id, at most one unless `several`. Frames come in order of time."""
        now = frame.timestamp
        cut = self._cut(frame.rgb)
        if cut:
            for known in self._followed:
                known.lost = True
        if cut or now - self._looked > LOOK_EVERY - 1e-3:
            self._looked = now
            self._look(frame.rgb, now)
            missing = not self._followed or any(known.seen < now for known in self._followed)
            if cut or now - self._searched > (2 * LOOK_EVERY if missing else SEARCH_EVERY) - 1e-3:
                self._searched = now
                self._search(self._detector.detect(frame.rgb), now, cut)
            self._followed = [known for known in self._followed if now - known.seen <= MEMORY]
            for known in self._followed:
                known.lost = known.lost or now - known.seen > GRACE
        return [Track(known.face_id, known.held, known.confidence) for known in self._followed if not known.lost]

    def _look(self, rgb: np.ndarray, now: float) -> None:
        """Each face where it was; of two that claim one spot, the one that changes less has it."""
        present = [known for known in self._followed if not known.lost]
        looks = list(zip(present, self._detector.verify(rgb, [known.held for known in present]), strict=True))
        looks.sort(key=lambda look: -overlap(look[0].recent[-1], look[1]))
        taken: list[Face] = []
        for known, face in looks:
            known.confidence = face.confidence
            there = face.confidence > SURE and known.distance(face, now) < FAR
            if there and all(overlap(face, other) < 0.5 for other in taken):
                known.found(face, now)
                taken.append(face)

    def _search(self, faces: list[Face], now: float, cut: bool) -> None:
        """Give the faces of the whole picture to those that are followed, and follow the new."""
        cost = np.array([[known.distance(face, now) for face in faces] for known in self._followed])
        unknown = dict(enumerate(faces))
        for i, j in zip(*linear_sum_assignment(cost), strict=True) if cost.size else ():
            if cost[i, j] < FAR:
                face = unknown.pop(j)
                if self._followed[i].seen < now:
                    self._followed[i].found(face, now)
        seen = [known.recent[-1] for known in self._followed if known.seen == now]
        new = [face for face in unknown.values() if all(overlap(face, other) < 0.3 for other in seen)]
        new.sort(key=lambda face: -face.w * face.h)
        if self.several:
            for face in new:
                self._follow(face, now)
        elif not new:
            self._rival = None
        elif self._gives_way(new[0], now, cut):
            self._followed, self._next_id, self._rival = [], 0, None
            self._follow(new[0], now)

    def _follow(self, face: Face, now: float) -> None:
        self._followed.append(_Followed(self._next_id, face, [face], now, face.confidence))
        self._next_id += 1

    def _gives_way(self, rival: Face, now: float, cut: bool) -> bool:
        """Whether the one face that is followed gives way to another."""
        if not self._followed or (cut and self._followed[0].lost):
            return True
        known = self._followed[0]
        if not known.lost and rival.w * rival.h < RIVAL * known.held.w * known.held.h:
            self._rival = None
            return False
        self._rival = now if self._rival is None else self._rival
        return now - self._rival > SEARCH_EVERY - 1e-3

    def _cut(self, rgb: np.ndarray) -> bool:
        """Whether this picture and the one before it show different scenes."""
        height, width = rgb.shape[:2]
        points = rgb[:: max(1, height // SCENE), :: max(1, width // SCENE), 1].astype(np.float32)
        scene = points - points.mean()
        before, self._scene = self._scene, scene
        if before is None or before.shape != scene.shape:
            return before is not None
        contrasts = float(scene.std()), float(before.std())
        alike = float((scene * before).mean()) / (max(FLAT, contrasts[0]) * max(FLAT, contrasts[1]))
        return max(contrasts) > FLAT and alike < SAME_SCENE


def overlap(a: Face, b: Face) -> float:
    """Intersection over union of two boxes."""
    w = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
    h = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
    inside = max(w, 0.0) * max(h, 0.0)
    return inside / (a.w * a.h + b.w * b.h - inside)


def _shift(a: Face, b: Face) -> float:
    """Between the centres of two boxes, in widths of the first."""
    return math.hypot(a.x + a.w / 2 - b.x - b.w / 2, a.y + a.h / 2 - b.y - b.h / 2) / a.w


def _moved(held: Face, found: Face, far: float = 1.0) -> bool:
    return _shift(held, found) > far * MAX_SHIFT or overlap(held, found) < 1 - far * (1 - MIN_OVERLAP)

"""Which part of the picture the model sees."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index

from bigsmall.face.detector import Face

Box = tuple[int, int, int, int]  # x, y, w, h in pixels
CropPolicy = str | Box
FACE_SCALE = 1.5  # of the detected box, as the toolbox enlarges it (FACTS 3.4)
SCALES = 0.5, 10.0  # the least and the greatest that "face:S" takes
EXPECTED = "frame, square, face, face:S (S times the face's longer side)"


def parse_crop(given: str | Sequence[int]) -> CropPolicy:
    """A crop policy from what a user wrote: a name ("frame", "square", "face", "face:1.8"), "x,y,w,h", or (x, y, w, h).

    Raises:
        ValueError: it is none of these.
    """
    try:
        x, y, w, h = (int(part) for part in given.split(",")) if isinstance(given, str) else map(index, given)
    except (TypeError, ValueError):
        if isinstance(given, str) and (given in ("frame", "square") or face_scale(given) is not None):
            return given
        raise ValueError(f"crop was {given!r}, expected {EXPECTED} or x,y,w,h in whole pixels") from None
    return x, y, w, h


def face_scale(policy: CropPolicy) -> float | None:
    """The S of the policy "face:S", 1.5 of plain "face"; None for the policies that need no face.

    Raises:
        ValueError: S is no number from 0.5 to 10.
    """
    if not isinstance(policy, str):
        return None
    name, colon, scale = policy.partition(":")
    if name != "face":
        return None
    try:
        s = float(scale) if colon else FACE_SCALE
    except ValueError:
        s = 0.0
    if not SCALES[0] <= s <= SCALES[1]:
        raise ValueError(f"crop was {policy!r}, expected face:S with a scale S from {SCALES[0]:g} to {SCALES[1]:g}")
    return s


def crop_box(policy: CropPolicy, face: Face | None, width: int, height: int) -> Box | None:
    """The box that a policy names in a picture of this size, always inside it.

    Args:
        policy: "frame", the whole picture; "square", the bottom square of portrait pictures as the authors trained
            (FACTS 3.1) and the centre square of landscape; "face:S", a square around the face, S times its longer
            side, moved and at last shrunk to lie inside the picture ("face": 1.5; respiration wants the shoulders,
            which show from about 2); or a fixed box (x, y, w, h).
        face: needed by "face" only; without it that policy gives None.
        width, height: of the picture, pixels.

    Raises:
        ValueError: an unknown policy, or a fixed box that is not inside the picture.
    """
    if not isinstance(policy, str):
        x, y, w, h = policy
        if x < 0 or y < 0 or w < 1 or h < 1 or x + w > width or y + h > height:
            raise ValueError(f"crop was {x},{y},{w},{h}, expected a box inside the picture of {width}x{height}")
        return x, y, w, h
    if policy == "frame":
        return 0, 0, width, height
    if policy == "square":
        side = min(width, height)
        return (width - side) // 2, height - side, side, side
    scale = face_scale(policy)
    if scale is None:
        raise ValueError(f"crop was {policy!r}, expected {EXPECTED} or a box (x, y, w, h)")
    if face is None:
        return None
    side = max(1, min(round(scale * max(face.w, face.h)), width, height))
    x = round(face.x + face.w / 2 - side / 2)
    y = round(face.y + face.h / 2 - side / 2)
    return min(max(x, 0), width - side), min(max(y, 0), height - side), side, side

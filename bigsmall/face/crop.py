"""Which part of the picture the model sees."""

from __future__ import annotations

from bigsmall.face.detector import Face

Box = tuple[int, int, int, int]  # x, y, w, h in pixels
CropPolicy = str | Box
POLICIES = ("frame", "square", "face")
FACE_SCALE = 1.5  # of the detected box, as the toolbox enlarges it (FACTS 3.4)


def parse_crop(text: str) -> CropPolicy:
    """A crop policy from the command line: a name, or "x,y,w,h".

    Raises:
        ValueError: it is neither.
    """
    if text in POLICIES:
        return text
    try:
        x, y, w, h = (int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"crop was {text!r}, expected {', '.join(POLICIES)} or x,y,w,h in whole pixels") from None
    return x, y, w, h


def crop_box(policy: CropPolicy, face: Face | None, width: int, height: int) -> Box | None:
    """The box that a policy names in a picture of this size, always inside it.

    Args:
        policy: "frame", the whole picture; "square", the bottom square of portrait pictures as the authors trained
            (FACTS 3.1) and the centre square of landscape; "face", a square around the face, 1.5 times its longer side;
            or a fixed box (x, y, w, h).
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
    if policy != "face":
        raise ValueError(f"crop was {policy!r}, expected {', '.join(POLICIES)} or a box (x, y, w, h)")
    if face is None:
        return None
    side = min(round(FACE_SCALE * max(face.w, face.h)), width, height)
    x = round(face.x + face.w / 2 - side / 2)
    y = round(face.y + face.h / 2 - side / 2)
    return min(max(x, 0), width - side), min(max(y, 0), height - side), side, side

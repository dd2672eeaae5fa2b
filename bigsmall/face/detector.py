"""Find faces: proposals on an image pyramid, refined twice (MTCNN, Zhang et al. 2016)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bigsmall.face import networks
from bigsmall.threads import one_thread

PYRAMID_FACTOR = 0.709  # halves the area at each level, as published
THRESHOLDS = (0.6, 0.7, 0.8)  # of the three networks


class Face(NamedTuple):
    """One face, in pixels of the picture; the box may reach over its edge."""

    x: float
    y: float
    w: float
    h: float
    confidence: float
    landmarks: np.ndarray  # (5, 2): left eye, right eye, nose, left and right corner of the mouth, as seen


class FaceDetector:
    """P-, R- and O-Net on the CPU.

    Args:
        longest_side: the picture is reduced to this for the search, pixels.
        min_face: the smallest face that is looked for, as a share of the shorter side.

    Raises:
        FaceWeightsError: the weights are not installed, or not those that were checked.
    """

    def __init__(self, longest_side: int = 480, min_face: float = 0.08) -> None:
        self.longest_side, self.min_face = longest_side, min_face
        self._pnet, self._rnet, self._onet = (networks.load(name) for name in ("pnet", "rnet", "onet"))

    @one_thread()
    def detect(self, rgb: np.ndarray) -> list[Face]:
        """All faces in a picture (H, W, 3) uint8 RGB, the surest first."""
        picture, scale = self._reduce(rgb)
        boxes = self._propose(picture)
        if len(boxes):
            out = self._rnet(_patches(picture, boxes, 24))
            keep = out["face"] > THRESHOLDS[1]
            boxes = _regress(boxes[keep], out["box"][keep])
            boxes = _square(boxes[_nms(boxes, out["face"][keep], 0.7)])
        return self._refine(picture, boxes, scale) if len(boxes) else []

    @one_thread()
    def verify(self, rgb: np.ndarray, face: Face) -> Face | None:
        """The face near where it was, by the last network alone: a fraction of the cost of `detect`."""
        x0, y0 = int(max(0, face.x - face.w / 2)), int(max(0, face.y - face.h / 2))
        x1, y1 = int(face.x + 1.5 * face.w) + 1, int(face.y + 1.5 * face.h) + 1
        picture, scale = self._reduce(rgb[y0:y1, x0:x1], longest_side=144)
        box = torch.tensor([[face.x - x0, face.y - y0, face.x + face.w - x0, face.y + face.h - y0]]) * scale
        found = self._refine(picture, _square(box), scale)
        if not found:
            return None
        moved = found[0]
        return moved._replace(x=moved.x + x0, y=moved.y + y0, landmarks=np.add(moved.landmarks, (x0, y0)))

    def _reduce(self, rgb: np.ndarray, longest_side: int | None = None) -> tuple[Tensor, float]:
        """The picture as the networks want it, (1, 3, h, w), and how much smaller it is."""
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise ValueError(f"rgb was {rgb.dtype} of shape {rgb.shape}, expected uint8 (H, W, 3)")
        scale = min(1.0, (longest_side or self.longest_side) / max(rgb.shape[:2]))
        step = max(1, int(0.5 / scale))  # of very large pictures every step-th pixel is enough
        pixels = torch.from_numpy(np.ascontiguousarray(rgb[::step, ::step])).permute(2, 0, 1)[None].float()
        size = [max(1, round(side * scale)) for side in rgb.shape[:2]]
        return (_resize(pixels, size) - 127.5) / 128, scale

    def _propose(self, picture: Tensor) -> Tensor:
        """P-Net, fully convolutional: every 12x12 window at stride 2, at every level of the pyramid. (n, 4) squares."""
        height, width = picture.shape[2:]
        smallest = max(12.0, self.min_face * min(height, width))
        found: list[Tensor] = []
        scores: list[Tensor] = []
        scale = 12 / smallest
        while min(height, width) * scale >= 12:
            level = _resize(picture, [round(height * scale), round(width * scale)])
            out = self._pnet(level)
            y, x = (out["face"][0] > THRESHOLDS[0]).nonzero(as_tuple=True)
            corner = torch.stack([x, y], 1) * 2.0
            boxes = torch.cat([corner, corner + 12], 1)
            score = out["face"][0, y, x]
            keep = _nms(boxes, score, 0.5)
            found.append(_regress(boxes, out["box"][0, :, y, x].T)[keep] / scale)
            scores.append(score[keep])
            scale *= PYRAMID_FACTOR
        boxes = torch.cat(found) if found else torch.empty(0, 4)
        return _square(boxes[_nms(boxes, torch.cat(scores), 0.7)]) if len(boxes) else boxes

    def _refine(self, picture: Tensor, boxes: Tensor, scale: float) -> list[Face]:
        """O-Net: the final boxes and the landmarks, back in pixels of the given picture."""
        out = self._onet(_patches(picture, boxes, 48))
        keep = out["face"] > THRESHOLDS[2]
        boxes, score = boxes[keep], out["face"][keep]
        corner, size = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
        landmarks = out["landmarks"][keep].unflatten(1, (2, 5)).transpose(1, 2) * size + corner
        boxes = _regress(boxes, out["box"][keep])
        faces = []
        for i in _nms(boxes, score, 0.7, of_smaller=True).tolist():
            x0, y0, x1, y1 = (boxes[i] / scale).tolist()
            faces.append(Face(x0, y0, x1 - x0, y1 - y0, float(score[i]), (landmarks[i] / scale).numpy()))
        return faces


def _resize(picture: Tensor, size: list[int]) -> Tensor:
    return picture if list(picture.shape[2:]) == size else F.interpolate(picture, size, mode="area")


def _regress(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Move each corner by a share of the box's size."""
    size = boxes[:, 2:] - boxes[:, :2]
    return boxes + offsets * torch.cat([size, size], 1)


def _square(boxes: Tensor) -> Tensor:
    """The smallest square around each box, same centre."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) / 2
    return torch.cat([centre - half, centre + half], 1)


def _patches(picture: Tensor, boxes: Tensor, size: int) -> Tensor:
    """(n, 3, size, size) cut out along the boxes, each pixel the mean of 2x2 samples; mid-grey beyond the edge."""
    steps = (torch.arange(2 * size) + 0.5) / (2 * size)
    extent = torch.tensor([picture.shape[3], picture.shape[2]], dtype=torch.float32)
    low, high = boxes[:, None, :2] / extent * 2 - 1, boxes[:, None, 2:] / extent * 2 - 1
    along = low + (high - low) * steps[None, :, None]  # (n, 2*size, 2): x and y positions
    grid = torch.stack(torch.broadcast_tensors(along[:, None, :, 0], along[:, :, None, 1]), -1)  # (n, rows, columns, 2)
    samples = F.grid_sample(picture.expand(len(boxes), -1, -1, -1), grid, align_corners=False)
    return F.avg_pool2d(samples, 2)


def _nms(boxes: Tensor, scores: Tensor, threshold: float, of_smaller: bool = False) -> Tensor:
    """Indices of the boxes to keep, best first; a box goes if it overlaps a better one by more than `threshold`.

    The overlap is the intersection over the union, or over the smaller of the two boxes.
    """
    b, order = boxes.numpy(), np.argsort(-scores.numpy(), kind="stable")
    area = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    keep = []
    while len(order):
        best, rest = order[0], order[1:]
        keep.append(int(best))
        sides = np.minimum(b[best, 2:], b[rest, 2:]) - np.maximum(b[best, :2], b[rest, :2])
        inside = sides.clip(min=0).prod(1)
        whole = np.minimum(area[best], area[rest]) if of_smaller else area[best] + area[rest] - inside
        order = rest[inside <= threshold * whole]
    return torch.tensor(keep, dtype=torch.long)

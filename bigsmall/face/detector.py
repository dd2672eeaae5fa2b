"""Find faces: proposals on an image pyramid, refined twice (MTCNN, Zhang et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bigsmall.face import networks
from bigsmall.threads import one_thread

PYRAMID_FACTOR = 0.709  # halves the area at each level, as published
SURE = 0.8  # the least confidence of a face that is reported
THRESHOLDS = 0.6, 0.7  # of the first two networks
DIM = 4.0, 64.0  # 0..255: a darker median is lifted to the second, as if it were no less than the first
MIN_FACE = 0.08  # of the picture's shorter side: the smallest face that is looked for
SMALLEST = 12  # pixels: the window of the first network


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

    The search runs on a picture so small that the smallest face looked for fits the first network's window; the faces
    themselves are then cut out of the picture as it came, so that large pictures cost no more and lose nothing.

    Raises:
        FaceWeightsError: the weights are not installed, or not those that were checked.
    """

    def __init__(self) -> None:
        self._pnet, self._rnet, self._onet = (networks.load(name) for name in ("pnet", "rnet", "onet"))

    @one_thread()
    def detect(self, rgb: np.ndarray) -> list[Face]:
        """All faces in a picture (H, W, 3) uint8 RGB, the surest first."""
        _check(rgb)
        faces = self._detect(rgb, lift=False)
        dim = np.median(rgb[::8, ::8, 1]) < DIM[1]
        return self._detect(rgb, lift=True) if dim and not faces else faces

    def _detect(self, rgb: np.ndarray, lift: bool) -> list[Face]:
        boxes = self._propose(rgb, lift)
        if len(boxes):
            out = self._rnet(_patches(rgb, boxes, 24))
            keep = out["face"] > THRESHOLDS[1]
            boxes = _regress(boxes[keep], out["box"][keep])
            boxes = _square(boxes[_nms(boxes, out["face"][keep], 0.7)])
        if not len(boxes):
            return []
        for _ in range(2):  # again from where the first ends, as `verify` will
            boxes, score, landmarks = self._refine(rgb, _square(boxes))
            sure = (score > SURE).nonzero()[:, 0]
            order = sure[_nms(boxes[sure], score[sure], 0.7, of_smaller=True)]
            boxes, score, landmarks = boxes[order], score[order], landmarks[order]
        return _faces(boxes, score, landmarks)

    @one_thread()
    def verify(self, rgb: np.ndarray, faces: Sequence[Face]) -> list[Face]:
        """Each face near where it was, by the last network alone: a fraction of the cost of `detect`.

        The confidence says whether it is there at all: below SURE `detect` would not have reported it.
        """
        _check(rgb)
        if not faces:
            return []
        boxes = torch.tensor([[face.x, face.y, face.x + face.w, face.y + face.h] for face in faces])
        return _faces(*self._refine(rgb, _square(boxes)))

    def _propose(self, rgb: np.ndarray, lift: bool) -> Tensor:
        """P-Net, fully convolutional: every 12x12 window at stride 2, at every level of the pyramid. (n, 4) squares."""
        height, width = rgb.shape[:2]
        scale = min(1.0, SMALLEST / (MIN_FACE * min(height, width)))
        step = max(1, int(0.5 / scale))  # of very large pictures every step-th pixel is enough
        picture = torch.from_numpy(np.array(rgb[::step, ::step], order="C")).permute(2, 0, 1)[None]
        found: list[Tensor] = []
        scores: list[Tensor] = []
        while min(height, width) * scale >= SMALLEST:
            size = [round(height * scale), round(width * scale)]
            picture = F.interpolate(picture, size, mode="bilinear", antialias=True)
            out = self._pnet(_input(picture, lift))
            y, x = (out["face"][0] > THRESHOLDS[0]).nonzero(as_tuple=True)
            corner = torch.stack([x, y], 1) * 2.0
            boxes = torch.cat([corner, corner + SMALLEST], 1)
            score = out["face"][0, y, x]
            keep = _nms(boxes, score, 0.5)
            found.append(_regress(boxes, out["box"][0, :, y, x].T)[keep] / scale)
            scores.append(score[keep])
            scale *= PYRAMID_FACTOR
        boxes = torch.cat(found) if found else torch.empty(0, 4)
        return _square(boxes[_nms(boxes, torch.cat(scores), 0.7)]) if len(boxes) else boxes

    def _refine(self, rgb: np.ndarray, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """O-Net: the final boxes (n, 4), their scores (n,) and landmarks (n, 5, 2), pixels."""
        out = self._onet(_patches(rgb, boxes, 48))
        corner, size = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
        landmarks = out["landmarks"].unflatten(1, (2, 5)).transpose(1, 2) * size + corner
        return _regress(boxes, out["box"]), out["face"], landmarks


def _check(rgb: np.ndarray) -> None:
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"rgb was {rgb.dtype} of shape {rgb.shape}, expected uint8 (H, W, 3)")


def _faces(boxes: Tensor, scores: Tensor, landmarks: Tensor) -> list[Face]:
    return [
        Face(x0, y0, x1 - x0, y1 - y0, score, points)
        for (x0, y0, x1, y1), score, points in zip(boxes.tolist(), scores.tolist(), landmarks.numpy(), strict=True)
    ]


def _input(pixels: Tensor, lift: bool = True) -> Tensor:
    """uint8 pixels (n, 3, h, w), the dark ones lit if `lift`, as the networks want them, in their fastest layout."""
    x = pixels.float()
    if lift:
        level = x[:, 1, ::4, ::4].flatten(1).median(1).values.clamp(*DIM)
        x = (x * (DIM[1] / level)[:, None, None, None]).clamp(max=255)
    return ((x - 127.5) / 128).contiguous(memory_format=torch.channels_last)


def _regress(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Move each corner by a share of the box's size."""
    size = boxes[:, 2:] - boxes[:, :2]
    return boxes + offsets * torch.cat([size, size], 1)


def _square(boxes: Tensor) -> Tensor:
    """The smallest square around each box, same centre."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) / 2
    return torch.cat([centre - half, centre + half], 1)


def _patches(rgb: np.ndarray, boxes: Tensor, size: int) -> Tensor:
    """(n, 3, size, size) cut out along the boxes, each pixel the mean of 2x2 samples; mid-grey beyond the edge."""
    height, width = rgb.shape[:2]
    steps = (np.arange(2 * size) + 0.5) / (2 * size)
    x0, y0, x1, y1 = boxes.numpy().T[:, :, None]
    x = np.floor(x0 + (x1 - x0) * steps).astype(int)[:, None, :]
    y = np.floor(y0 + (y1 - y0) * steps).astype(int)[:, :, None]
    samples = rgb[y.clip(0, height - 1), x.clip(0, width - 1)]  # (n, rows, columns, 3)
    samples[(x < 0) | (x >= width) | (y < 0) | (y >= height)] = 127
    return F.avg_pool2d(_input(torch.from_numpy(samples).permute(0, 3, 1, 2)), 2)


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

"""How each facial action unit moves and folds the skin (Ekman and Friesen, FACS), and how blinking and speech do."""

from __future__ import annotations

import numpy as np
import torch

from .looks import Look
from .physiology import AUS

# Brushes (u, v, width u, width v, shift u, shift v, squeeze u, squeeze v), Gaussian in shape, mirrored to the other
# side of the face; a squeeze draws the skin towards the brush's centre, a negative one spreads it. In face units.
BRUSHES: dict[str, tuple[tuple[float, ...], ...]] = {
    "AU01": ((0.15, -0.34, 0.12, 0.11, 0.00, -0.13, 0, 0),),
    "AU02": ((0.48, -0.34, 0.14, 0.11, 0.00, -0.13, 0, 0),),
    "AU04": ((0.18, -0.28, 0.19, 0.13, -0.06, 0.10, 0, 0),),
    "AU06": ((0.40, 0.20, 0.20, 0.14, 0.00, -0.10, 0, 0), (0.31, -0.02, 0.17, 0.05, 0, -0.035, 0, 0)),
    "AU07": ((0.31, -0.08, 0.20, 0.08, 0, 0, 0, 1.6),),
    "AU10": ((0.10, 0.49, 0.12, 0.055, 0.00, -0.09, 0, 0), (0.13, 0.28, 0.08, 0.09, 0.03, -0.045, 0, 0),
             (0.0, 0.555, 0.16, 0.03, 0, 0, 0, -0.35)),
    "AU12": ((0.28, 0.56, 0.13, 0.12, 0.10, -0.11, 0, 0), (0.42, 0.32, 0.18, 0.14, 0.03, -0.06, 0, 0)),
    "AU14": ((0.24, 0.56, 0.10, 0.09, 0.075, -0.01, 0, 0.5), (0.40, 0.56, 0.07, 0.12, -0.04, 0, 0.5, 0)),
    "AU15": ((0.27, 0.58, 0.10, 0.10, 0.01, 0.12, 0, 0), (0.0, 0.50, 0.12, 0.06, 0, 0.01, 0, 0)),
    "AU17": ((0.00, 0.80, 0.22, 0.12, 0, -0.10, 0, 0), (0.0, 0.63, 0.17, 0.06, 0, -0.07, 0, 0)),
    "AU23": ((0.00, 0.56, 0.25, 0.10, 0, 0, 0.60, 0.5),),
    "AU24": ((0.00, 0.565, 0.34, 0.050, 0, 0, 0, 2.2), (0.33, 0.56, 0.08, 0.08, 0, 0, 0.3, 0)),
}  # fmt: skip
BLINK = ((0.31, -0.08, 0.19, 0.06, 0, 0.01, 0, 6.0),)  # neither is one of the 12 AUs, but faces blink
SPEECH = ((0.0, 0.555, 0.20, 0.05, 0, 0, 0, -0.78), (0.0, 0.80, 0.36, 0.17, 0, 0.10, 0, 0))  # and speak

# The folds that come with it: lines (u0, v0, u1, v1, width, depth), mirrored as well; a negative depth is a bulge.
FOLDS: dict[str, tuple[tuple[float, ...], ...]] = {
    "AU01": ((0.00, -0.55, 0.20, -0.57, 0.020, 0.40), (0.00, -0.46, 0.19, -0.48, 0.020, 0.40)),
    "AU02": ((0.30, -0.54, 0.55, -0.48, 0.020, 0.35), (0.32, -0.46, 0.55, -0.42, 0.020, 0.35)),
    "AU04": ((0.05, -0.40, 0.06, -0.18, 0.022, 0.60), (0.00, -0.16, 0.09, -0.17, 0.018, 0.35)),
    "AU06": ((0.53, -0.11, 0.68, -0.19, 0.016, 0.45), (0.53, -0.05, 0.69, -0.05, 0.016, 0.45),
             (0.52, 0.00, 0.66, 0.06, 0.016, 0.35), (0.18, 0.05, 0.45, 0.07, 0.022, 0.40)),
    "AU07": ((0.18, 0.01, 0.42, 0.02, 0.018, 0.45), (0.20, -0.17, 0.42, -0.17, 0.02, 0.3)),
    "AU10": ((0.16, 0.20, 0.28, 0.40, 0.028, 0.55), (0.28, 0.40, 0.36, 0.48, 0.025, 0.30)),
    "AU12": ((0.22, 0.26, 0.44, 0.55, 0.028, 0.45), (0.20, 0.26, 0.38, 0.22, 0.05, -0.10)),
    "AU14": ((0.395, 0.49, 0.41, 0.64, 0.035, 0.70), (0.47, 0.48, 0.49, 0.66, 0.04, -0.20)),
    "AU15": ((0.33, 0.66, 0.37, 0.83, 0.028, 0.55), (0.06, 0.74, 0.24, 0.80, 0.03, 0.25)),
    "AU17": ((0.00, 0.71, 0.15, 0.74, 0.030, 0.50), (0.03, 0.86, 0.06, 0.93, 0.020, 0.40),
             (0.12, 0.84, 0.15, 0.92, 0.020, 0.35), (0.00, 0.80, 0.10, 0.80, 0.05, -0.15)),
    "AU23": ((0.05, 0.43, 0.05, 0.49, 0.014, 0.30), (0.13, 0.44, 0.12, 0.50, 0.014, 0.30),
             (0.00, 0.67, 0.12, 0.67, 0.025, 0.35)),
    "AU24": ((0.00, 0.68, 0.20, 0.66, 0.028, 0.45), (0.00, 0.49, 0.20, 0.50, 0.035, -0.22),
             (0.31, 0.53, 0.34, 0.62, 0.025, 0.55), (0.00, 0.63, 0.18, 0.62, 0.02, -0.15)),
}  # fmt: skip


class Muscles:
    """What each of the 12 AUs, a blink and speech do to one person's face, on a grid of points (u, v).

    `muscles[k]`, (3, H, W) float32: per unit of pull, how far the source of each point moves right and down (face
    units), and how much its light changes.
    """

    def __init__(self, look: Look, u: np.ndarray, v: np.ndarray) -> None:
        self._look, (self._u, self._v) = look, look.canonical(u, v)
        self._made: dict[int, torch.Tensor] = {}

    def __getitem__(self, k: int) -> torch.Tensor:
        if k not in self._made:
            brushes = (*(BRUSHES[au] for au in AUS), BLINK, SPEECH)[k]
            left, right = self._look.strength[:, k].tolist() if k < len(AUS) else (1.0, 1.0)
            total = np.zeros((3, *self._u.shape), np.float32)
            for u0, v0, su, sv, du, dv, qu, qv in brushes:
                for side in (1, -1) if u0 else (1,):
                    x, y = self._u - side * u0 * self._look.width, self._v - v0
                    near = np.exp(-0.5 * ((x / su) ** 2 + (y / sv) ** 2)) * (right if side > 0 else left)
                    total[0] += near * (qu * x - side * du)
                    total[1] += near * (qv * y - dv)
            if k < len(AUS):
                s = np.abs(self._u) / self._look.width
                for u0, v0, u1, v1, width, depth in FOLDS[AUS[k]]:
                    deep = depth * (0.55 + 0.35 * self._look.age)
                    total[2] -= deep * np.exp(-0.5 * (distance(s, self._v, u0, v0, u1, v1) / (1.25 * width)) ** 2)
                total[2] *= np.where(self._u > 0, right, left)
            self._made[k] = torch.from_numpy(total)
        return self._made[k]


def distance(u: np.ndarray, v: np.ndarray, u0: float, v0: float, u1: float, v1: float) -> np.ndarray:
    """Distance of every point from a line segment."""
    du, dv = u1 - u0, v1 - v0
    along = np.clip(((u - u0) * du + (v - v0) * dv) / (du * du + dv * dv), 0, 1)
    return np.hypot(u - u0 - along * du, v - v0 - along * dv)

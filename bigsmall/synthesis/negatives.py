"""Negative controls: videos without a pulse, some with something in them that beats like one."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from . import drawing
from .physiology import wander
from .simulator import Simulation

NEGATIVES = ("no pulse", "photograph", "waved photograph", "mannequin", "screen", "cartoon", "wall", "noise")


def negatives(kind: str, **options: object) -> Simulation:
    """A video in which there is no pulse to find; the same seed gives the same bits.

    What beats is light or motion, never blood: at a rate by the seed, 45 to 170 per minute, as regular as a heart.

    Args:
        kind: one of NEGATIVES.
            "no pulse": a living person who breathes, moves and makes faces, and whose skin does not change.
            "photograph": of a face, in front of a still camera, under a lamp that beats.
            "waved photograph": in a hand that trembles and beats time.
            "mannequin": a still head under a lamp that beats.
            "screen": a photograph on a screen whose backlight beats and shows bands.
            "cartoon": a moving face of a few flat colours.
            "wall": no face, under a lamp that beats. "noise": nothing but noise.
        **options: as for `synthesize`; what only the living do is left out.

    Returns:
        a `Simulation` whose `truth` has no heart rate, and no respiration but of "no pulse" and "cartoon".

    Raises:
        ValueError: no such kind, or an option out of its range; TypeError: an unknown option.
    """
    if kind not in NEGATIVES:
        raise ValueError(f"kind must be one of {', '.join(NEGATIVES)}, got {kind!r}")
    lifeless: dict[str, object] = {"heart_rate": None}
    if kind not in ("no pulse", "cartoon"):
        lifeless |= {"respiration_rate": None, "expressions": 0.0, "motion": 0.0, "gestures": 0.0, "talking": 0.0}
    kinds = {"no pulse": Simulation, "mannequin": _Lamp, "cartoon": _Cartoon, "wall": _Wall, "noise": _Noise}
    kinds |= {"photograph": _Photograph, "waved photograph": _Waved, "screen": _Screen}
    return kinds[kind](**(options | lifeless))  # type: ignore[arg-type]


class _Lamp(Simulation):
    """Under a lamp whose brightness, not colour, beats like a pulse."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        rng = np.random.default_rng((*self._noise_seed, 1))
        t = self._taken
        rate = rng.uniform(45, 170) / 60
        phase = 2 * math.pi * rate * (t + 0.02 * wander(t, rng, 0.05, 0.4))
        self._beat = np.sin(phase) + 0.35 * np.sin(2 * phase + 0.7)
        self._hand = self._moved(t, rng)  # (3, T): right and down, shares of the picture's size; radians
        self._lamp = self._lamp * (1 + self._depth(rng) * self._beat).astype(np.float32)

    def _depth(self, rng: np.random.Generator) -> float:
        return float(np.exp(rng.uniform(np.log(0.001), np.log(0.01))))

    def _moved(self, t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.zeros((3, len(t)))


class _Photograph(_Lamp):
    """A print of a face before a room: a picture of a picture."""

    PRINT = 0.8  # its size on the camera's picture

    @property
    def box(self) -> tuple[float, float, float, float]:
        (x, y, w, h), (width, height), k = super().box, self.size, self.PRINT
        return (x - width / 2) * k + width / 2, (y - height / 2) * k + height / 2, k * w, k * h

    @cached_property
    def _print(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The room, and the print with its white margin and its coverage, (1, 4, H, W)."""
        sheet = torch.cat([super()._scene(0), torch.ones(1, 1, self.size[1], self.size[0])], 1)
        margin = max(1, round(0.03 * min(self.size)))
        for edge in (sheet[..., :margin], sheet[..., -margin:], sheet[..., :margin, :], sheet[..., -margin:, :]):
            edge.fill_(0.9)
        sheet[:, 3] = 1
        return drawing.room(*self.size, np.random.default_rng((self._room_seed, 1))), sheet

    def _scene(self, i: int) -> torch.Tensor:
        room, sheet = self._print
        right, down, roll = self._hand[:, i].tolist()
        (width, height), k = self.size, self.PRINT
        cos, sin, tall = math.cos(roll) / k, math.sin(roll) / k, height / width
        theta = torch.tensor([[[cos, sin * tall, -2 * right / k], [-sin / tall, cos, -2 * down / k]]])
        grid = F.affine_grid(theta, [1, 1, height, width], align_corners=False)
        laid = F.grid_sample(sheet, grid, align_corners=False)
        picture: torch.Tensor = room * (1 - laid[:, 3:]) + laid[:, :3] * self._sheet_light(i)
        return picture

    def _sheet_light(self, i: int) -> torch.Tensor | float:
        return 1 + 2 * float(self._hand[0, i])  # tilted by the hand, the paper faces the light elsewhere


class _Waved(_Photograph):
    """In a hand that beats time."""

    def _moved(self, t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        size: np.ndarray = np.array([0.01, 0.01, 0.02])[:, None]
        swayed = size * np.stack([wander(t, rng, 0.05, 0.6) for _ in range(3)])
        trembled = 0.06 * size * np.stack([wander(t, rng, 4, 9) for _ in range(3)])
        return np.asarray(swayed + trembled + rng.uniform(0.05, 0.5) * size * rng.choice([-1, 1], (3, 1)) * self._beat)

    def _depth(self, rng: np.random.Generator) -> float:
        return 0.0


class _Screen(_Photograph):
    """Lit from behind, in bands that wander over it as the camera's rate and the screen's differ."""

    def _sheet_light(self, i: int) -> torch.Tensor | float:
        rows = torch.arange(self.size[1], dtype=torch.float32).view(1, 1, -1, 1) / self.size[1]
        bands = 1 + 0.03 * torch.sin(2 * math.pi * (1.5 * rows - 0.37 * float(self._taken[i])))
        return bands * torch.tensor([0.92, 1.0, 1.12]).view(1, 3, 1, 1)


class _Cartoon(Simulation):
    """A face in a few flat colours."""

    def _scene(self, i: int) -> torch.Tensor:
        return super()._scene(i).mul_(5).round_().div_(5).clamp_(0.05)


class _Wall(_Lamp):
    """The room without anybody."""

    def _scene(self, i: int) -> torch.Tensor:
        return self._layers[0].clone()


class _Noise(Simulation):
    """Grey noise."""

    def __init__(self, **options: object) -> None:
        super().__init__(**(options | {"noise": 20.0}))  # type: ignore[arg-type]

    def _scene(self, i: int) -> torch.Tensor:
        return torch.full((1, 3, self.size[1], self.size[0]), 0.5)

"""Head, shoulders and room moved, lit and laid over one another: one picture of linear light at a time."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from . import drawing
from .looks import Look
from .muscles import Muscles

FINER = 1.5  # texture pixels per picture pixel, so that sampling between them does not blur


class State(NamedTuple):
    """Everything that is different from one frame to the next."""

    pose: list[float]  # of the head, in the order of movement.POSE
    body: list[float]  # of the shoulders: right, down in face units, and how far the breath lifts them
    pulls: list[float]  # the 12 AUs, blink, speech; 0..1
    blood: torch.Tensor  # (2, 3, 1, 1): by how much the face's diffuse reflection is darker in R, G, B, and the neck's
    side: float  # radians: how far the light has gone round
    lit: torch.Tensor  # (1, 3, 1, 1): light on the person that does not reach the room


class Head:
    """The head's texture and everything that deforms it."""

    def __init__(self, look: Look, unit: float, centre: tuple[float, float]) -> None:
        self._unit, self._centre = unit, centre
        relief = drawing.relief(look, unit)
        self._texture = drawing.head(look, FINER * unit, relief.shade)
        rows, columns = (self._texture[0, 4].amax(k).nonzero()[[0, -1], 0] / (FINER * unit) for k in (1, 0))
        left, top, right, bottom = drawing.HEAD
        self._reach = [(left + u, top + v) for u in columns.tolist() for v in rows.tolist()]
        self._scale = torch.tensor([2 / (right - left), 2 / (bottom - top)])
        u, v = drawing.points(unit)
        self._muscles = Muscles(look, np.broadcast_to(u, (v.size, u.size)), np.broadcast_to(v, (v.size, u.size)))
        none = np.zeros_like(relief.gloss)
        # Channels: how far the source moves right and down, light, shine.
        self._still = torch.from_numpy(np.stack([none, none, none + 1, look.shine * relief.gloss]).astype(np.float32))
        turns = ((-relief.depth, none, relief.by_yaw), (none, -relief.depth, relief.by_pitch))
        self._turns = [torch.from_numpy(np.stack(turn).astype(np.float32)) for turn in turns]

    def lay(self, picture: torch.Tensor, state: State) -> None:
        """Cover `picture` (1, 3, H, W) with the head."""
        right, down, roll, growth, yaw, pitch = state.pose
        cos, sin = math.cos(roll) * (1 + growth) * self._unit, math.sin(roll) * (1 + growth) * self._unit
        # The head turns about the neck, 1 face unit below its origin; here in pixels.
        px, py = self._centre[0] + right * self._unit, self._centre[1] + (down + 1) * self._unit
        corners = [(px + cos * u - sin * (v - 1), py + sin * u + cos * (v - 1)) for u, v in self._reach]
        wide = abs(yaw) + abs(pitch)
        slack = 2 + 0.6 * wide * self._unit
        x0, x1 = max(0, int(min(x for x, _ in corners) - slack)), math.ceil(max(x for x, _ in corners) + slack)
        y0, y1 = max(0, int(min(y for _, y in corners) - slack)), math.ceil(max(y for _, y in corners) + slack)
        x1, y1 = min(picture.shape[3], x1), min(picture.shape[2], y1)
        if x0 >= x1 or y0 >= y1:
            return
        left, top, edge, bottom = drawing.HEAD
        a = np.linalg.inv(np.array([[cos * math.cos(yaw), -sin], [sin, cos * math.cos(pitch)]]))
        half = np.array([x1 - x0, y1 - y0]) / 2
        b = a @ (np.array([x0 + x1, y0 + y1]) / 2 - [px, py]) + [0, 1]
        scale = self._scale.numpy()
        theta = np.concatenate([a * half, (b - [(left + edge) / 2, (top + bottom) / 2])[:, None]], 1) * scale[:, None]
        grid = F.affine_grid(torch.from_numpy(theta[None].astype(np.float32)), [1, 1, y1 - y0, x1 - x0], False)

        field = self._still.clone()
        for k, pull in enumerate(state.pulls):
            if pull:
                field[:3].add_(self._muscles[k], alpha=pull)
        for turn, angle in zip(self._turns, (yaw, pitch), strict=True):
            if angle:
                field[:3].add_(turn, alpha=math.sin(angle))
        if state.side:
            field[2].add_(self._turns[0][2], alpha=-state.side)
        field[2].clamp_(0.25, 1.6)
        moved = F.grid_sample(field[None], grid, padding_mode="border", align_corners=False)
        grid += moved[:, :2].permute(0, 2, 3, 1) * self._scale
        layer = F.grid_sample(self._texture, grid, align_corners=False)
        diffuse, blood, cover = layer[:, :3], layer[:, 3:4], layer[:, 4:]
        diffuse *= moved[:, 2:3]
        diffuse -= diffuse * (blood * state.blood[:1])
        diffuse += moved[:, 3:] * blood * cover
        diffuse *= state.lit
        picture[:, :, y0:y1, x0:x1].mul_(1 - cover).add_(diffuse)


class Body:
    """Neck and shoulders, which breath lifts and widens."""

    def __init__(self, look: Look, size: tuple[int, int], unit: float, centre: tuple[float, float]) -> None:
        (width, height), (cx, cy) = size, centre
        self._unit, self._left, self._right = unit, cx + drawing.BODY[0] * unit, cx + drawing.BODY[2] * unit
        corners = (*drawing.BODY[:3], max((height - cy) / unit + 0.2, drawing.BODY[1] + 0.5))
        self._texture = drawing.body(look, unit, corners)
        left, top, right, bottom = corners
        self._top = min(max(0, math.floor(cy + top * unit)), height)
        u = ((torch.arange(width) + 0.5 - cx) / unit)[None, :].expand(height - self._top, width)
        v = ((torch.arange(self._top, height) + 0.5 - cy) / unit)[:, None].expand(height - self._top, width)
        self._scale = torch.tensor([2 / (right - left), 2 / (bottom - top)])
        self._grid = (torch.stack([u - (left + right) / 2, v - (top + bottom) / 2], -1) * self._scale)[None]
        # A breath lifts the shoulders, the neck less and the belly hardly, and spreads the chest.
        lift = (0.4 + 0.6 * (u.abs() / 0.6).clamp(0, 1)) * (1 - 0.25 * (v - 1.6).clamp(0, 3))
        spread = 0.25 * (u / 1.2).clamp(-1, 1) * (v / 1.5).clamp(0, 1)
        self._lift = torch.stack([-spread, lift], -1)[None] * self._scale
        self._facing = 0.5 * ((v - 1.3) / 0.5).clamp(0, 1) * (1 - 0.5 * u.abs().clamp(0, 1))

    def lay(self, picture: torch.Tensor, state: State) -> None:
        """Cover `picture` (1, 3, H, W) with neck and shoulders."""
        right, down, breath = state.body
        x0, x1 = (round(x + right * self._unit) for x in (self._left, self._right))
        x0, x1 = max(0, x0), min(picture.shape[3], x1)
        if x0 >= x1 or self._top >= picture.shape[2]:
            return
        grid = self._grid[:, :, x0:x1] - torch.tensor([right, down]) * self._scale
        if breath:
            grid.add_(self._lift[:, :, x0:x1], alpha=breath)
        layer = F.grid_sample(self._texture, grid, padding_mode="border", align_corners=False)
        diffuse, blood, cover = layer[:, :3], layer[:, 3:4], layer[:, 4:]
        diffuse -= diffuse * (blood * state.blood[1:])
        if breath:  # the lifted chest faces the light
            diffuse *= 1 + breath * self._facing[:, x0:x1]
        diffuse *= state.lit
        picture[:, :, self._top :, x0:x1].mul_(1 - cover).add_(diffuse)

"""A procedural person: textures of a head, of shoulders and of a room, and how each action unit moves the face.

The head is drawn in face units: u to the right, v down, (0, 0) between the eyes and a little below, the chin near
v = 1 and the hairline near v = -0.7. Layers are premultiplied by their coverage, so that bilinear sampling between
pixels mixes them rightly. A layer's 7 channels: what is seen without a pulse (RGB), the part of it that blood
modulates (RGB; the diffuse reflection of skin), coverage.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .physiology import AUS

HEAD = (-1.25, -1.55, 1.25, 1.25)  # the head texture's corners in face units: left, top, right, bottom
FACE_BOX = (-0.71, -0.79, 0.71, 0.99)  # what a face detector boxes: forehead to chin, cheek to cheek

SKIN = np.array([[0.93, 0.74, 0.62], [0.80, 0.59, 0.45], [0.60, 0.41, 0.29], [0.34, 0.22, 0.16]])  # light to dark
HAIR = np.array([[0.10, 0.08, 0.07], [0.22, 0.14, 0.09], [0.45, 0.32, 0.18], [0.55, 0.53, 0.51], [0.30, 0.12, 0.06]])

# How each AU moves the skin: brushes (u, v, width u, width v, shift u, shift v, squeeze u, squeeze v), Gaussian in
# shape, mirrored to the other side of the face; a squeeze draws the skin towards the brush's centre.
BRUSHES: dict[str, tuple[tuple[float, ...], ...]] = {
    "AU01": ((0.17, -0.34, 0.13, 0.10, 0.00, -0.11, 0, 0),),
    "AU02": ((0.48, -0.34, 0.14, 0.10, 0.00, -0.11, 0, 0),),
    "AU04": ((0.18, -0.27, 0.17, 0.13, -0.05, 0.09, 0, 0),),
    "AU06": ((0.40, 0.18, 0.20, 0.14, 0.00, -0.08, 0, 0), (0.31, -0.03, 0.17, 0.05, 0, -0.03, 0, 0)),
    "AU07": ((0.31, -0.08, 0.19, 0.08, 0, 0, 0, 1.0),),
    "AU10": ((0.09, 0.47, 0.14, 0.07, 0.00, -0.07, 0, 0), (0.13, 0.28, 0.08, 0.08, 0.02, -0.03, 0, 0)),
    "AU12": ((0.28, 0.56, 0.13, 0.12, 0.09, -0.10, 0, 0), (0.42, 0.32, 0.18, 0.14, 0.03, -0.05, 0, 0)),
    "AU14": ((0.29, 0.56, 0.09, 0.08, 0.06, 0.00, 0.3, 0.5),),
    "AU15": ((0.27, 0.58, 0.11, 0.10, 0.01, 0.09, 0, 0),),
    "AU17": ((0.00, 0.82, 0.26, 0.14, 0, -0.08, 0, 0), (0.0, 0.64, 0.20, 0.07, 0, -0.05, 0, 0)),
    "AU23": ((0.00, 0.56, 0.24, 0.11, 0, 0, 0.30, 0.5),),
    "AU24": ((0.00, 0.57, 0.30, 0.07, 0, 0, 0, 1.8),),
}
BLINK = (0.31, -0.08, 0.19, 0.06, 0, 0.01, 0, 6.0)  # not one of the 12 AUs, but faces blink

# The folds that come with it: lines (u0, v0, u1, v1, width, depth), mirrored as well.
FOLDS: dict[str, tuple[tuple[float, ...], ...]] = {
    "AU01": ((0.00, -0.53, 0.20, -0.55, 0.020, 0.30), (0.00, -0.44, 0.19, -0.46, 0.020, 0.30)),
    "AU02": ((0.30, -0.52, 0.55, -0.46, 0.020, 0.25), (0.32, -0.44, 0.55, -0.40, 0.020, 0.25)),
    "AU04": ((0.05, -0.38, 0.06, -0.18, 0.022, 0.45),),
    "AU06": ((0.53, -0.10, 0.66, -0.17, 0.016, 0.30), (0.53, -0.05, 0.67, -0.05, 0.016, 0.30),
             (0.20, 0.05, 0.45, 0.06, 0.022, 0.25)),
    "AU07": ((0.20, 0.00, 0.42, 0.01, 0.018, 0.30),),
    "AU10": ((0.17, 0.20, 0.27, 0.38, 0.025, 0.40),),
    "AU12": ((0.20, 0.27, 0.42, 0.55, 0.028, 0.35),),
    "AU14": ((0.38, 0.50, 0.38, 0.63, 0.030, 0.45),),
    "AU15": ((0.31, 0.64, 0.36, 0.78, 0.026, 0.35),),
    "AU17": ((0.00, 0.73, 0.14, 0.75, 0.028, 0.40), (0.03, 0.88, 0.08, 0.93, 0.025, 0.20)),
    "AU23": ((0.06, 0.44, 0.06, 0.49, 0.012, 0.25), (0.13, 0.45, 0.13, 0.50, 0.012, 0.25)),
    "AU24": ((0.00, 0.67, 0.16, 0.66, 0.026, 0.28), (0.31, 0.56, 0.33, 0.60, 0.022, 0.35)),
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """One person and one room, drawn from a random generator."""

    skin: np.ndarray
    hair: np.ndarray
    lips: np.ndarray
    iris: np.ndarray
    cloth: np.ndarray
    width: float  # of the face; 1 is average, and so on
    jaw: float
    eyes: float
    brows: float
    nose: float
    mouth: float
    hair_line: float
    hair_length: float
    stubble: float
    light: np.ndarray  # direction towards the light: right, down, out of the picture
    shine: float
    roughness: np.ndarray  # phases and frequencies of the skin's and the room's mottling

    @classmethod
    def draw(cls, rng: np.random.Generator, skin_tone: float | None) -> Look:
        tone = (rng.uniform() if skin_tone is None else skin_tone) * (len(SKIN) - 1)
        low = min(int(tone), len(SKIN) - 2)
        skin = SKIN[low] + (tone - low) * (SKIN[low + 1] - SKIN[low])
        skin = skin * (1 + rng.uniform(-0.04, 0.04, 3))
        light = np.array([rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.0), 1.0])
        return cls(
            skin=skin,
            hair=HAIR[rng.integers(len(HAIR))] * rng.uniform(0.6, 1.1),
            lips=skin * [0.88, 0.60, 0.62],
            iris=np.array([[0.20, 0.11, 0.06], [0.22, 0.32, 0.42], [0.24, 0.28, 0.14]])[rng.integers(3)],
            cloth=rng.uniform(0.08, 0.75, 3),
            width=rng.uniform(0.93, 1.07),
            jaw=rng.uniform(0.80, 1.05),
            eyes=rng.uniform(0.92, 1.10),
            brows=rng.uniform(0.8, 1.3),
            nose=rng.uniform(0.9, 1.15),
            mouth=rng.uniform(0.9, 1.15),
            hair_line=rng.uniform(-0.80, -0.62),
            hair_length=rng.choice([-0.1, 0.1, 0.9]),
            stubble=max(0.0, rng.uniform(-0.3, 0.3)),
            light=light / np.linalg.norm(light),
            shine=rng.uniform(0.04, 0.16),
            roughness=rng.uniform(0, 1, (3, 16)),
        )


def _ramp(distance: np.ndarray, soft: float) -> np.ndarray:
    """1 inside (distance < 0), 0 outside, smooth over about `soft` on both sides."""
    x = np.clip(0.5 - 0.5 * distance / soft, 0, 1)
    return x * x * (3 - 2 * x)


def _line(u: np.ndarray, v: np.ndarray, u0: float, v0: float, u1: float, v1: float) -> np.ndarray:
    """Distance of every point from a line segment."""
    du, dv = u1 - u0, v1 - v0
    along = np.clip(((u - u0) * du + (v - v0) * dv) / (du * du + dv * dv), 0, 1)
    return np.hypot(u - u0 - along * du, v - v0 - along * dv)


def _bump(u: np.ndarray, v: np.ndarray, u0: float, v0: float, su: float, sv: float) -> np.ndarray:
    return np.exp(-0.5 * (((u - u0) / su) ** 2 + ((v - v0) / sv) ** 2))


def _mottle(u: np.ndarray, v: np.ndarray, phases: np.ndarray, frequency: float) -> np.ndarray:
    """Smooth irregularity, about -1..1: a few plane waves in random directions."""
    total = np.zeros(np.broadcast_shapes(u.shape, v.shape))
    for angle, phase in phases.reshape(-1, 2):
        k = frequency * (0.6 + angle)
        total += np.sin(k * (u * np.cos(2 * np.pi * angle) + v * np.sin(2 * np.pi * angle)) + 2 * np.pi * phase)
    return total / len(phases.reshape(-1, 2)) * 2


def _layer(colour: np.ndarray, blood: np.ndarray, cover: np.ndarray) -> torch.Tensor:
    """(1, 7, H, W) float32 from (H, W, 3), (H, W) in 0..1 and (H, W)."""
    channels = np.concatenate([colour * cover[..., None], colour * (blood * cover)[..., None], cover[..., None]], -1)
    return torch.from_numpy(channels.astype(np.float32).transpose(2, 0, 1).copy())[None]


def head(look: Look, unit: float) -> torch.Tensor:
    """The head's layer, (1, 7, H, W), at `unit` texture pixels per face unit."""
    left, top, right, bottom = HEAD
    w, h = round((right - left) * unit), round((bottom - top) * unit)
    u = (left + (np.arange(w) + 0.5) / unit)[None, :]
    v = (top + (np.arange(h) + 0.5) / unit)[:, None]
    soft = 1.6 / unit
    s = np.abs(u)  # the face is symmetric; its light is not
    c = look.width

    # The outline: wide at the cheeks, narrowing to the chin.
    narrow = 0.78 * c * (1 - 0.20 / look.jaw * np.clip(v, 0, None) ** 1.2)
    outline = np.hypot(u / narrow, np.where(v > 0, v / 1.04, v / 0.98)) - 1
    face = _ramp(outline * 0.7, soft)
    ears = _ramp((np.hypot((s - 0.80 * c) / 0.10, (v - 0.03) / 0.22) - 1) * 0.1, soft)

    # Relief, lit from one side. Height in face units.
    z = 0.75 * np.sqrt(np.clip(1.25 - (u / (0.86 * c)) ** 2 - ((v - 0.05) / 1.2) ** 2, 0.02, None))
    z = z + 0.16 * look.nose * _bump(u, v, 0, 0.24, 0.085, 0.11) + 0.09 * _bump(u, v, 0, 0.0, 0.06, 0.24)
    z = z + 0.05 * _bump(s, v, 0.12, 0.27, 0.05, 0.05) - 0.11 * _bump(s, v, 0.30, -0.08, 0.14, 0.10)
    z = z + 0.05 * _bump(s, v, 0.25, -0.27, 0.22, 0.07) + 0.05 * _bump(s, v, 0.42, 0.20, 0.17, 0.14)
    z = z + 0.05 * _bump(u, v, 0, 0.58, 0.24, 0.10) - 0.03 * _bump(u, v, 0, 0.74, 0.2, 0.04)
    z = z + 0.06 * _bump(u, v, 0, 0.90, 0.16, 0.11)
    dv, du = np.gradient(z, 1 / unit)
    steep = np.sqrt(1 + du * du + dv * dv)
    facing = (-du * look.light[0] - dv * look.light[1] + look.light[2]) / steep
    shade = 0.42 + 0.62 * np.clip(facing, 0, None)
    shade = shade * (1 - 0.35 * _bump(u, v, 0, 0.345, 0.11, 0.035)) * (1 - 0.22 * _bump(s, v, 0.29, -0.14, 0.15, 0.05))
    half = look.light + np.array([0, 0, 1])  # where a mirror would send the light to the viewer
    half = half / np.linalg.norm(half)
    gloss = np.clip((-du * half[0] - dv * half[1] + half[2]) / steep, 0, None) ** 24

    skin = look.skin * (1 + 0.05 * _mottle(u, v, look.roughness[0], 22)[..., None])
    flush = _bump(s, v, 0.42, 0.22, 0.18, 0.14) + 0.7 * _bump(u, v, 0, 0.26, 0.12, 0.10)
    skin = skin * (1 - flush[..., None] * [0.0, 0.10, 0.08])
    beard = look.stubble * _ramp(0.45 - v + 0.5 * (s - 0.35), 0.25) * (1 - _bump(u, v, 0, 0.57, 0.24, 0.06))
    skin = skin * (1 - beard[..., None] * [0.5, 0.45, 0.4])
    perfusion = 0.75 + 0.25 * flush + 0.2 * _bump(u, v, 0, -0.45, 0.4, 0.15) - 0.5 * beard

    def paint(cover: np.ndarray, colour: np.ndarray | float, blood: float) -> None:
        nonlocal skin, perfusion
        skin = skin + cover[..., None] * (np.asarray(colour) - skin)
        perfusion = perfusion + cover * (blood - perfusion)

    # Lips: two arcs about a dark line, thicker below.
    m, mv = 0.29 * look.mouth, 0.56
    across = np.clip(1 - (u / m) ** 2, 0, 1)
    bow = mv - 0.012 * np.cos(u / m * np.pi * 1.5) - 0.012 * (1 - across)
    inside = _ramp(s - m + 0.03, 0.04)
    lips = np.maximum(bow - v - 0.055 * across**0.8, v - bow - 0.085 * across**0.7)
    paint(_ramp(lips, 1.5 * soft) * inside, look.lips, 0.9)
    paint(0.9 * _ramp(np.abs(v - bow) - 0.012 * across**0.3, soft) * inside, look.skin * 0.28, 0.2)
    # Nostrils and the sides of the nose.
    paint(0.75 * _ramp((np.hypot((s - 0.075) / 0.042, (v - 0.335) / 0.022) - 1) * 0.03, soft), look.skin * 0.25, 0.2)
    paint(0.30 * _ramp(np.abs(np.hypot((s - 0.10) / 1.0, v - 0.29) - 0.065) - 0.008, soft) * _ramp(0.12 - s, 0.03),
          look.skin * 0.4, 0.5)  # fmt: skip
    # Eyes: white, iris, pupil, a highlight, lids.
    e, ev = 0.31 * c * look.eyes**0.5, -0.08
    eu, almond = (s - e) / (0.155 * look.eyes), 0.062 * look.eyes
    open_ = almond * np.clip(1 - eu * eu, 0, 1)
    eye = _ramp(np.maximum(ev - v - open_, v - ev - 0.8 * open_), soft) * _ramp(np.abs(eu) - 0.98, 0.1)
    paint(eye, np.array([0.86, 0.84, 0.82]) * min(1.0, 0.35 + look.skin[0]), 0.1)
    r = np.hypot(s - e, v - ev + 0.005)
    paint(eye * _ramp(r - 0.062 * look.eyes, soft), look.iris, 0.0)
    paint(eye * _ramp(r - 0.030 * look.eyes, soft), 0.03, 0.0)
    paint(eye * _ramp(np.hypot(u - np.sign(u) * e - 0.02, v - ev + 0.028) - 0.013, soft), 0.95, 0.0)
    lid = np.abs(v - (ev - open_)) - 0.016
    paint(0.9 * _ramp(np.maximum(lid, 0.09 * (np.abs(eu) - 1.05)), soft), look.hair * 0.4, 0.1)
    crease = np.maximum(np.abs(v - (ev - 1.1 * open_ - 0.045)) - 0.008, 0.1 * (np.abs(eu) - 0.95))
    paint(0.35 * _ramp(crease, 1.5 * soft), look.skin * 0.45, 0.5)
    # Brows: thick inside, thin outside, arched.
    bu = (s - 0.13) / 0.40
    arch = -0.275 - 0.075 * np.sin(np.clip(bu, 0, 1) * 2.3)
    thick = 0.036 * look.brows * (1 - 0.6 * np.clip(bu, 0, 1))
    brow = _ramp(np.maximum(np.abs(v - arch) - thick, 0.25 * (np.abs(bu - 0.5) - 0.5)), 2 * soft)
    paint(0.85 * brow, look.hair * 0.8, 0.1)

    colour = skin * shade[..., None] + (look.shine * gloss * (perfusion > 0.3))[..., None]
    diffuse = np.divide((skin * shade[..., None])[..., 1], np.maximum(colour[..., 1], 1e-6))  # shine carries no blood
    blood = perfusion * diffuse
    ear = look.skin * (0.55 + 0.15 * shade[..., None])
    colour = colour + (ears * (1 - face))[..., None] * (ear - colour)
    cover = np.maximum(face, ears)

    # Hair: above the hairline, down the sides, and as long as it is.
    fringe = look.hair_line + 0.30 * (s / 0.75) ** 3 + 0.03 * _mottle(u, v, look.roughness[1], 9)
    cap = np.hypot(u / (0.90 * c), (v + 0.15) / 1.12) - 1
    sides = np.maximum(s - 0.94 * c, 0.70 * c - s)
    hair = _ramp(np.maximum(cap * 0.8, np.minimum(v - fringe, np.maximum(sides, v - look.hair_length))), 2 * soft)
    if look.hair_length > 0.5:
        locks = np.hypot((s - 0.80 * c) / 0.22, (v - 0.20) / look.hair_length) - 1
        hair = np.maximum(hair, _ramp(np.maximum(0.3 * locks, 0.66 * c - s), 3 * soft))
    strands = look.hair * (0.55 + 0.35 * shade + 0.18 * _mottle(3 * u, 0.4 * v, look.roughness[2], 30))[..., None]
    share = hair / np.maximum(hair + (1 - hair) * cover, 1e-6)
    colour = colour + share[..., None] * (strands - colour)
    blood = blood * (1 - share)
    return _layer(colour, blood, np.maximum(cover, hair))


def body(look: Look, width: int, height: int, centre: tuple[float, float], unit: float) -> torch.Tensor:
    """Neck and shoulders, (1, 7, height, width), for a head at `centre` with `unit` pixels per face unit."""
    u = ((np.arange(width) + 0.5 - centre[0]) / unit)[None, :]
    v = ((np.arange(height) + 0.5 - centre[1]) / unit)[:, None]
    soft, s = 1.6 / unit, np.abs(u)
    neck = _ramp(np.maximum(s - 0.42 * look.width - 0.10 * np.clip(v - 1.0, 0, None) ** 2, 0.5 - v), 2 * soft)
    slope = 1.42 + 0.35 * np.clip((s - 0.42) / 1.2, 0, None) ** 1.3 + 2.0 * np.clip(s - 1.75, 0, None) ** 2
    collar = np.hypot(s / 0.50, (v - 1.30) / 0.30) - 1
    cloth = _ramp(np.maximum(slope - v, -0.4 * collar), 2 * soft)
    shadow = 1 - 0.45 * _ramp(v - 1.15, 0.3)
    skin = look.skin * (0.80 + 0.15 * look.light[0] * u - 0.25 * s * s)[..., None] * shadow[..., None]
    knit = 1 + 0.08 * _mottle(u, v, look.roughness[1], 40) + 0.10 * look.light[0] * u - 0.08 * (v - 1.5)
    colour = skin + cloth[..., None] * (look.cloth * np.clip(knit, 0.4, 1.4)[..., None] - skin)
    return _layer(np.clip(colour, 0, 1), 0.6 * (1 - cloth), np.maximum(neck, cloth))


def room(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """A wall with a few soft-edged things on it, (height, width, 3) float32 in 0..1."""
    x, y = np.arange(width)[None, :] / height, np.arange(height)[:, None] / height
    wall = rng.uniform(0.15, 0.85) * (1 + rng.uniform(-0.12, 0.12, 3))
    picture = wall * (1 + 0.25 * rng.uniform(-1, 1) * x + 0.25 * rng.uniform(-1, 1) * y)[..., None]
    for _ in range(rng.integers(0, 6)):
        x0, y0, w, h = rng.uniform(0, 1.2), rng.uniform(0, 1), rng.uniform(0.05, 0.3), rng.uniform(0.05, 0.4)
        thing = _ramp(np.maximum(np.abs(x - x0) - w, np.abs(y - y0) - h), 2 / height)[..., None]
        picture = picture + thing * (rng.uniform(0.05, 0.9, 3) - picture)
    picture = picture * (1 + 0.04 * _mottle(x, y, rng.uniform(0, 1, 16), 25))[..., None]
    return np.clip(picture, 0.02, 1).astype(np.float32)


class Expression:
    """The face as its muscles pull it: `head(...)` deformed by AU activations and blinks."""

    def __init__(self, texture: torch.Tensor) -> None:
        _, _, h, w = texture.shape
        left, top, right, bottom = HEAD
        u = left + (torch.arange(w) + 0.5)[None, :] * ((right - left) / w)
        v = top + (torch.arange(h) + 0.5)[:, None] * ((bottom - top) / h)
        self._u, self._v, self._scale = u, v, torch.tensor([2 / (right - left), 2 / (bottom - top)])
        self._muscles: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._grid = F.affine_grid(torch.eye(2, 3)[None], [1, 1, h, w], align_corners=False)
        self._neutral = texture
        self._pulls: tuple[float, ...] = (0.0,) * (len(AUS) + 1)
        self._texture = texture

    def __call__(self, activation: np.ndarray, blink: float) -> torch.Tensor:
        """(1, 7, H, W) for 12 activations and a blink, each 0..1. The last face is kept: expressions hold still."""
        pulls = (*map(float, activation), float(blink))
        if pulls != self._pulls:
            self._texture, self._pulls = self._neutral, pulls
            if any(pulls):
                grid, light = self._grid.clone(), torch.ones(self._neutral.shape[2:])
                for k, pull in enumerate(pulls):
                    if pull:
                        offsets, folds = self._muscle(k)
                        grid.add_(offsets, alpha=pull)
                        light.sub_(folds, alpha=pull)
                texture = F.grid_sample(self._neutral, grid, align_corners=False)
                self._texture = torch.cat([texture[:, :6] * light.clamp_(0.3), texture[:, 6:]], 1)
        return self._texture

    def _muscle(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Per unit of pull: how far each pixel's source moves (H, W, 2), how much a fold darkens it (H, W)."""
        if k not in self._muscles:
            brushes, lines = (BRUSHES[AUS[k]], FOLDS[AUS[k]]) if k < len(AUS) else ((BLINK,), ())
            self._muscles[k] = _offsets(self._u, self._v, brushes) * self._scale, _folds(self._u, self._v, lines)
        return self._muscles[k]


def _offsets(u: torch.Tensor, v: torch.Tensor, brushes: tuple[tuple[float, ...], ...]) -> torch.Tensor:
    total = torch.zeros(v.shape[0], u.shape[1], 2)
    for u0, v0, su, sv, du, dv, qu, qv in brushes:
        for side in (1, -1) if u0 else (1,):
            x, y = u - side * u0, v - v0
            g = torch.exp(-0.5 * ((x / su) ** 2 + (y / sv) ** 2))
            total += torch.stack([g * (qu * x - side * du), g * (qv * y - dv)], -1)
    return total


def _folds(u: torch.Tensor, v: torch.Tensor, lines: tuple[tuple[float, ...], ...]) -> torch.Tensor:
    total = np.zeros((v.shape[0], u.shape[1]))
    for u0, v0, u1, v1, width, depth in lines:
        distance = _line(np.abs(u.numpy()), v.numpy(), u0, v0, u1, v1)
        total += 0.75 * depth * np.exp(-0.5 * (distance / (1.2 * width)) ** 2)
    return torch.from_numpy(total.astype(np.float32))

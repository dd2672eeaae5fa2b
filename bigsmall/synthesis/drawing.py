"""The pictures that a simulated video is made of: a head, neck and shoulders, a room.

The head is drawn in face units: u to the right, v down, (0, 0) between the eyes and a little below, the chin near
v = 1 and the hairline near v = -0.7. A texture's 5 channels: diffuse reflection (RGB) times coverage, blood (the part
of it that the pulse modulates), coverage; coverage is multiplied in, so that sampling between pixels mixes rightly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from .looks import Look
from .muscles import distance

Corners = tuple[float, float, float, float]  # of a texture in face units: left, top, right, bottom
HEAD: Corners = (-1.25, -1.55, 1.25, 1.25)
BODY: Corners = (-2.8, 0.4, 2.8, 2.5)  # or further down
FACE_BOX = (-0.71, -0.79, 0.71, 0.99)  # what a face detector boxes: forehead to chin, cheek to cheek


class Relief(NamedTuple):
    """The light on a head, (H, W) float32."""

    shade: np.ndarray  # of the diffuse reflection
    by_yaw: np.ndarray  # relative change of shade per radian
    by_pitch: np.ndarray
    gloss: np.ndarray  # the mirror-like reflection, 0..1
    depth: np.ndarray  # towards the viewer, face units


def points(unit: float, corners: Corners = HEAD) -> tuple[np.ndarray, np.ndarray]:
    """u (1, W) and v (H, 1), float32, of a texture's pixels, at `unit` of them per face unit."""
    left, top, right, bottom = corners
    u = left + (np.arange(round((right - left) * unit)) + 0.5) / unit
    v = top + (np.arange(round((bottom - top) * unit)) + 0.5) / unit
    return u[None, :].astype(np.float32), v[:, None].astype(np.float32)


def _ramp(distance: np.ndarray, soft: float) -> np.ndarray:
    """1 inside (distance < 0), 0 outside, smooth over about `soft` on both sides."""
    x = np.clip(0.5 - 0.5 * distance / soft, 0, 1)
    return x * x * (3 - 2 * x)


def _bump(u: np.ndarray, v: np.ndarray, u0: float, v0: float, su: float, sv: float) -> np.ndarray:
    return np.exp(-0.5 * (((u - u0) / su) ** 2 + ((v - v0) / sv) ** 2))


def _mottle(u: np.ndarray, v: np.ndarray, phases: np.ndarray, frequency: float) -> np.ndarray:
    """Smooth irregularity, about -1..1: a few plane waves in random directions."""
    total = np.zeros(np.broadcast_shapes(u.shape, v.shape), np.float32)
    for angle, phase in phases.reshape(-1, 2).tolist():
        k = frequency * (0.6 + angle)
        total += np.sin(
            (k * np.cos(2 * np.pi * angle)).item() * u
            + (k * np.sin(2 * np.pi * angle)).item() * v
            + 2 * np.pi * phase
        )
    return total / len(phases.reshape(-1, 2)) * 2


def _texture(colour: np.ndarray, blood: np.ndarray, cover: np.ndarray) -> torch.Tensor:
    """(1, 5, H, W) float32 from (3, H, W), (H, W) in 0..1 and (H, W)."""
    channels = np.concatenate([np.clip(colour, 0, 1.2) * cover, blood[None], cover[None]])
    return torch.from_numpy(np.ascontiguousarray(channels, np.float32))[None]


def relief(look: Look, unit: float) -> Relief:
    """How a head of this shape is lit from this side, at `unit` pixels per face unit."""
    u, v = look.canonical(*points(unit))
    s, c = np.abs(u), look.width
    z = 0.75 * np.sqrt(np.clip(1.25 - (u / (0.86 * c)) ** 2 - ((v - 0.05) / 1.2) ** 2, 0.02, None))
    z = z + 0.16 * look.nose * _bump(u, v, 0, 0.24, 0.085, 0.11) + 0.09 * _bump(u, v, 0, 0.0, 0.06, 0.24)
    z = z + 0.05 * _bump(s, v, 0.12, 0.27, 0.05, 0.05) - 0.11 * _bump(s, v, 0.30, -0.08, 0.14, 0.10)
    z = z + 0.05 * _bump(s, v, 0.25, -0.27, 0.22, 0.07) + 0.05 * _bump(s, v, 0.42, 0.20, 0.17, 0.14)
    z = z + 0.05 * _bump(u, v, 0, 0.58, 0.24, 0.10) - 0.03 * _bump(u, v, 0, 0.74, 0.2, 0.04)
    z = z + 0.06 * _bump(u, v, 0, 0.90, 0.16, 0.11)
    dv, du = np.gradient(z, 1 / unit)
    lean = 1 / np.sqrt(1 + du * du + dv * dv)
    nx, ny, nz = -du * lean, -dv * lean, lean
    lx, ly, lz = look.light.tolist()
    facing = nx * lx + ny * ly + nz * lz
    k = look.contrast
    shade = 1.04 - k + k * np.clip(facing, 0, None)
    half = look.light + np.array([0, 0, 1])  # where a mirror would send the light to the viewer
    hx, hy, hz = (half / np.linalg.norm(half)).tolist()
    gloss = np.clip(nx * hx + ny * hy + nz * hz, 0, None) ** 24
    # Turned by a small angle, the head faces the light elsewhere. Its depth is smoothed, to turn without creases.
    dome = 0.62 * _bump(u, v, 0, 0.05, 0.62, 0.85) + 0.17 * look.nose * _bump(u, v, 0, 0.22, 0.09, 0.14)
    lit = k * (facing > 0) / shade
    return Relief(shade, lit * (lx * nz - lz * nx), lit * (ly * nz - lz * ny), gloss, dome)


def head(look: Look, unit: float, light: np.ndarray) -> torch.Tensor:
    """The head's texture, (1, 5, H, W), at `unit` texture pixels per face unit, under a relief's shade of any size."""
    u, v = look.canonical(*points(unit))
    soft = 1.6 / unit
    s = np.abs(u)  # the face is symmetric before its proportions; its light is not
    c = look.width
    resized = F.interpolate(torch.from_numpy(light)[None, None], u.shape, mode="bilinear", align_corners=False)
    shade = resized[0, 0].numpy()
    tone = look.skin.astype(np.float32)[:, None, None]

    # The outline: wide at the cheeks, narrowing to the chin.
    narrow = 0.78 * c * (1 - 0.20 / look.jaw * np.clip(v, 0, None) ** 1.2)
    outline = np.hypot(u / np.maximum(narrow, 0.05), np.where(v > 0, v / 1.04, v / 0.98)) - 1
    face = _ramp(outline * 0.7, soft)
    ears = _ramp((np.hypot((s - 0.80 * c) / 0.10, (v - 0.03) / 0.22) - 1) * 0.1, soft)
    shade = shade * (1 - 0.35 * _bump(u, v, 0, 0.345, 0.11, 0.035)) * (1 - 0.22 * _bump(s, v, 0.29, -0.14, 0.15, 0.05))
    for u0, v0, u1, v1, width, depth in WRINKLES:
        shade = shade * (1 - look.age * depth * np.exp(-0.5 * (distance(s, v, u0, v0, u1, v1) / width) ** 2))

    pores = 0.04 * _mottle(u, v, look.roughness[0], 22) + (0.015 + 0.03 * look.age) * _mottle(
        u, v, look.roughness[3], 70
    )
    skin = tone * (1 + pores)
    flush = _bump(s, v, 0.42, 0.22, 0.18, 0.14) + 0.7 * _bump(u, v, 0, 0.26, 0.12, 0.10)
    skin = skin * (1 - flush * np.array([0.0, 0.10, 0.08], np.float32)[:, None, None])
    hairy = _ramp(0.45 - v + 0.5 * (s - 0.35), 0.25) * (1 - _bump(u, v, 0, 0.57, 0.24, 0.06))
    skin = skin * (1 - look.stubble * hairy * np.array([0.5, 0.45, 0.4], np.float32)[:, None, None])
    perfusion = 0.75 + 0.25 * flush + 0.2 * _bump(u, v, 0, -0.45, 0.4, 0.15) - 0.5 * look.stubble * hairy

    def paint(cover: np.ndarray, colour: np.ndarray | float, blood: float) -> None:
        nonlocal skin, perfusion
        tint = np.asarray(colour, np.float32).reshape(-1, 1, 1)
        skin = skin + cover * (tint - skin)
        perfusion = perfusion + cover * (blood - perfusion)

    if look.beard:
        chin = _ramp(0.50 - v - 0.55 * (s - 0.30), 0.08)
        moustache = _ramp(np.abs(v - 0.45) - 0.05, 0.03) * _ramp(s - 0.32, 0.06)
        full = np.maximum(chin, moustache) * (1 - _ramp(np.hypot(s / 0.27, (v - 0.57) / 0.075) - 1, 0.15))
        curl = 0.75 + 0.25 * _mottle(u, v, look.roughness[1], 60)
        paint(look.beard * full * np.clip(curl, 0, 1), look.hair * 0.8, 0.15)
    # Lips: two arcs about a dark line, thicker below. The line hides the mouth, which opens when the lips are spread.
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
    paint(0.9 * _ramp(np.maximum(lid, 0.09 * (np.abs(eu) - 1.05)), soft), look.brow * 0.5, 0.1)
    crease = np.maximum(np.abs(v - (ev - 1.1 * open_ - 0.045)) - 0.008, 0.1 * (np.abs(eu) - 0.95))
    paint(0.35 * _ramp(crease, 1.5 * soft), look.skin * 0.45, 0.5)
    # Brows: thick inside, thin outside, arched.
    bu = (s - 0.13) / 0.40
    arch = -0.275 - 0.075 * np.sin(np.clip(bu, 0, 1) * 2.3)
    thick = 0.036 * look.brows * (1 - 0.6 * np.clip(bu, 0, 1))
    brow = _ramp(np.maximum(np.abs(v - arch) - thick, 0.25 * (np.abs(bu - 0.5) - 0.5)), 2 * soft)
    paint(0.85 * brow, look.brow, 0.1)
    if look.glasses:
        rim = np.abs(np.hypot((s - e) / 0.24, (v - ev - 0.03) / 0.185) - 1) * 0.2
        bridge = np.maximum(np.abs(v - ev + 0.03) - 0.012, s - e + 0.24)
        temple = np.maximum(np.abs(v - ev + 0.02) - 0.014, e + 0.24 - s)
        frame = _ramp(np.minimum(np.minimum(rim - 0.017, bridge), temple), soft)
        paint(look.glasses * frame, 0.08, 0.0)

    ear = tone * (0.55 + 0.15 * shade)
    colour = skin * shade
    colour = colour + ears * (1 - face) * (ear - colour)
    cover = np.maximum(face, ears)

    # Hair: above the hairline, down the sides, and as long as it is; scarves likewise.
    fringe = look.hair_line + 0.30 * (s / 0.75) ** 3 + 0.03 * _mottle(u, v, look.roughness[1], 9)
    fringe = fringe - 0.9 * look.bald * np.clip(1.1 - s / 0.62, 0, 1)
    cap = np.hypot(u / (0.90 * c), (v + 0.15) / 1.12) - 1
    sides = np.maximum(s - 0.94 * c, 0.70 * c - s)
    behind = np.maximum(-outline, v - min(look.hair_length, 0.0))
    hair = np.minimum(np.minimum(v - fringe, behind), np.maximum(sides, v - look.hair_length))
    hair = np.maximum(cap * 0.8, hair)
    if look.bald > 0.5:  # a wreath of hair is left
        hair = np.maximum(hair, np.maximum(-0.45 - v, s - 0.85 * c))
    hair = _ramp(hair, 2 * soft)
    if look.hair_length > 0.4 and not look.scarf:
        locks = np.hypot((s - 0.80 * c) / 0.22, (v - 0.20) / min(look.hair_length, 1.3)) - 1
        hair = np.maximum(hair, _ramp(np.maximum(0.3 * locks, 0.66 * c - s), 3 * soft))
    if look.scarf:
        hair = np.maximum(hair, _ramp(np.maximum(0.8 * outline - 0.13, -0.5 * (outline + 0.12)), 2 * soft))
    strands = 0.05 * _mottle(u, v, look.roughness[2], 8) if look.scarf else (
        0.18 * _mottle(3 * u, 0.4 * v, look.roughness[2], 30))  # fmt: skip
    strands = look.hair.astype(np.float32)[:, None, None] * (0.55 + 0.35 * shade + strands)
    share = hair / np.maximum(hair + (1 - hair) * cover, 1e-6)
    colour = colour + share * (strands - colour)
    cover = np.maximum(cover, hair)
    return _texture(colour, perfusion * (1 - share) * (cover > 0), cover)


# Of age: (u0, v0, u1, v1, width, depth), mirrored.
WRINKLES = (
    (0.00, -0.56, 0.34, -0.55, 0.016, 0.22), (0.00, -0.47, 0.30, -0.47, 0.016, 0.20),
    (0.19, 0.26, 0.38, 0.52, 0.024, 0.35), (0.18, 0.06, 0.40, 0.08, 0.020, 0.25),
    (0.54, -0.08, 0.66, -0.12, 0.014, 0.20), (0.54, -0.03, 0.66, -0.01, 0.014, 0.20),
    (0.33, 0.64, 0.37, 0.80, 0.020, 0.22), (0.04, -0.36, 0.05, -0.22, 0.015, 0.20),
)  # fmt: skip


def body(look: Look, unit: float, corners: Corners) -> torch.Tensor:
    """The texture of neck and shoulders, (1, 5, H, W), at `unit` pixels per face unit."""
    u, v = points(unit, corners)
    soft, s = 1.6 / unit, np.abs(u)
    neck = _ramp(np.maximum(s - 0.42 * look.width - 0.10 * np.clip(v - 1.0, 0, None) ** 2, 0.5 - v), 2 * soft)
    slope = 1.42 + 0.35 * np.clip((s - 0.42) / 1.2, 0, None) ** 1.3 + 8.0 * np.clip(s - 1.85, 0, None) ** 2
    neckline = np.hypot(s / 0.50, (v - 1.30) / (0.30 + 0.5 * look.collar)) - 1
    if look.collar > 0.5:
        neckline = np.maximum(neckline, 2.2 * (s - 0.48 + 0.5 * (v - 1.3)))
    cloth = _ramp(np.maximum(slope - v, -0.4 * neckline), 2 * soft)
    shadow = 1 - 0.45 * _ramp(v - 1.15, 0.3)
    side = float(look.light[0])
    skin = look.skin.astype(np.float32)[:, None, None] * (0.80 + 0.15 * side * u - 0.25 * s * s) * shadow
    knit = 1 + 0.08 * _mottle(u, v, look.roughness[1], 40) + 0.12 * _mottle(u, 0.5 * v, look.roughness[2], 7)
    knit = knit + 0.10 * side * u - 0.08 * (v - 1.5)
    knit = knit - look.stripes * _ramp(np.abs((v + 0.1 * s) % 0.22 - 0.11) - 0.05, 2 * soft)
    knit = knit - 0.25 * np.exp(-0.5 * (distance(s, v, 0.75, 1.75, 0.95, 2.6) / 0.05) ** 2)  # where the arm begins
    colour = skin + cloth * (look.cloth.astype(np.float32)[:, None, None] * np.clip(knit, 0.3, 1.4) - skin)
    return _texture(colour, 0.6 * (1 - cloth), np.maximum(neck, cloth))


def room(width: int, height: int, rng: np.random.Generator) -> torch.Tensor:
    """A wall with a few soft-edged things on it, or a bright window, (1, 3, height, width) float32 in 0..1."""
    x = (np.arange(width, dtype=np.float32) / height)[None, :]
    y = (np.arange(height, dtype=np.float32) / height)[:, None]
    wall = (rng.uniform(0.1, 0.9) * (1 + rng.uniform(-0.12, 0.12, 3))).astype(np.float32)[:, None, None]
    picture = wall * (1 + 0.25 * rng.uniform(-1, 1) * x + 0.25 * rng.uniform(-1, 1) * y)
    for _ in range(rng.integers(0, 9)):
        x0, y0, w, h = rng.uniform(0, 1.2), rng.uniform(0, 1), rng.uniform(0.02, 0.3), rng.uniform(0.02, 0.4)
        edge = np.maximum(np.abs(x - x0) - w, np.abs(y - y0) - h)
        if rng.uniform() < 0.25:
            edge = w * (np.hypot((x - x0) / w, (y - y0) / h) - 1)
        thing = _ramp(edge, rng.choice([2, 2, 6, 15]) / height)
        colour = rng.uniform(0.05, 0.9) * (1 + rng.uniform(0, 0.7) * rng.uniform(-1, 1, 3))
        picture = picture + thing * (colour.astype(np.float32)[:, None, None] - picture)
    picture = picture * (1 + 0.04 * _mottle(x, y, rng.uniform(0, 1, 16), 25))
    return torch.from_numpy(np.clip(picture, 0.02, 1).astype(np.float32))[None]

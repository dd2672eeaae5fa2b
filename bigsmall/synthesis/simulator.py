"""The face-video simulator: the skin-reflection model over a procedural face.

Wang et al.'s dichromatic model (IEEE TBME 2017), in camera values:

    frame(t) = light(t) * (shine + diffuse * (1 - pulse * u_p * bvp(t))) + noise,    u_p = (0.33, 0.77, 0.53)

The shine (specular reflection) carries no blood, and the skin darkens as blood fills it. Head and shoulders move with
breath and with the person, the light drifts, photons and the sensor add noise, and only then is rounded to uint8.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..threads import one_thread
from ..video import VideoWriter
from . import drawing
from .physiology import Truth, physiology, wander

PULSE_RGB = (0.33, 0.77, 0.53)  # u_p: relative strength of the pulse in red, green and blue


class Simulation:
    """A simulated video and its truth: iterate for the frames, (H, W, 3) uint8 RGB; as often as wanted, same bits.

    Attributes:
        truth: `Truth`, one row per frame.
        fps: frames per second. size: (width, height) in pixels.
        box: (x, y, w, h), pixels: the face at rest, about as a face detector boxes it.
    """

    def __init__(
        self,
        *,
        heart_rate: float | None = 72.0,
        respiration_rate: float | None = 15.0,
        seconds: float = 30.0,
        fps: float = 30.0,
        size: tuple[int, int] = (320, 320),
        seed: int = 0,
        skin_tone: float | None = None,
        pulse: float = 0.012,
        variability: float = 0.03,
        breathing: float = 1.0,
        expressions: float = 6.0,
        motion: float = 1.0,
        light: float = 0.8,
        drift: float = 0.01,
        noise: float = 1.0,
        face: float = 0.5,
    ) -> None:
        _within("heart_rate", heart_rate, 20, 300, none=True)
        _within("respiration_rate", respiration_rate, 2, 80, none=True)
        _within("seconds", seconds, 0, 86400)
        _within("fps", fps, 1, 1000)
        _within("skin_tone", skin_tone, 0, 1, none=True)
        _within("pulse", pulse, 0, 0.2)
        _within("variability", variability, 0, 0.3)
        _within("breathing", breathing, 0, 10)
        _within("expressions", expressions, 0, 60)
        _within("motion", motion, 0, 10)
        _within("light", light, 0.02, 4)
        _within("drift", drift, 0, 0.5)
        _within("noise", noise, 0, 50)
        _within("face", face, 0.1, 0.9)
        if len(size) != 2 or not all(isinstance(n, int) and 32 <= n <= 8192 for n in size):
            raise ValueError(f"size must be (width, height), integers from 32 to 8192 pixels, got {size!r}")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed must be an integer of at least 0, got {seed!r}")
        n = math.floor(seconds * fps + 1e-6)
        if n < 1:
            raise ValueError(f"seconds must give at least one frame at {fps:g} frames/s, got {seconds!r}")
        self.fps, self.size = float(fps), (size[0], size[1])
        self._pulse, self._light, self._noise = pulse, light, noise
        looks, lives, moves, noises = np.random.SeedSequence(seed).spawn(4)
        self._noise_seed = noises.generate_state(2).tolist()

        self.truth: Truth = physiology(
            n, fps, heart_rate, respiration_rate, variability, expressions, np.random.default_rng(lives)
        )
        rng = np.random.default_rng(looks)
        self._look = drawing.Look.draw(rng, skin_tone)
        width, height = size
        # `face` is the height of the face box as a share of the picture's smaller side.
        _, box_top, _, box_bottom = drawing.FACE_BOX
        self._unit = face * min(size) / (box_bottom - box_top)
        self._centre = (width * rng.uniform(0.47, 0.53), height * rng.uniform(0.42, 0.47))
        self._room = drawing.room(width, height, rng)
        self._tint = 1 + rng.uniform(-0.08, 0.08, 3)

        rng = np.random.default_rng(moves)
        t, breath = self.truth.timestamp, breathing * self.truth.respiration
        sway = motion * np.stack([wander(t, rng, 0.03, 0.45) for _ in range(4)])
        # The head: right, down (in face units), rotation (radians), growth. Breathing in lifts it and tips it back.
        self._pose = np.stack([0.03 * sway[0], 0.02 * sway[1] - 0.010 * breath, 0.02 * sway[2], 0.008 * sway[3]])
        self._pose[2] += 0.002 * breath
        self._shoulders = np.stack([0.010 * sway[0], 0.004 * sway[1] - 0.022 * breath])
        self._chest = 1 + 0.006 * breath  # a lifted chest faces the light
        self._lamp = 1 + drift * wander(t, rng, 0.02, 0.3)
        self._blink = _blinks(t, rng) if expressions else np.zeros(n)

    @property
    def box(self) -> tuple[float, float, float, float]:
        left, top, right, bottom = (self._unit * edge for edge in drawing.FACE_BOX)
        return self._centre[0] + left, self._centre[1] + top, right - left, bottom - top

    def __len__(self) -> int:
        return len(self.truth.timestamp)

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.frames(0, len(self))

    def frames(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Frames start to stop - 1 only; the same bits as when all are asked for."""
        (width, height), unit, (cx, cy) = self.size, self._unit, self._centre
        finer = 1.5  # texture pixels per picture pixel, so that sampling between them does not blur
        expression = drawing.Expression(drawing.head(self._look, finer * unit))
        body = drawing.body(self._look, width, height, self._centre, unit)
        room = torch.from_numpy(self._room).permute(2, 0, 1)[None]
        blood = self._pulse * torch.tensor(PULSE_RGB).view(1, 3, 1, 1)
        lamp = torch.from_numpy((self._light * self._tint).astype(np.float32)).view(1, 3, 1, 1) * 255

        # Only the part of the picture that the head can reach is warped.
        reach = [1.25 * unit * edge for edge in drawing.HEAD]
        x0, x1 = max(0, int(cx + reach[0])), min(width, math.ceil(cx + reach[2]))
        y0, y1 = max(0, int(cy + reach[1])), min(height, math.ceil(cy + reach[3]))
        neck = min(max(0, int(cy + 0.4 * unit)), height - 1)
        for i in range(start, stop):
            with one_thread():
                bvp = float(self.truth.bvp[i])
                picture = room.clone()
                dx, dy = self._shoulders[:, i] * unit
                theta = torch.tensor(
                    [[[1, 0, -2 * dx / width], [0, 1, -2 * dy / (height - neck)]]], dtype=torch.float32
                )
                grid = F.affine_grid(theta, [1, 1, height - neck, width], align_corners=False)
                layer = F.grid_sample(body[:, :, neck:], grid, padding_mode="border", align_corners=False)
                _cover(picture[:, :, neck:], layer, blood * bvp, float(self._chest[i]))

                texture = expression(self.truth.activation[i], self._blink[i])
                theta = self._theta(i, x0, y0, x1, y1)
                grid = F.affine_grid(theta, [1, 1, y1 - y0, x1 - x0], align_corners=False)
                layer = F.grid_sample(texture, grid, align_corners=False)
                _cover(picture[:, :, y0:y1, x0:x1], layer, blood * bvp, 1.0)

                value = (picture.mul_(lamp * float(self._lamp[i])))[0].permute(1, 2, 0).numpy()
            if self._noise:
                # Photon noise grows with the root of the light, the sensor's own does not (in 8-bit levels).
                sigma = np.sqrt(0.012 * np.maximum(value, 0) + 0.25) * np.float32(self._noise)
                rng = np.random.default_rng((*self._noise_seed, i))
                value = value + sigma * rng.standard_normal(value.shape, dtype=np.float32)
            yield np.clip(np.rint(value), 0, 255).astype(np.uint8)

    def _theta(self, i: int, x0: int, y0: int, x1: int, y1: int) -> torch.Tensor:
        """From a rectangle of the picture to the head's texture, both in -1..1, for the pose of frame i."""
        dx, dy, turn, grow = self._pose[:, i]
        left, top, right, bottom = drawing.HEAD
        cos, sin = math.cos(turn) / (1 + grow), math.sin(turn) / (1 + grow)
        # The head turns about the neck, 1 face unit below its origin.
        a = np.array([[cos, sin], [-sin, cos]]) / self._unit
        pivot = np.array([self._centre[0] + dx * self._unit, self._centre[1] + (dy + 1) * self._unit])
        half = np.array([x1 - x0, y1 - y0]) / 2
        b = a @ (np.array([x0 + x1, y0 + y1]) / 2 - pivot) + [0, 1]
        scale = np.array([2 / (right - left), 2 / (bottom - top)])
        middle = np.array([(left + right) / 2, (top + bottom) / 2])
        theta = np.concatenate([a * half * scale[:, None], ((b - middle) * scale)[:, None]], axis=1)
        return torch.from_numpy(theta.astype(np.float32))[None]


def synthesize(path: str | os.PathLike[str] | None = None, **options: object) -> Simulation:
    """Simulate a face video with a known pulse, breathing and facial expressions; the same seed gives the same bits.

    Args:
        path: where the video goes (lossless FFV1, so .mkv), with its truth beside it as .csv (`Truth.to_csv`). None
            writes nothing: iterate the returned simulation for the frames.
        heart_rate, respiration_rate: means over the video, per minute (72, 15); None: no pulse, no breathing.
        seconds, fps, size: length (30 s), frames per second (30), (width, height) in pixels (320, 320).
        seed: of the person, the room, the motion and the noise (0).
        skin_tone: 0 lightest to 1 darkest; None: by the seed.
        pulse: change of the skin's reflection from trough to peak, times 0.33, 0.77, 0.53 in R, G, B (0.012).
        variability: relative standard deviation of both rates over time (0.03).
        breathing: depth of the motion by breathing, 1 is calm breathing.
        expressions: facial expressions per minute (6); 0: a still face that does not blink either.
        motion: slow motion of the head, 1 is a person who sits still (1); 0: none but breathing.
        light: exposure; white skin comes near saturation at 1 (0.8). drift: its relative slow variation (0.01).
        noise: photon and sensor noise, 1 is a webcam in a lit room (1).
        face: height of the face as a share of the picture's smaller side (0.5).

    Returns:
        the `Simulation`, with its `truth` and its face `box`.

    Raises:
        ValueError: an argument out of its range; TypeError: an unknown argument.
    """
    simulation = Simulation(**options)  # type: ignore[arg-type]
    if path is not None:
        path = Path(path)
        with VideoWriter(path, simulation.fps) as video:
            for frame in simulation:
                video.write(frame)
        simulation.truth.to_csv(path.with_suffix(".csv"))
    return simulation


def _within(name: str, value: float | None, low: float, high: float, none: bool = False) -> None:
    if value is None and none:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name} must be a number{' or None' if none else ''}, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low:g} to {high:g}{' or None' if none else ''}, got {value!r}")


def _cover(picture: torch.Tensor, layer: torch.Tensor, blood: torch.Tensor, shade: float) -> None:
    """Lay a premultiplied layer over a part of the picture, in place."""
    picture.mul_(1 - layer[:, 6:]).add_(torch.addcmul(layer[:, :3], layer[:, 3:6], blood, value=-1), alpha=shade)


def _blinks(t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """About 12 blinks a minute of a quarter of a second."""
    shut = np.zeros(len(t))
    start = rng.exponential(5.0)
    while start < t[-1]:
        shut = np.maximum(shut, np.clip(1 - np.abs(t - start - 0.12) / 0.12, 0, 1))
        start += 0.5 + rng.exponential(4.5)
    return shut

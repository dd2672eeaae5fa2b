"""The face-video simulator: the skin-reflection model over a procedural face.

Wang et al.'s dichromatic model (IEEE TBME 2017), in camera values:

    frame(t) = light(t) * (shine + diffuse * (1 - pulse * u_p * bvp(t))) + noise,    u_p = (0.33, 0.77, 0.53)

The shine (specular reflection) carries no blood and stays where the light is when the head turns; the skin darkens as
blood fills it. Head and shoulders move with breath and with the person, the light drifts, flickers and changes its
colour, the camera sets its exposure anew, photons and the sensor add noise, and only then is rounded to uint8.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from ..threads import one_thread
from ..video import VideoWriter
from . import drawing, movement
from .codec import X264
from .layers import Body, Head, State
from .looks import Look
from .physiology import Truth, physiology, smooth_step, wander
from .timing import timing

PULSE_RGB = (0.33, 0.77, 0.53)  # u_p: relative strength of the pulse in red, green and blue
GRAIN = 1 << 17  # how many places in the store of noise a frame's own may begin at


class Simulation:
    """A simulated video and its truth: iterate for the frames, (H, W, 3) uint8 RGB; as often as wanted, same bits.

    Attributes:
        truth: `Truth`, one row per frame.
        timestamps: (T,) float64, seconds: when each frame is shown (`truth.timestamp`).
        fps: nominal frames per second. size: (width, height) in pixels.
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
        gestures: float = 0.0,
        talking: float = 0.0,
        away: tuple[float, float] | None = None,
        light: float = 0.8,
        drift: float = 0.01,
        flicker: float = 0.0,
        screen: float = 0.0,
        exposure: float = 0.0,
        noise: float = 1.0,
        face: float = 0.5,
        shot_fps: float | None = None,
        jitter: float = 0.0,
        dropped: float = 0.0,
        repeated: float = 0.0,
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
        _within("gestures", gestures, 0, 60)
        _within("talking", talking, 0, 1)
        _within("light", light, 0.02, 4)
        _within("drift", drift, 0, 0.5)
        _within("flicker", flicker, 0, 0.5)
        _within("screen", screen, 0, 0.5)
        _within("exposure", exposure, 0, 60)
        _within("noise", noise, 0, 50)
        _within("face", face, 0.1, 0.9)
        _within("shot_fps", shot_fps, 1, 1000, none=True)
        _within("jitter", jitter, 0, 0.9)
        _within("dropped", dropped, 0, 0.9)
        _within("repeated", repeated, 0, 0.9)
        if len(size) != 2 or not all(isinstance(n, int) and 32 <= n <= 8192 for n in size):
            raise ValueError(f"size must be (width, height), integers from 32 to 8192 pixels, got {size!r}")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed must be an integer of at least 0, got {seed!r}")
        if away is not None and not (len(away) == 2 and 0 <= away[0] < away[1]):
            raise ValueError(f"away must be (start, end) in seconds or None, got {away!r}")
        n = math.floor(seconds * fps + 1e-6)
        if n < 1:
            raise ValueError(f"seconds must give at least one frame at {fps:g} frames/s, got {seconds!r}")
        self.fps, self.size = float(fps), (size[0], size[1])
        self._noise = noise
        # One generator for each, so that to ask for one thing changes no other.
        looks, lives, moves, words, lights, flickers, screens, exposures, noises, times = (
            np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(10)
        )
        self._noise_seed = noises.integers(2**32, size=2).tolist()

        self.timestamps, self._pictures, t = timing(n, fps, shot_fps, jitter, dropped, repeated, times)
        self._taken = t
        life = physiology(t, heart_rate, respiration_rate, variability, expressions, lives)
        self.truth: Truth = replace(life, timestamp=self.timestamps)
        self._look = Look.draw(looks, skin_tone)
        self._room_seed = int(looks.integers(2**32))
        width, height = size
        # `face` is the height of the face box as a share of the picture's smaller side.
        _, top, _, bottom = drawing.FACE_BOX
        self._unit = face * min(size) / (bottom - top)
        self._centre = (width * looks.uniform(0.46, 0.54), height * looks.uniform(0.41, 0.47))

        breath = breathing * self.truth.respiration
        jaw, with_words = movement.talking(t, talking, words)
        pose = motion * movement.sway(t, moves) + with_words
        blink = movement.blinks(t, moves) if expressions else np.zeros(len(t))
        pose += movement.gestures(t, gestures, moves)
        # How far a breath lifts this person's shoulders, and the head with them, in face units.
        lifted, nodded = looks.uniform(0.016, 0.030), looks.uniform(0.003, 0.010)
        self._body = np.stack([0.35 * pose[0], 0.2 * pose[1], lifted * breath])
        if away is not None:
            gone = smooth_step((t - away[0]) / 0.8 + 1) - smooth_step((t - away[1]) / 0.8)
            aside = gone * moves.choice([-1, 1]) * (width / self._unit + 2.8)
            self._body[0], pose[0] = self._body[0] + aside, pose[0] + aside
        pose[1] -= nodded * breath
        pose[5] -= 0.3 * nodded * breath
        pose[4:] = np.clip(pose[4:], -0.8, 0.8)
        self._pose = pose
        self._pulls = np.concatenate([self.truth.activation.T, [blink, jaw]])
        bvp = np.stack([self.truth.bvp, np.interp(t + 0.03, t, self.truth.bvp)])  # the neck's comes a little earlier
        self._blood = (pulse * bvp[:, None] * np.array(PULSE_RGB)[:, None]).astype(np.float32)  # (2, 3, T)

        tint = 1 + lights.uniform(-0.08, 0.08, 3)
        gain = 255 * light * (1 + drift * wander(t, lights, 0.02, 0.3)) * movement.exposure(t, exposure, exposures)
        self._lamp = (tint[:, None] * gain).astype(np.float32)  # (3, T)
        self._side = 2 * drift * wander(t, lights, 0.03, 0.3)
        self._lit = (1 + screen * movement.screen(t, screens)).astype(np.float32)  # (3, T)
        # A lamp on the mains is brightest twice a period; the camera reads its rows one after another.
        self._flicker, self._mains = flicker, flickers.choice([50, 60]) + flickers.normal(0, 0.02)
        self._readout = flickers.uniform(0, 0.03)

    @property
    def box(self) -> tuple[float, float, float, float]:
        left, top, right, bottom = (self._unit * edge for edge in drawing.FACE_BOX)
        return self._centre[0] + left, self._centre[1] + top, right - left, bottom - top

    def __len__(self) -> int:
        return len(self.timestamps)

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.frames(0, len(self))

    @cached_property
    def _layers(self) -> tuple[torch.Tensor, Body, Head]:
        room = drawing.room(*self.size, np.random.default_rng(self._room_seed))
        body = Body(self._look, self.size, self._unit, self._centre)
        return room, body, Head(self._look, self._unit, self._centre)

    @cached_property
    def _grain(self) -> torch.Tensor:
        """Normal random numbers; each frame's noise is the sum of two stretches of them, at random."""
        count = 3 * self.size[0] * self.size[1] + GRAIN
        grain = np.random.default_rng(self._noise_seed).standard_normal(count, dtype=np.float32)
        return torch.from_numpy(grain).mul_(self._noise / math.sqrt(2))

    def frames(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Frames start to stop - 1 only; the same bits as when all are asked for."""
        shown, frame = -1, np.empty(0, np.uint8)
        for i in range(start, stop):
            if self._pictures[i] != shown:
                shown = self._pictures[i]
                with one_thread():
                    frame = self._frame(i)
            yield frame.copy()

    def write(self, path: str | os.PathLike[str], *, crf: int | None = None) -> None:
        """Write the video with its timestamps, and the truth beside it: see `synthesize`."""
        path = Path(path)
        if path.suffix not in (".mkv", ".mp4"):
            raise ValueError(f"path must end in .mkv or .mp4, got {path.name!r}")
        lossy = path.suffix == ".mp4"
        if crf is not None and not (lossy and isinstance(crf, int) and 0 <= crf <= 51):
            raise ValueError(f"crf must be an integer from 0 to 51 and for .mp4, or None, got {crf!r} for {path.name}")
        options = X264 | {"crf": str(18 if crf is None else crf)} if lossy else None
        with VideoWriter(path, self.fps, codec="libx264" if lossy else "ffv1", options=options) as video:
            for timestamp, frame in zip(self.timestamps.tolist(), self, strict=True):
                video.write(frame, timestamp)
        self.truth.to_csv(path.with_suffix(".csv"))

    def _scene(self, i: int) -> torch.Tensor:
        """What is in front of the camera, (1, 3, H, W), 1 being white, before the lamp."""
        room, body, head = self._layers
        state = State(
            pose=self._pose[:, i].tolist(),
            body=self._body[:, i].tolist(),
            pulls=self._pulls[:, i].tolist(),
            blood=torch.from_numpy(self._blood[:, :, i]).view(2, 3, 1, 1),
            side=float(self._side[i]),
            lit=torch.from_numpy(self._lit[:, i]).view(1, 3, 1, 1),
        )
        picture = room.clone()
        body.lay(picture, state)
        head.lay(picture, state)
        return picture

    def _frame(self, i: int) -> np.ndarray:
        lamp, height = torch.from_numpy(self._lamp[:, i]).view(1, 3, 1, 1), self.size[1]
        if self._flicker:
            moment = self._taken[i] + self._readout * torch.arange(height, dtype=torch.float64) / height
            wave = (4 * math.pi * self._mains * moment).cos_().float()
            lamp = lamp * (1 + self._flicker * wave).view(1, 1, height, 1)
        value = self._scene(i).mul_(lamp)
        if self._noise:
            rng = np.random.default_rng((*self._noise_seed, int(self._pictures[i])))
            (a, b), count = rng.integers(GRAIN, size=2).tolist(), value.numel()
            grain = (self._grain[a : a + count] + self._grain[b : b + count]).view_as(value)
            # Photon noise grows with the root of the light, the sensor's own does not (in 8-bit levels).
            value.addcmul_(value.mul(0.012).add_(0.25).sqrt_(), grain)
        frame = value.round_().clamp_(0, 255).to(torch.uint8)[0].permute(1, 2, 0)
        return frame.contiguous().numpy()


def synthesize(
    path: str | os.PathLike[str] | None = None, *, crf: int | None = None, **options: object
) -> Simulation:
    """Simulate a face video with a known pulse, breathing and facial expressions; the same seed gives the same bits.

    What is not asked for is a calm person, well lit, for 30 s.

    Args:
        path: where the video goes, with its truth beside it as .csv (`Truth.to_csv`): .mkv is lossless (FFV1), .mp4 is
            x264. None writes nothing: iterate the returned simulation for the frames.
        crf: x264's quality, 0 best to 51 (18); .mp4 only.
        heart_rate, respiration_rate: means over the video, per minute (72, 15); None: no pulse, no breathing.
        seconds, fps, size: length (30 s), frames per second (30), (width, height) in pixels (320, 320).
        seed: of the person, the room, the motion and the noise (0).
        skin_tone: 0 lightest to 1 darkest; None: by the seed.
        pulse: change of the skin's reflection from trough to peak, times 0.33, 0.77, 0.53 in R, G, B (0.012).
        variability: relative standard deviation of both rates over time (0.03).
        breathing: depth of the motion by breathing, 1 is calm breathing.
        expressions: facial expressions per minute (6); 0: a still face that does not blink either.
        motion: slow motion of the head, 1 is a person who sits still (1); 0: none but breathing.
        gestures: nods, shakes, turns, tilts, leaning and shifting in the seat, per minute (0).
        talking: share of the time that the person talks, moving lips, jaw and head (0).
        away: (start, end) in seconds while the person has left the picture (None).
        light: exposure; white skin comes near saturation at 1 (0.8). drift: its relative slow variation (0.01).
        flicker: relative depth of the light's flicker at twice the mains' frequency, which beats with the frames (0).
        screen: relative depth of the coloured, jumping light of a screen on the person (0).
        exposure: steps of the camera's automatic exposure and white balance per minute (0).
        noise: photon and sensor noise, 1 is a webcam in a lit room (1).
        face: height of the face as a share of the picture's smaller side (0.5).
        shot_fps: the camera's frames per second where the file's `fps` are others, e.g. 25 in a file of 60 (None).
        jitter: unevenness of the frames' times, in frame intervals (0). dropped, repeated: shares of frames that are
            missing, and that show the picture before again (0).

    Returns:
        the `Simulation`, with its `truth`, `timestamps` and face `box`.

    Raises:
        ValueError: an argument out of its range; TypeError: an unknown argument.
    """
    simulation = Simulation(**options)  # type: ignore[arg-type]
    if path is not None:
        simulation.write(path, crf=crf)
    return simulation


def _within(name: str, value: float | None, low: float, high: float, none: bool = False) -> None:
    if value is None and none:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name} must be a number{' or None' if none else ''}, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low:g} to {high:g}{' or None' if none else ''}, got {value!r}")

"""How head, shoulders and light move: functions of time, from a random generator."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .physiology import smooth_step, wander

POSE = ("right", "down", "roll", "growth", "yaw", "pitch")  # face units, radians; yaw turns the nose right, pitch down


def sway(t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(6, T), in the order of POSE: how a person who sits still moves nevertheless."""
    size = np.array([0.03, 0.02, 0.02, 0.008, 0.03, 0.02])
    return np.asarray(size[:, None] * np.stack([wander(t, rng, 0.03, 0.45) for _ in POSE]))


def gestures(t: np.ndarray, per_minute: float, rng: np.random.Generator) -> np.ndarray:
    """(6, T): nods, shakes, turns, tilts, leaning, and sitting down differently, which stays."""
    pose = np.zeros((6, len(t)))
    for start in _moments(t, per_minute, rng):
        x, size, sign = t - start, rng.uniform(0.3, 1), rng.choice([-1, 1])
        kind = rng.integers(6)
        if kind < 2:  # nodding, shaking the head
            last, rate = rng.uniform(0.8, 2), rng.uniform(1, 2.8)
            bell = np.where((x > 0) & (x < last), np.sin(np.pi * np.clip(x / last, 0, 1)), 0)
            pose[5 - kind] += sign * size * 0.16 * bell * np.sin(2 * np.pi * rate * x)
            continue
        quick, hold = rng.uniform(0.25, 0.9), rng.uniform(0.3, 3)
        held = smooth_step(x / quick) - (smooth_step((x - quick - hold) / quick) if kind < 5 else 0)
        if kind == 2:
            pose[4] += sign * size * 0.40 * held
            pose[0] += sign * size * 0.10 * held
        elif kind == 3:
            pose[2] += sign * size * 0.20 * held
        elif kind == 4:
            pose[3] += sign * size * 0.10 * held
            pose[1] += sign * size * 0.06 * held
        else:
            pose[0] += 0.12 * (sign * size - pose[0, -1] / 0.12) * held  # not ever further away
            pose[1] += 0.05 * (rng.uniform(-1, 1) - pose[1, -1] / 0.05) * held
    return pose


def talking(t: np.ndarray, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """How far the mouth is open, (T,) 0..1, and how the head moves with the words, (6, T); for a share of the time."""
    if share == 0:
        return np.zeros(len(t)), np.zeros((6, len(t)))
    # Sentences: where a slow signal is above the level that it passes for that share.
    slow = np.sin(wander(t, rng, 0.05, 0.25)) + np.linspace(0, 1e-6, len(t))
    voice = smooth_step((slow - np.quantile(slow, 1 - share)) / 0.2 + 0.5) if share < 1 else np.ones(len(t))
    syllables = np.clip(0.4 + 0.45 * wander(t, rng, 1.5, 5), 0, 1)
    size = np.array([0.015, 0.01, 0.015, 0.002, 0.03, 0.03])
    return voice * syllables, voice * size[:, None] * np.stack([wander(t, rng, 0.4, 2.2) for _ in POSE])


def blinks(t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(T,) 0 open to 1 shut: about 12 blinks a minute of a quarter of a second."""
    shut = np.zeros(len(t))
    for start in _moments(t, 12, rng):
        shut = np.maximum(shut, np.clip(1 - np.abs(t - start - 0.12) / 0.12, 0, 1))
    return shut


def exposure(t: np.ndarray, per_minute: float, rng: np.random.Generator) -> np.ndarray:
    """(3, T) gains in R, G, B as the camera's automatic exposure and white balance set them anew now and then."""
    level, now = np.zeros((3, len(t))), np.zeros(3)
    for start in _moments(t, per_minute, rng):
        then = rng.normal(0, 0.08) + rng.normal(0, 0.02, 3)
        level += (then - now)[:, None] * smooth_step((t - start) / rng.uniform(0.05, 0.8))
        now = then
    return np.exp(level)


def screen(t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(3, T), about -1..1: light of a screen that shows a film; its colour jumps at each cut and moves between."""
    level, now = np.zeros((3, len(t))), np.zeros(3)
    for start in _moments(t, 20, rng):
        then = rng.uniform(-0.8, 0.8) + rng.uniform(-0.3, 0.3, 3)
        level += (then - now)[:, None] * (t >= start)
        now = then
    return level + 0.2 * wander(t, rng, 0.2, 2)


def _moments(t: np.ndarray, per_minute: float, rng: np.random.Generator) -> Iterator[float]:
    """Moments at random, on average so many a minute, at least half a second apart."""
    if per_minute > 0:
        now = t[0] + rng.exponential(60 / per_minute)
        while now < t[-1]:
            yield now
            now += 0.5 + rng.exponential(60 / per_minute)

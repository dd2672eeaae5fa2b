"""What the simulated person does: pulse, breathing and facial action units over time, which is also the truth."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass

import numpy as np

from ..files import whole

AUS = ("AU01", "AU02", "AU04", "AU06", "AU07", "AU10", "AU12", "AU14", "AU15", "AU17", "AU23", "AU24")

# Expressions, as sets of AUs that occur together: most of the common ones, and every AU alone or nearly so.
EXPRESSIONS = (
    ("AU06", "AU12"), ("AU06", "AU07", "AU12"), ("AU12",), ("AU06", "AU10", "AU12"), ("AU01", "AU02"), ("AU01",),
    ("AU02",), ("AU04",), ("AU04", "AU07"), ("AU01", "AU04", "AU15"), ("AU07",), ("AU06",), ("AU10",), ("AU07", "AU10"),
    ("AU14",), ("AU12", "AU14"), ("AU15",), ("AU15", "AU17"), ("AU17",), ("AU17", "AU24"), ("AU23",), ("AU04", "AU23"),
    ("AU24",), ("AU04", "AU24"), ("AU10", "AU17"), ("AU06", "AU07", "AU10", "AU12", "AU14"), ("AU14", "AU17"),
    ("AU17", "AU23"), ("AU01", "AU02", "AU14"),
)  # fmt: skip


@dataclass(frozen=True)
class Truth:
    """The ground truth of a simulated video, one row per frame, of the moment at which its picture was taken.

    `timestamp`, when the frame is shown, in seconds; `bvp`, the blood volume pulse, mean about 0 and about 1 from
    trough to systolic peak (blood absorbs light: the skin is darkest at the peak); `respiration`, about -1..1, highest
    at full inhalation; `heart_rate` and `respiration_rate`, instantaneous, per minute (NaN where there is none); all
    (T,) float64. `activation` (T, 12) float64, 0..1, how far each AU of `AUS` is contracted.
    """

    timestamp: np.ndarray
    bvp: np.ndarray
    respiration: np.ndarray
    heart_rate: np.ndarray
    respiration_rate: np.ndarray
    activation: np.ndarray

    @property
    def aus(self) -> np.ndarray:
        """(T, 12) uint8, 1 where an AU is visible: contracted by a quarter or more."""
        return (self.activation >= 0.25).astype(np.uint8)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `frame, timestamp, bvp, respiration, heart_rate, respiration_rate, AU01 ... AU24`; empty = none."""
        columns = (self.bvp, self.respiration, self.heart_rate, self.respiration_rate)
        with whole(path) as aside, open(aside, "w", newline="", encoding="utf-8") as f:
            rows = csv.writer(f)
            rows.writerow(("frame", "timestamp", "bvp", "respiration", "heart_rate", "respiration_rate", *AUS))
            for i, (t, aus) in enumerate(zip(self.timestamp, self.aus, strict=True)):
                values = ("" if np.isnan(c[i]) else f"{c[i]:.6f}" for c in columns)
                rows.writerow((i, f"{t:.6f}", *values, *aus.tolist()))


def wander(t: np.ndarray, rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """A smooth random signal over `t` (seconds) with standard deviation about 1: five sinusoids in [low, high] Hz."""
    f = rng.uniform(low, high, (5, 1))
    waves = np.sin(2 * np.pi * (f * t + rng.uniform(0, 1, (5, 1))))
    return np.asarray(waves.sum(axis=0) / np.sqrt(2.5))


def smooth_step(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth between."""
    x = np.clip(x, 0, 1)
    return np.asarray(x * x * (3 - 2 * x))


def physiology(
    t: np.ndarray,
    heart_rate: float | None,
    respiration_rate: float | None,
    variability: float,
    expressions: float,
    rng: np.random.Generator,
) -> Truth:
    """Pulse, respiration and AUs at the times `t` (T,), seconds; the mean rates over them are the ones asked for.

    `variability`: relative standard deviation of both rates; most of the heart's is respiratory sinus arrhythmia,
    the rest slow waves and differences from beat to beat. It is also how irregularly deep the breaths are.
    `expressions`: how many facial expressions begin per minute.
    """
    none = np.full(len(t), np.nan)
    wobble = variability * wander(t, rng, 0.02, 0.06)
    breath_rate = none if respiration_rate is None else respiration_rate * (1 + wobble - wobble.mean())
    breath = _phase(t, breath_rate, rng)
    # Each person breathes in for a third of the time or so, out for longer, and rests for a moment before the next.
    inhale, rest = rng.uniform(0.32, 0.46), rng.uniform(0.0, 0.16)
    depth = 1 + 5 * variability * wander(t, rng, 0.02, 0.08)
    respiration = np.clip(depth, 0.3, 1.7) * _breath(breath, inhale, rest)
    if respiration_rate is None:
        respiration = np.zeros(len(t))

    wobble = 0.9 * respiration + 0.5 * wander(t, rng, 0.03, 0.12) + 0.25 * wander(t, rng, 0.3, 0.6)
    wobble *= variability
    beat_rate = none if heart_rate is None else heart_rate * (1 + wobble - wobble.mean())
    beat = _phase(t, beat_rate, rng)
    # The dicrotic wave: young vessels reflect it late and clearly, old ones early and hardly.
    notch, delay = rng.uniform(0.15, 0.24), rng.uniform(2.4, 2.65)
    if heart_rate is None:
        bvp = np.zeros(len(t))
    else:  # breathing changes how far the vessels are filled, and how much each beat adds
        depth = 1 - 0.08 * respiration + 0.05 * wander(t, rng, 0.03, 0.1)
        bvp = depth * _pulse(beat, notch, delay) + 0.05 * respiration
    return Truth(t, bvp, respiration, beat_rate, breath_rate, _activations(t, expressions, rng))


def _phase(t: np.ndarray, rate: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Phase in radians at the times `t` of an oscillation whose rate per minute is given there."""
    return 2 * np.pi * (rng.uniform() + np.concatenate(([0.0], np.cumsum(rate[:-1] * np.diff(t) / 60))))


def _breath(phase: np.ndarray, inhale: float, rest: float) -> np.ndarray:
    """One breath every 2 pi, -1 to 1 and back: the shares of it that are inhalation and rest are given."""
    x = phase / (2 * np.pi) % 1
    exhale = 1 - inhale - rest
    return np.asarray(np.where(x < inhale, -np.cos(np.pi * x / inhale),
                               np.cos(np.pi * np.clip((x - inhale) / exhale, 0, 1))))  # fmt: skip


def _pulse(phase: np.ndarray, notch: float, delay: float) -> np.ndarray:
    """One beat every 2 pi: a steep systolic upstroke, then a dicrotic notch and wave; trough to peak 1, mean 0."""

    def wave(x: np.ndarray) -> np.ndarray:
        systole = np.exp(np.cos(x - 1.2 + 0.2 * np.cos(x - 1.2)) - 1)
        return np.asarray(systole + notch * np.exp(5 * (np.cos(x - 1.2 - delay) - 1)))

    cycle = wave(np.linspace(0, 2 * np.pi, 256, endpoint=False))
    return np.asarray((wave(phase) - cycle.mean()) / np.ptp(cycle))


def _activations(t: np.ndarray, per_minute: float, rng: np.random.Generator) -> np.ndarray:
    """(T, 12): expressions one after another, each AU with onset, apex and offset about when the others have them."""
    activation = np.zeros((len(t), len(AUS)))
    if per_minute == 0:
        return activation
    start = rng.exponential(60 / per_minute)
    while start < t[-1]:
        onset, apex, offset = rng.uniform(0.2, 0.6), rng.uniform(0.5, 2.5), rng.uniform(0.3, 0.8)
        strength = rng.uniform(0.65, 1.0)
        aus = set(EXPRESSIONS[rng.integers(len(EXPRESSIONS))])
        if rng.uniform() < 0.25:
            aus.add(AUS[rng.integers(len(AUS))])
        for au in sorted(aus):
            begins = t - start - rng.uniform(0, 0.15)
            pull = smooth_step(np.minimum(begins / onset, (onset + apex + offset - begins) / offset))
            k = AUS.index(au)
            activation[:, k] = np.maximum(activation[:, k], strength * rng.uniform(0.75, 1) * pull)
        start += onset + apex + rng.exponential(60 / per_minute)
    return activation

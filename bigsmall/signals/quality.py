"""How far a rate can be trusted: against a reference where there is one (SNR, MACC), from the signal alone otherwise.

`assess` looks for a rhythm in a waveform and, where there is one, in an independent second one (POS beside a network;
chest and shoulders beside respiration), and answers with a rate, or with the reason why there is none. What counts:

- the evidence for the rhythm in either waveform, and for the strongest other rhythm (`bigsmall.signals.evidence`);
- for a pulse, how much of it the light beside the face explains (`Conditions.flicker`).

From these a logistic regression makes the confidence: the chance that the rate is right, to 3 bpm or 2 breaths/min.
Its coefficients, and those of the 95 % interval, were fitted on simulated videos by `bench/trust.py`, which also shows
how well they hold on fresh ones; they are in `calibration.py`. A rate is given from `ACCEPTED` on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from bigsmall.signals.calibration import CONFIDENCE, INTERVAL
from bigsmall.signals.conditions import Conditions
from bigsmall.signals.evidence import Band, Line, Spectra, find_line
from bigsmall.signals.filters import as_signal, check_rate
from bigsmall.signals.rates import rate_beats, spectrum

ACCEPTED = 0.9  # the least confidence with which a rate is given


@dataclass(frozen=True)
class Vital:
    """What is measured.

    Attributes:
        name, unit. seconds: the least duration. window: of a table of rates over time, seconds.
        right: per minute, how near a rate must be to be right.
        band: where the rhythm is looked for.
    """

    name: str
    unit: str
    seconds: float
    window: float
    right: float
    band: Band

    @property
    def low(self) -> float:
        """Hz."""
        return self.band.low

    @property
    def high(self) -> float:
        """Hz."""
        return self.band.high


HEART_RATE = Vital("heart rate", "bpm", 8.0, 10.0, 3.0, Band(40 / 60, 3.0, 10.0, (40 / 60, 3.0), -2.0))
RESPIRATION_RATE = Vital("respiration rate", "breaths/min", 20.0, 20.0, 2.0, Band(0.1, 0.5, 15.0, (0.075, 0.7), -1.0))


@dataclass(frozen=True)
class Rate:
    """A measured rate: `value` and its 95 % `interval`, both None where it is refused; then `note` says why."""

    value: float | None
    unit: str
    confidence: float
    interval: tuple[float, float] | None
    note: str | None = None
    snr: float | None = None  # dB, of the rhythm and its harmonic over the rest of the band; no ground truth needed
    by_peaks: float | None = None  # per minute, from the distances between peaks; None where they cannot be told


def snr(x: ArrayLike, fs: float, rate: float, low: float, high: float) -> float:
    """Power of `x` within 0.1 Hz of `rate` (per minute) and of twice it, over the rest of low..high Hz, in dB.

    The harmonic counts even outside the band; 0 where the rest is empty, both as released (FACTS 6).
    """
    frequencies, power = spectrum(x, fs)
    signal = sum(np.abs(frequencies - harmonic * rate / 60) <= 0.1 for harmonic in (1, 2)) > 0
    rest = power[(frequencies >= low) & (frequencies <= high) & ~signal].sum()
    return float(10 * np.log10(power[signal].sum() / rest)) if rest else 0.0


def macc(x: ArrayLike, y: ArrayLike) -> float:
    """The largest absolute Pearson correlation of `x` and `y` (T,) over all circular shifts, by FFT (FACTS 6)."""
    first, second = as_signal(x), as_signal(y, "y")
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"x, y: expected two signals (T,) of one length, got shapes {first.shape} and {second.shape}")
    first, second = first - first.mean(), second - second.mean()
    scale = np.sqrt((first @ first) * (second @ second))
    if not scale:
        return float("nan")
    product = np.fft.rfft(first) * np.fft.rfft(second).conj()
    return float(np.abs(np.fft.irfft(product, len(first))).max() / scale)


@dataclass(frozen=True)
class Finding:
    """A rhythm and what speaks for it and against it."""

    line: Line
    flicker: float  # 0..1, of a pulse: how much of it the light explains
    alone: tuple[float, ...]  # Hz: where either waveform for itself has the most evidence

    def features(self) -> tuple[float, ...]:
        """What the confidence is made of, 1 first. Only power that the light does not explain is evidence."""
        first, second = (evidence * (1 - self.flicker) ** 2 for evidence in (self.line.first, self.line.second))
        return 1.0, *np.log1p([first, second, min(first, second), self.line.rival])

    def spread(self) -> float:
        """What the interval is made of, besides a constant: the rate's standard error, per minute."""
        return 60 * self.line.spread


def find(
    x: ArrayLike, fs: float, vital: Vital, second: ArrayLike | None = None, conditions: Conditions | None = None
) -> Finding | str:
    """The rhythm of the waveform `x`, of `second` too if there is one, or the sentence that says why there is none.

    Arguments as of `assess`.
    """
    first = _spectra(x, fs, vital)
    if isinstance(first, str):
        return first
    other = None if second is None else _spectra(second, fs, vital)
    other = None if isinstance(other, str) else other
    line = find_line(first, other)
    if line is None:
        limits = f"{60 * vital.low:g} to {60 * vital.high:g} {vital.unit}"
        return f"no {vital.name}: the strongest rhythm lies outside {limits}"
    flicker = conditions.flicker(line.frequency, vital.band) if conditions and vital is HEART_RATE else 0.0
    return Finding(line, flicker, (first.best, other.best) if other else (first.best,))


def assess(
    x: ArrayLike, fs: float, vital: Vital, second: ArrayLike | None = None, conditions: Conditions | None = None
) -> Rate:
    """The rate of the waveform `x` (T,) sampled at `fs` Hz, and how far to trust it; see the top of this file.

    Args:
        x: the waveform itself (integrated and detrended where a network gives differences), not band-passed.
        fs: Hz.
        vital: what it is of.
        second: an independent estimate of the same waveform, from the same time on; of any length.
        conditions: under which the face was seen; they lower the confidence and are named as reasons of a refusal.

    Returns:
        the mean rate over windows, with its 95 % interval.

    Raises:
        ValueError: `fs` is not positive, or a waveform is not one-dimensional.
    """
    check_rate(fs)
    found = find(x, fs, vital, second, conditions)
    if isinstance(found, str):
        return Rate(None, vital.unit, 0.0, None, found)
    line, kind = found.line, "alone" if second is None else "both"
    rate = 60 * line.frequency
    confidence = float(expit(np.dot(CONFIDENCE[vital.name, kind], found.features())))
    told = snr(x, fs, rate, vital.low, vital.high), rate_beats(x, fs, vital.low, vital.high)
    if confidence < ACCEPTED:
        return Rate(None, vital.unit, confidence, None, _refusal(found, vital, conditions), *told)
    least, share = INTERVAL[vital.name, kind]
    half = float(np.hypot(least, share * found.spread()))
    return Rate(rate, vital.unit, confidence, (rate - half, rate + half), None, *told)


def _spectra(x: ArrayLike, fs: float, vital: Vital) -> Spectra | str:
    """Of a waveform in which a rhythm may be looked for, or the sentence that says why not."""
    signal = np.asarray(x, dtype=np.float64)
    if signal.ndim != 1:
        raise ValueError(f"x: expected one signal (T,), got shape {signal.shape}")
    seconds = len(signal) / fs
    if fs < 2 * vital.high:
        return f"{2 * vital.high:g} samples a second are needed to measure a {vital.name}; there are {fs:.3g}"
    if seconds < vital.seconds - 1e-6:
        return f"{vital.seconds:g} s of signal are needed to measure a {vital.name}; there are {seconds:.1f} s"
    if not np.isfinite(signal).all():
        return f"no {vital.name}: the signal holds values that are not numbers"
    spectra = Spectra(signal, fs, vital.band)
    # what is left of a constant or a straight line after rounding is below this
    if np.sqrt(spectra.power.max()) <= 1e-9 * np.abs(signal).max():
        return f"no {vital.name}: the signal does not vary"
    return spectra


def _refusal(found: Finding, vital: Vital, conditions: Conditions | None) -> str:
    line = found.line
    note = f"no {vital.name} found: the strongest rhythm is {60 * line.frequency:.1f} {vital.unit}"
    if 60 * np.ptp(found.alone) > 2 * vital.right:
        note += f"; the two signals disagree, {60 * found.alone[0]:.0f} and {60 * found.alone[1]:.0f}"
    if found.flicker > 0.5:
        return f"{note}; the light flickers at this rate"
    reason = conditions.reason() if conditions else None
    return f"{note}; {reason or 'it does not stand out enough from the noise'}"

"""How far a rate can be trusted: against a reference where there is one (SNR, MACC), from the signal alone otherwise.

`assess` asks three things of a waveform and answers with a rate, or with the reason why there is none.

1. Does one frequency stand out? The noise of the band is a power law fitted to the tapered spectrum beside the peak and
   its harmonics; `evidence` is minus the logarithm of the chance that such noise alone makes a peak so high anywhere in
   the band (an F test, so a floor known from few bins counts for less).
2. Is it there all the time? The peak is sought again in overlapping windows; `share` is how many find it.
3. Does an independent signal, such as POS beside a network, find it too?

From 1 and 2 comes a confidence, logistic(evidence / 3 - 4 (1 - share)): a logistic regression on simulated pulses and
breaths and as many white, pink and integrated noises, 8 to 60 s long, its coefficients rounded. Two signals at one
rate fail only together, 1 - (1 - c1)(1 - c2); at two rates the first is right only if the second is wrong, c1 (1 - c2).
A rate is given from 0.8 on. Noise then passes in about one of a hundred tries (tests/bigsmall/test_signals.py).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from bigsmall.signals.conditions import Conditions
from bigsmall.signals.filters import Array, as_signal, check_rate
from bigsmall.signals.rates import in_band, peak_frequency, rate_beats, rate_fft, spectrum

ACCEPTED = 0.8  # the least confidence with which a rate is given
HANN_BINS = 1.5  # the noise bandwidth of a Hann window, in units of one over the duration


@dataclass(frozen=True)
class Vital:
    """What is measured: its name and unit, its band (Hz), the least duration and the longest window (s)."""

    name: str
    unit: str
    low: float
    high: float
    seconds: float
    window: float
    tolerance: float  # per minute: two rates no further apart are one


HEART_RATE = Vital("heart rate", "bpm", 40 / 60, 3.0, 8.0, 10.0, 6.0)
RESPIRATION_RATE = Vital("respiration rate", "breaths/min", 0.1, 0.5, 20.0, 20.0, 1.5)


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


def assess(
    x: ArrayLike, fs: float, vital: Vital, second: ArrayLike | None = None, conditions: Conditions | None = None
) -> Rate:
    """The rate of the waveform `x` (T,) sampled at `fs` Hz, and how far to trust it; see the top of this file.

    `x` is the waveform itself (integrated and detrended where a network gives differences), band-passed or not.
    `second` is an independent estimate of the same waveform, of any length. The interval holds the estimator's own
    spread at the noise beside the peak, the spread over windows, and the second signal's rate where both agree.
    """
    check_rate(fs)
    peak = _peak(x, fs, vital)
    if isinstance(peak, str):
        return Rate(None, vital.unit, 0.0, None, peak)
    confidence, half = peak.confidence, peak.half
    other = _peak(second, fs, vital) if second is not None else ""
    beside = ""
    if isinstance(other, _Peak):
        apart = abs(other.rate - peak.rate)
        if apart <= vital.tolerance:
            confidence = 1 - (1 - confidence) * (1 - other.confidence)
            half = max(half, apart)
        else:
            confidence *= 1 - other.confidence
            beside = f"; the second signal gives {other.rate:.1f}"
    told = snr(x, fs, peak.rate, vital.low, vital.high), rate_beats(x, fs, vital.low, vital.high)
    if confidence < ACCEPTED:
        note = (
            f"no {vital.name} found: the strongest rhythm, {peak.rate:.1f} {vital.unit}, is there "
            f"{100 * peak.share:.0f} % of the time and stands {peak.height:.1f} dB above the noise{beside}"
        )
        reason = conditions.reason() if conditions else None
        return Rate(None, vital.unit, confidence, None, f"{note}; {reason}" if reason else note, *told)
    return Rate(peak.rate, vital.unit, confidence, (peak.rate - half, peak.rate + half), None, *told)


@dataclass(frozen=True)
class _Peak:
    rate: float  # per minute
    half: float  # half of the 95 % interval, per minute
    confidence: float
    share: float  # of windows that find the rate
    height: float  # dB above the noise


def _peak(x: ArrayLike, fs: float, vital: Vital) -> _Peak | str:
    """What the strongest frequency of the band amounts to, or the sentence that says why there is none."""
    signal = np.asarray(x, dtype=np.float64)
    seconds = len(signal) / fs
    if fs < 2 * vital.high:
        return f"{2 * vital.high:g} samples a second are needed to measure a {vital.name}; there are {fs:.3g}"
    if seconds < vital.seconds:
        return f"{vital.seconds:g} s of signal are needed to measure a {vital.name}; there are {seconds:.1f} s"
    if not np.isfinite(signal).all():
        return f"no {vital.name}: the signal holds values that are not numbers"
    frequencies, power = spectrum(signal, fs, fine=True)
    # what is left of a constant or a straight line after rounding is below this
    if np.sqrt(power.max() * frequencies[1]) <= 1e-9 * np.abs(signal).max():
        return f"no {vital.name}: the signal does not vary"
    band = in_band(frequencies, vital.low, vital.high)
    top = band.start + int(np.argmax(power[band]))
    lobe = int(_lobe(seconds, vital) / frequencies[1])
    if power[max(top - lobe, 0) : top + lobe + 1].max() > power[top]:  # the flank of something, not a peak
        limits = f"{60 * vital.low:g} to {60 * vital.high:g} {vital.unit}"
        return f"no {vital.name}: the strongest rhythm lies outside {limits}"
    ratio, evidence = _evidence(frequencies[band], power[band], top - band.start, seconds, vital)

    rate = 60 * peak_frequency(frequencies, power, top)
    rates = np.array([rate_fft(part, fs, vital.low, vital.high) for part in _windows(signal, fs, vital)])
    found = rates[np.abs(rates - rate) <= vital.tolerance]
    share = len(found) / len(rates)
    # Cramer-Rao for a line 1.5 ratio above the floor, doubled for the Hann window; neighbouring windows share half
    variance = 2 * 6 / (HANN_BINS * ratio) * (60 / (2 * np.pi * seconds)) ** 2
    variance += float(found.var()) / max(len(found) / 2, 1) if len(found) else 0.0
    return _Peak(rate, 1.96 * variance**0.5, float(expit(evidence / 3 - 4 * (1 - share))), share, 10 * np.log10(ratio))


def _evidence(frequencies: Array, power: Array, top: int, seconds: float, vital: Vital) -> tuple[float, float]:
    """How many times bin `top` of a band is above its noise, and -ln of the chance that noise alone reaches so high."""
    centre, lobe = frequencies[top], _lobe(seconds, vital)
    beside = np.abs(frequencies - centre) > lobe
    clear = beside & (np.abs(frequencies - 2 * centre) > lobe) & (np.abs(frequencies - 3 * centre) > lobe)
    noise = clear if clear.mean() > 0.2 else beside
    level = np.log(np.maximum(power[noise], np.finfo(float).tiny))
    position = np.log(frequencies[noise])
    slope = np.clip(np.polyfit(position, level, 1)[0], -4, 0)
    # the mean logarithm of exponentially distributed power is Euler's constant below the logarithm of its mean
    floor = level.mean() + slope * (np.log(centre) - position.mean()) + np.euler_gamma
    ratio = float(power[top] / np.exp(floor))
    independent = frequencies[1] - frequencies[0]  # Hz a bin; times the duration over HANN_BINS, independent bins
    bins, trials = np.array([noise.sum(), len(noise)]) * independent * seconds / HANN_BINS
    return ratio, float(bins * np.log1p(ratio / bins) - np.log(trials))


def _lobe(seconds: float, vital: Vital) -> float:
    """How far (Hz) a rhythm reaches to each side: its own variation or a Hann window's main lobe."""
    return max(vital.high / 30, 2 / seconds)


def _windows(signal: Array, fs: float, vital: Vital) -> list[Array]:
    """At least three windows of at most half the signal, each overlapping the next by about half."""
    length = int(min(len(signal) / 2, vital.window * fs))
    starts = np.linspace(0, len(signal) - length, max(3, round(2 * len(signal) / length) - 1)).astype(int)
    return [signal[start : start + length] for start in starts]

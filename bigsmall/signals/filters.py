"""From what a network gives to a waveform: integration, detrending, band-pass; clocks and labels.

Time is axis 0 everywhere; a second axis, where there is one, holds independent signals.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solveh_banded
from scipy.signal import butter, filtfilt
from scipy.signal import detrend as remove_line

Array = NDArray[np.float64]


def as_signal(x: ArrayLike, name: str = "x", minimum: int = 1) -> Array:
    """`x` as float64 (T,) or (T, C), finite, with at least `minimum` samples, or a ValueError that says what it was."""
    signal = np.asarray(x, dtype=np.float64)
    if signal.ndim not in (1, 2) or len(signal) < minimum:
        raise ValueError(f"{name}: expected (T,) or (T, C) with T >= {minimum}, got shape {signal.shape}")
    if not np.isfinite(signal).all():
        raise ValueError(f"{name}: expected finite values, got {np.sum(~np.isfinite(signal))} that are not")
    return signal


def check_rate(fs: float) -> float:
    """The sampling rate `fs` (Hz), or a ValueError where it is not a positive number."""
    if not (np.isfinite(fs) and fs > 0):
        raise ValueError(f"fs: expected a positive sampling rate in Hz, got {fs}")
    return float(fs)


def integrate(x: ArrayLike) -> Array:
    """The waveform whose differences are `x`: its running sum (FACTS 6)."""
    return np.cumsum(as_signal(x), axis=0)


def detrend(x: ArrayLike, lam: float = 100.0) -> Array:
    """`x` without its smooth trend, after Tarvainen et al. 2002: x - (I + lam^2 D'D)^-1 x, D the second difference.

    The matrix is pentadiagonal, so the cost is linear in T where the released dense inverse is cubic (FACTS 8).
    At `lam` = 100 what is slower than about 0.016 cycles a sample (0.48 Hz at 30 fps) goes.
    """
    signal = as_signal(x)
    if not lam >= 0:
        raise ValueError(f"lam: expected a number >= 0, got {lam}")
    n = len(signal)
    if n < 3:  # no second difference: everything is trend
        return np.zeros_like(signal)
    bands = np.zeros((3, n))  # upper diagonals of D'D, in LAPACK's layout: bands[2] is the main one
    bands[0, 2:] = 1
    bands[1, 1:-1] -= 2
    bands[1, 2:] -= 2
    bands[2, :-2] += 1
    bands[2, 1:-1] += 4
    bands[2, 2:] += 1
    bands *= lam**2
    bands[2] += 1
    bent = remove_line(signal, axis=0)  # a straight line is its own trend; taken off first, for the digits it costs
    return _above_rounding(bent - solveh_banded(bands, bent), signal)


def smoothness(fs: float, low: float) -> float:
    """The `lam` of `detrend` with which what is slower than two thirds of `low` Hz goes, at any `fs` (Hz).

    At 30 frames a second, for 40 beats a minute, it is near the released 100 (FACTS 6).
    """
    return (check_rate(fs) / (2 * np.pi * low * 2 / 3)) ** 2


def bandpass(x: ArrayLike, fs: float, low: float, high: float, order: int = 1) -> Array:
    """Butterworth band-pass from `low` to `high` Hz, forwards and backwards, so without delay (FACTS 6)."""
    check_rate(fs)
    if not 0 < low < high < fs / 2:
        raise ValueError(f"low, high: expected 0 < low < high < fs/2 = {fs / 2:g} Hz, got {low:g} and {high:g}")
    b, a = butter(order, (2 * low / fs, 2 * high / fs), "bandpass")
    signal = as_signal(x, minimum=len(b) + 1)
    padding = min(3 * len(b), len(signal) - 1)  # scipy's, or what a short signal allows
    return _above_rounding(filtfilt(b, a, signal, axis=0, padlen=padding), signal)


def _above_rounding(y: Array, x: Array) -> Array:
    """`y`, or zeros where it is only what rounding left of `x`: a filtered constant must not look like a rhythm."""
    return y if np.abs(y).max() > 1e-12 * np.abs(x).max() else np.zeros_like(y)


def resample(x: ArrayLike, timestamps: ArrayLike, fs: float) -> Array:
    """`x`, sampled at `timestamps` (increasing seconds, any spacing), on a clock of `fs` Hz that starts with the first.

    Linear interpolation; the last sample lies at or before the last timestamp. Dropped frames are bridged.
    """
    signal, times = as_signal(x), np.asarray(timestamps, dtype=np.float64)
    check_rate(fs)
    if times.shape != signal.shape[:1]:
        raise ValueError(f"timestamps: expected one for each of {len(signal)} samples, got shape {times.shape}")
    if not (np.diff(times) > 0).all():
        raise ValueError("timestamps: expected increasing seconds, got a step that is zero, negative or not a number")
    # a last sample that rounding put a hair behind the last timestamp still counts
    clock = times[0] + np.arange(int((times[-1] - times[0]) * fs + 1e-6) + 1) / fs
    columns = signal.reshape(len(signal), -1).T
    return np.stack([np.interp(clock, times, column) for column in columns], axis=1).reshape(-1, *signal.shape[1:])


def standardize_label(y: ArrayLike) -> Array:
    """`y` at zero mean and unit standard deviation over everything (ddof 0); zeros where it is constant (FACTS 3.3)."""
    label = as_signal(y)
    centred = label - label.mean()
    std = label.std()
    return centred / std if std else np.zeros_like(label)


def diff_normalize_label(y: ArrayLike, *, pad: bool = False) -> Array:
    """First differences of `y` at unit standard deviation; zeros where they are constant (FACTS 3.3).

    T-1 samples as in the authors' repository, or with `pad` T of them, the last one zero, as in the toolbox.
    """
    step = np.diff(as_signal(y, "y", minimum=2), axis=0)
    std = step.std()
    scaled = step / std if std else np.zeros_like(step)
    return np.concatenate([scaled, np.zeros_like(scaled[:1])]) if pad else scaled

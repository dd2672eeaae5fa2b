"""Pulse waveforms from mean skin colours without any training: POS, CHROM, green; and the pseudo-labels made of POS.

`rgb` is (T, 3): the mean red, green and blue of each frame's skin, in any one unit.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike
from scipy.signal import hilbert
from scipy.signal.windows import hann

from bigsmall.signals.filters import Array, bandpass, check_rate, detrend

WINDOW = 1.6  # seconds: two beats at 75 bpm


def _windows(rgb: ArrayLike, length: int) -> Array:
    """Every run of `length` frames, each divided by its own mean colour: (T - length + 1, length, 3)."""
    colours = np.asarray(rgb, dtype=np.float64)
    if colours.ndim != 2 or colours.shape[1] != 3 or len(colours) <= length:
        raise ValueError(f"rgb: expected (T, 3) with more than {length} frames ({WINDOW} s), got shape {colours.shape}")
    if not (colours >= 0).all():
        raise ValueError("rgb: expected mean colours >= 0, got a value that is not")
    runs = sliding_window_view(colours, length, axis=0).transpose(0, 2, 1)
    mean = runs.mean(axis=1, keepdims=True)
    normalized: Array = np.divide(runs, mean, out=np.zeros_like(runs), where=mean > 0)  # black carries no pulse
    return normalized


def _ratio(x: Array, y: Array) -> Array:
    """std(x) / std(y) over the last axis, kept; zero where y does not vary, as on a still picture."""
    std = y.std(axis=-1, keepdims=True)
    ratio: Array = np.divide(x.std(axis=-1, keepdims=True), std, out=np.zeros_like(std), where=std > 0)
    return ratio


def pos_raw(rgb: ArrayLike, fs: float) -> Array:
    """The plane orthogonal to skin (Wang et al. 2017), detrended at lambda 100 and not yet band-passed: (T,)."""
    length = int(np.ceil(WINDOW * check_rate(fs)))
    runs = _windows(rgb, length)[:-1]  # as released, the newest frame belongs to no window (FACTS 7)
    first = runs @ np.array([0.0, 1.0, -1.0])
    second = runs @ np.array([-2.0, 1.0, 1.0])
    pulse = first + _ratio(first, second) * second
    pulse -= pulse.mean(axis=1, keepdims=True)
    total = np.zeros(len(pulse) + length)
    for offset in range(length):  # overlap-add: frame m + offset of window m
        total[offset : offset + len(pulse)] += pulse[:, offset]
    return detrend(total)


def pos(rgb: ArrayLike, fs: float) -> Array:
    """POS (Wang et al. 2017) with the released band-pass, order 1, 0.75 to 3 Hz (FACTS 7): (T,)."""
    return bandpass(pos_raw(rgb, fs), fs, 0.75, 3.0)


def chrom(rgb: ArrayLike, fs: float) -> Array:
    """CHROM (de Haan and Jeanne 2013) over half-overlapping Hann windows of 1.6 s, band-passed 0.7 to 2.5 Hz (FACTS 7).

    The output ends with the last whole window, so it is up to half a window shorter than `rgb`.
    """
    half = int(np.ceil(np.ceil(WINDOW * check_rate(fs)) / 2))
    runs = _windows(rgb, 2 * half)[::half]
    # filtfilt needs time first
    x = bandpass((runs @ np.array([3.0, -2.0, 0.0])).T, fs, 0.7, 2.5, order=3).T
    y = bandpass((runs @ np.array([1.5, 1.0, -1.5])).T, fs, 0.7, 2.5, order=3).T
    pulse = (x - _ratio(x, y) * y) * hann(2 * half)
    total = np.zeros((len(pulse) + 1, half))
    total[:-1] += pulse[:, :half]
    total[1:] += pulse[:, half:]
    return total.ravel()


def pseudo_label(rgb: ArrayLike, fs: float, heart_rate: float | None = None) -> tuple[Array, Array]:
    """The training labels that the released nets saw in place of a finger's: POS, and POS over its envelope (FACTS 4).

    With the trial's contact `heart_rate` (bpm) the BP4D+ recipe: order 2 within 20/fs Hz of it, which is 48 bpm at
    25 fps; without, the toolbox's fixed band, 0.7 to 3 Hz. Both are (T,); the second is what networks are trained on.
    """
    low, high = 0.7, 3.0
    if heart_rate is not None:
        low, high = max(low, heart_rate / 60 - 20 / fs), min(high, heart_rate / 60 + 20 / fs)
    pulse = bandpass(pos_raw(rgb, fs), fs, low, high, order=2)
    envelope = np.abs(hilbert(pulse))
    return pulse, np.divide(pulse, envelope, out=np.zeros_like(pulse), where=envelope > 0)


def green(rgb: ArrayLike, fs: float) -> Array:
    """The green channel's mean, as it is (Verkruysse et al. 2008): (T,)."""
    return np.asarray(rgb, dtype=np.float64)[:, 1]

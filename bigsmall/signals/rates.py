"""From a waveform to a rate per minute: the strongest frequency of a band, or the distance between peaks."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.signal import find_peaks, periodogram
from scipy.signal.windows import hann

from bigsmall.signals.filters import Array, as_signal, bandpass, check_rate

FINE = 4  # zero-padding beyond the released one, before a parabola takes over


def spectrum(x: ArrayLike, fs: float, *, fine: bool = False) -> tuple[Array, Array]:
    """Frequencies (Hz) and power density of `x` (T,), padded with zeros to the next power of two (FACTS 6).

    `fine` tapers the signal, less its straight line, with a Hann window, so that what is slow or strong elsewhere does
    not leak into the band, and pads 4 times further.
    """
    signal = as_signal(x, minimum=2)
    if signal.ndim != 1:
        raise ValueError(f"x: expected one signal (T,), got shape {signal.shape}")
    nfft = 1 << (len(signal) - 1).bit_length()
    frequencies: Array
    power: Array
    if fine:
        window = hann(len(signal), sym=False)
        frequencies, power = periodogram(signal, check_rate(fs), window, nfft=FINE * nfft, detrend="linear")
    else:
        frequencies, power = periodogram(signal, check_rate(fs), nfft=nfft, detrend=False)
    return frequencies, power


def in_band(frequencies: Array, low: float, high: float) -> slice:
    """The bins from `low` to `high` Hz, both included."""
    first, last = np.searchsorted(frequencies, low), np.searchsorted(frequencies, high, "right")
    if last - first < 3:
        raise ValueError(
            f"low, high: {low:g} to {high:g} Hz holds {max(last - first, 0)} bins of this signal's spectrum "
            f"(0 to {frequencies[-1]:g} Hz, every {frequencies[1]:.3g} Hz), expected 3 or more"
        )
    return slice(int(first), int(last))


def rate_fft(x: ArrayLike, fs: float, low: float, high: float, *, interpolate: bool = True) -> float:
    """The strongest frequency of `x` (T,) between `low` and `high` Hz, per minute.

    As released, without `interpolate`, it is a bin of the plain periodogram: 0.88 to 1.8 per minute apart on the usual
    clips. Interpolated, a parabola through the logarithm of the tapered and padded spectrum finds the top itself.
    """
    frequencies, power = spectrum(x, fs, fine=interpolate)
    band = in_band(frequencies, low, high)
    peak = band.start + int(np.argmax(power[band]))
    return 60 * (peak_frequency(frequencies, power, peak) if interpolate else float(frequencies[peak]))


def peak_frequency(frequencies: Array, power: Array, peak: int) -> float:
    """The top (Hz) of the parabola through log power at bin `peak` and its neighbours; the bin where it is no top."""
    shift = 0.0
    if 0 < peak < len(power) - 1 and power[peak - 1 : peak + 2].min() > 0:
        left, centre, right = np.log(power[peak - 1 : peak + 2])
        if centre >= max(left, right) and left + right < 2 * centre:
            shift = 0.5 * (left - right) / (left - 2 * centre + right)
    return float(frequencies[peak] + shift * frequencies[1])


def rate_peaks(x: ArrayLike, fs: float) -> float:
    """60 fs over the mean distance between all local maxima of `x` (T,), as released: noise makes it too high.

    NaN where there are fewer than two maxima.
    """
    peaks, _ = find_peaks(as_signal(x))
    return 60 * check_rate(fs) / float(np.diff(peaks).mean()) if len(peaks) > 1 else float("nan")


def rate_beats(x: ArrayLike, fs: float, low: float, high: float) -> float | None:
    """60 over the median distance (s) between the high peaks of `x` (T,), band-passed from `low` to `high` Hz.

    None where it cannot be told: fewer than three peaks, or half of the distances further from it than a sixth of it.
    """
    wave = bandpass(x, fs, low, min(high, 0.45 * fs), order=2)
    peaks, _ = find_peaks(wave, distance=max(1, 0.5 * fs / high), prominence=wave.std())
    apart = np.diff(peaks) / check_rate(fs)
    if len(apart) < 2:
        return None
    middle = float(np.median(apart))
    return 60 / middle if np.median(np.abs(apart - middle)) <= middle / 6 else None

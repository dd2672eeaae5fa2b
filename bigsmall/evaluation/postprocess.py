"""From what a network gives to a rate, and to how well its waveform fits a reference, under a named convention."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..signals import HEART_RATE, RESPIRATION_RATE, macc, rate_fft, rate_peaks, snr
from ..signals.filters import Array, bandpass, detrend, integrate, resample, smoothness

LEAST = 9  # samples: what is shorter has no rate, as released (FACTS 6)
Band = tuple[float, float]  # Hz


@dataclass(frozen=True)
class Convention:
    """How waveforms become rates.

    Attributes:
        name: what it is called in tables.
        heart_rate, respiration_rate: the band, of the filter and of the search.
        respiration_peaks: the filter's, where breaths are counted by their peaks.
        lam: of the detrending; None: what is slower than two thirds of the band goes, at any frame rate.
        interpolate: between the bins of a tapered spectrum, rather than the strongest bin of the plain one.
    """

    name: str
    heart_rate: Band
    respiration_rate: Band
    respiration_peaks: Band
    lam: float | None
    interpolate: bool

    def band(self, vital: str, peaks: bool = False) -> Band:
        """Of "heart_rate" or "respiration_rate"."""
        if vital == "heart_rate":
            return self.heart_rate
        return self.respiration_peaks if peaks else self.respiration_rate

    def describe(self, vital: str) -> str:
        """What a table says under itself."""
        low, high = self.band(vital)
        trend = f"detrended (lambda {self.lam:g})" if self.lam else "detrended (slower than two thirds of the band)"
        search = "top of the interpolated, tapered spectrum" if self.interpolate else "strongest bin of the periodogram"
        other = self.band(vital, peaks=True)
        peaks = f", {other[0]:g}-{other[1]:g} Hz for peaks" if other != (low, high) else ""
        return (
            f'Convention "{self.name}": {low:.3g}-{high:.3g} Hz ({60 * low:.3g}-{60 * high:.3g} per minute){peaks}; '
            f"{trend}, Butterworth of order 1 forwards and backwards; FFT: {search}."
        )


_RELEASED_BREATH = (0.13, 0.5)
CONVENTIONS = {
    of.name: of
    for of in (
        Convention(
            "ours",  # the measuring path's bands and filters
            (HEART_RATE.low, HEART_RATE.high),
            (RESPIRATION_RATE.low, RESPIRATION_RATE.high),
            (RESPIRATION_RATE.low, RESPIRATION_RATE.high),
            None,
            True,
        ),
        Convention("toolbox", (0.6, 3.3), _RELEASED_BREATH, _RELEASED_BREATH, 100.0, False),
        Convention("toolbox-2023", (0.75, 2.5), _RELEASED_BREATH, _RELEASED_BREATH, 100.0, False),
        Convention("bigsmall", (0.75, 2.5), _RELEASED_BREATH, (0.08, 0.5), 100.0, False),
    )
}


def named(name: str | Convention) -> Convention:
    """The one of that name.

    Raises:
        ValueError: there is none.
    """
    if isinstance(name, Convention):
        return name
    if name not in CONVENTIONS:
        raise ValueError(f"convention was {name!r}, expected one of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]


class Compared(NamedTuple):
    """A waveform beside its reference; rates per minute, NaN what cannot be told."""

    rate: float  # by FFT
    true: float
    peaks: float  # by the distances between peaks
    peaks_true: float
    snr: float  # dB, around the reference's rate by FFT
    macc: float
    times: Array  # s, of the filtered waves
    wave: Array
    reference: Array | None


def obstacle(samples: int, fs: float, band: Band) -> str | None:
    """Why so many samples at `fs` Hz have no rate in a band, or None."""
    if samples < LEAST:
        return f"{samples} samples in a row are known, {LEAST} are needed"
    if band[1] >= fs / 2:
        return f"{fs:.3g} frames a second are too few for {band[1]:g} Hz"
    bins = (1 << (samples - 1).bit_length()) / fs  # in a Hz, of the plain spectrum
    if math.floor(band[1] * bins) - math.ceil(band[0] * bins) < 2:
        return f"{samples / fs:.1f} s are too short for {band[0]:.3g} to {band[1]:.3g} Hz"
    return None


def compare(
    signal: np.ndarray,
    reference: np.ndarray | None,
    times: np.ndarray,
    vital: str,
    how: Convention,
    *,
    derivative: bool,
) -> Compared | str:
    """One stretch of a waveform and of its reference, filtered alike, their rates, and how alike they are.

    Args:
        signal: (T,) finite.
        reference: (T,) finite, the wave itself; None where there is none.
        times: (T,) increasing seconds. Everything is put on an even clock of their mean rate; an even one stays as is.
        vital: "heart_rate" or "respiration_rate".
        derivative: `signal` holds changes from frame to frame, as the networks give them.

    Returns:
        what was found, or the sentence that says why nothing can be. A signal that does not vary has its rate at the
        low end of the band, as released, and correlates with nothing: 0. A reference that does not vary has no rate.
    """
    band, other, n = how.band(vital), how.band(vital, peaks=True), len(times)
    fs = (n - 1) / float(times[-1] - times[0]) if n > 1 else 0.0
    if why := obstacle(n, fs, band):
        return why
    lam = smoothness(fs, band[0]) if how.lam is None else how.lam

    def rates(wave: np.ndarray) -> tuple[Array, float, float]:
        flat = detrend(resample(wave, times, fs), lam)
        filtered = bandpass(flat, fs, *band)
        by_peaks = rate_peaks(filtered if other == band else bandpass(flat, fs, *other), fs)
        return filtered, rate_fft(filtered, fs, *band, interpolate=how.interpolate), by_peaks

    wave, rate, peaks = rates(integrate(signal) if derivative else signal)
    clock = times[0] + np.arange(len(wave)) / fs
    filtered, true, peaks_true = (None, np.nan, np.nan) if reference is None else rates(reference)
    if filtered is None or not filtered.any():
        return Compared(rate, np.nan, peaks, np.nan, np.nan, np.nan, clock, wave, None)
    with np.errstate(divide="ignore"):  # no bin so near to the rate: too short to tell
        ratio = snr(wave, fs, true, *band)
    alike = macc(wave, filtered) if wave.any() else 0.0
    ratio = ratio if math.isfinite(ratio) else np.nan
    return Compared(rate, true, peaks, peaks_true, ratio, alike, clock, wave, filtered)
